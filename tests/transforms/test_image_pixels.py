"""What resample and finish do to the pixels, against slow and obvious twins."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from calotype.core.rng import Stream, generator
from calotype.transforms import ImageTransform
from calotype.types import SampleKey

KEY = SampleKey(5, 2)
PILLOW = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


@pytest.fixture(scope="module")
def photos():
    return {name: getattr(skimage.data, name)() for name in ("coffee", "astronaut", "chelsea", "rocket")}


def psnr(a, b):
    error = np.mean((np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)) ** 2)
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


def hwc(image):
    return image.permute(1, 2, 0).numpy()


def pillow_crop_resize(pixels, geometry, resampling):
    """Across first, then down, as torch does; Pillow on its own chooses the order that costs less."""
    top, left, height, width = geometry.box
    part = Image.fromarray(pixels).crop((left, top, left + width, top + height))
    rows, columns = geometry.target_size
    return np.asarray(part.resize((columns, height), resampling).resize((columns, rows), resampling))


# Measured on these photos: at least 68.1, 70.3 and 61.7 dB. Bilinear enlargement has ties that round either way.
@pytest.mark.parametrize(("interpolation", "least"), [("lanczos", 68), ("bicubic", 70), ("bilinear", 61)])
@pytest.mark.parametrize(
    "options",
    [
        {"resize": [256, 256], "center_crop": True},
        {"resize": [192, 320], "random_crop": {"scale": [0.3, 1.0]}},
        {"resize": [100, 333]},
        {"resize": 700},
    ],
    ids=str,
)
def test_resample_is_pillows_crop_and_resize(photos, options, interpolation, least):
    image = ImageTransform.from_config(options | {"interpolation": interpolation})
    for pixels in photos.values():
        geometry = image.draw(pixels.shape[:2], KEY, 0)
        expected = pillow_crop_resize(pixels, geometry, PILLOW[interpolation])
        result = image.resample(pixels, geometry)
        assert result.dtype == torch.uint8
        assert result.is_contiguous()
        assert psnr(hwc(result), expected) > least
        # Two roundings apart at most, anywhere.
        assert np.abs(hwc(result).astype(int) - expected).max() <= 2


def test_resample_takes_read_only_and_strided_pixels(photos):
    pixels = photos["coffee"]
    image = ImageTransform(resize=[64, 64], random_crop=True)
    geometry = image.draw(pixels.shape[:2], KEY, 0)
    expected = image.resample(pixels, geometry)
    frozen = pixels.copy()
    frozen.flags.writeable = False
    strided = np.ascontiguousarray(pixels[:, ::-1])[:, ::-1]
    assert torch.equal(image.resample(frozen, geometry), expected)
    assert torch.equal(image.resample(strided, geometry), expected)
    whole = ImageTransform()
    assert np.array_equal(hwc(whole.resample(frozen, whole.draw(pixels.shape[:2], KEY, 0))), pixels)


@pytest.mark.parametrize("options", [{"random_crop": True}, {"center_crop": True}, {"rotate": [10, 10]}], ids=str)
def test_pixels_decoded_at_a_smaller_scale_show_the_same_part(photos, options):
    pixels = photos["astronaut"]
    half = np.asarray(Image.fromarray(pixels).resize((256, 256), Image.Resampling.BOX))
    image = ImageTransform.from_config({"resize": [96, 120]} | options)
    geometry = image.draw(pixels.shape[:2], KEY, 0)
    # Half a source pixel of shift, and the softer source, leave about 30 dB; another part would leave less than 20.
    assert psnr(hwc(image.resample(half, geometry)), hwc(image.resample(pixels, geometry))) > 28


def test_extreme_shapes_give_the_size_asked_for():
    for shape in [(1, 1), (1, 500), (500, 1), (3, 2000), (7, 5)]:
        pixels = np.full((*shape, 3), 77, dtype=np.uint8)
        for more in ({}, {"center_crop": True}, {"random_crop": {"scale": [0.1, 1.0]}}, {"rotate": 90}):
            image = ImageTransform.from_config({"resize": [24, 40]} | more)
            geometry = image.draw(shape, KEY, 0)
            result = image.resample(pixels, geometry)
            assert result.shape == (3, 24, 40)
            assert (result == 77).all()


def waves(x, y):
    """A smooth image that is known between its pixels too: red, green and blue at (x, y)."""
    return np.stack([128 + 100 * np.sin(x / 31 + y / 83), 128 + 100 * np.cos(y / 23), 128 + 60 * np.sin(x / 41)], -1)


@pytest.mark.parametrize("options", [{"center_crop": True}, {"random_crop": {"scale": [0.2, 0.6]}}, {}], ids=str)
@pytest.mark.parametrize("angle", [-170.0, -90.0, -31.0, -3.0, 8.0, 45.0, 90.0, 135.0, 180.0])
@pytest.mark.parametrize("interpolation", ["lanczos", "bilinear"])
def test_rotation_shows_the_part_turned_counter_clockwise_around_its_middle(angle, options, interpolation):
    y, x = np.mgrid[0:500, 0:620] + 0.5
    pixels = waves(x, y).round().astype(np.uint8)
    image = ImageTransform.from_config(
        {"resize": [160, 200], "rotate": [angle, angle], "interpolation": interpolation} | options
    )
    for i in range(3):
        geometry = image.draw((500, 620), SampleKey(i), 0)
        top, left, height, width = geometry.box
        v, u = np.mgrid[0:160, 0:200] + 0.5 - np.array([80, 100]).reshape(2, 1, 1)
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        # Where each output pixel comes from: back by the angle (clockwise; y points down), then to source pixels.
        source_x = left + width / 2 + (cos * u - sin * v) * width / 200
        source_y = top + height / 2 + (sin * u + cos * v) * height / 160
        difference = np.abs(hwc(image.resample(pixels, geometry)) - waves(source_x, source_y))
        assert difference.mean() < 0.6
        assert difference.max() < 5


def test_a_quarter_turn_is_counter_clockwise(photos):
    pixels = photos["astronaut"]
    image = ImageTransform(resize=[128, 128], center_crop=True, rotate=[90, 90])
    geometry = image.draw((512, 512), KEY, 0)
    upright = ImageTransform(resize=[128, 128]).resample(pixels, geometry)
    assert geometry.rotate == 90
    part = pillow_crop_resize(pixels, geometry, PILLOW["lanczos"])
    turned = hwc(upright)
    assert psnr(turned, np.rot90(part, 1)) > psnr(turned, np.rot90(part, -1)) + 10


@pytest.mark.parametrize("angle", [-45.0, 10.0, 90.0])
def test_rotation_shows_no_empty_corner(angle):
    white = np.full((300, 500, 3), 255, dtype=np.uint8)
    for options in ({"center_crop": True}, {"random_crop": True}, {}):
        image = ImageTransform.from_config({"resize": [64, 96], "rotate": [angle, angle]} | options)
        assert (image.resample(white, image.draw((300, 500), KEY, 0)) == 255).all()


@pytest.mark.parametrize("flip", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_flips(photos, flip):
    image = ImageTransform(resize=[32, 48], horizontal_flip=flip[0], vertical_flip=flip[1])
    pixels = photos["coffee"]
    geometry = image.draw(pixels.shape[:2], KEY, 0)
    resampled = image.resample(pixels, geometry)
    before = resampled.clone()
    result = image.finish(resampled, geometry, KEY, 0)
    expected = hwc(resampled)[:: -1 if flip[1] else 1, :: -1 if flip[0] else 1]
    assert np.array_equal(hwc(result), expected)
    assert result.is_contiguous()
    assert torch.equal(resampled, before)


def test_colour_jitter_is_torchvisions_in_a_drawn_order(photos):
    pixels = torch.from_numpy(photos["coffee"]).permute(2, 0, 1)[:, :64, :64].contiguous()
    options = {"brightness": 0.3, "contrast": [0.5, 1.5], "saturation": 0.4, "hue": 0.1}
    image = ImageTransform(color_jitter=options)
    rng = generator(0, KEY, Stream.COLOUR)
    order, draws = rng.permutation(4), rng.random(4)
    steps = [
        (functional.adjust_brightness, 0.7, 1.3),
        (functional.adjust_contrast, 0.5, 1.5),
        (functional.adjust_saturation, 0.6, 1.4),
        (functional.adjust_hue, -0.1, 0.1),
    ]
    expected = pixels
    for i in order:
        adjust, low, high = steps[i]
        expected = adjust(expected, low + (high - low) * draws[i])
    geometry = image.draw((64, 64), KEY, 0)
    assert torch.equal(image.finish(pixels, geometry, KEY, 0), expected)
    assert not torch.equal(expected, pixels)


def test_colour_draws_spread_over_the_range_and_over_orders():
    grey = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    image = ImageTransform(color_jitter={"brightness": [0.5, 1.5]})
    geometry = image.draw((4, 4), KEY, 0)
    levels = [int(image.finish(grey, geometry, SampleKey(i), 0)[0, 0, 0]) for i in range(1000)]
    assert min(levels) < 55
    assert max(levels) > 145
    assert np.mean(levels) == pytest.approx(100, abs=4)


def test_one_jitter_does_not_change_another_ones_draw():
    grey = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    alone, both = (
        ImageTransform(color_jitter={"brightness": 0.5}),
        ImageTransform(
            color_jitter={"brightness": 0.5, "saturation": 0.5}, random_crop=True, resize=4, horizontal_flip=True
        ),
    )
    for i in range(20):
        key = SampleKey(i)
        results = [p.finish(grey, p.draw((4, 4), key, 0), key, 0) for p in (alone, both)]
        # Grey has no saturation to change, but is rounded once more.
        assert (results[0].int() - results[1].int()).abs().max() <= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_finish_runs_on_the_device(photos):
    pixels = torch.from_numpy(photos["coffee"]).permute(2, 0, 1).contiguous()
    image = ImageTransform.from_config(
        {
            "horizontal_flip": 1.0,
            "color_jitter": {"brightness": 0.2, "hue": 0.05},
            "custom": [{"_component_": "torchvision.transforms.v2.GaussianBlur", "kernel_size": 5}],
        }
    )
    geometry = image.draw((400, 600), KEY, 0)
    on_device = image.finish(pixels.cuda(), geometry, KEY, 0)
    assert on_device.is_cuda
    assert on_device.is_contiguous()
    assert psnr(on_device.cpu(), image.finish(pixels, geometry, KEY, 0)) > 45
