"""Where an image is cropped and what numbers come with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import skimage.data
import torch
import torchvision.transforms as v1
from PIL import Image

from calotype.errors import ConfigError
from calotype.transforms import ImageTransform
from calotype.types import SampleKey

KEY = SampleKey(5, 2)
SIZES = [(400, 600), (427, 640), (600, 400), (512, 512), (1281, 957), (33, 2000), (1, 7)]


def transform(**options):
    return ImageTransform.from_config(options)


def draws(of, n=400, size=(400, 600), seed=0):
    return [of.draw(size, SampleKey(i), seed) for i in range(n)]


@pytest.mark.parametrize("size", SIZES)
def test_resize_pair_without_crop_stretches_the_whole_image(size):
    geometry = transform(resize=[100, 300]).draw(size, KEY, 0)
    assert geometry.target_size == (100, 300)
    assert geometry.box == (0, 0, *size)
    assert geometry.crop_top_left == (0, 0)


@pytest.mark.parametrize("size", SIZES)
def test_resize_number_without_crop_keeps_the_aspect_as_torchvision_does(size):
    expected = v1.Resize(48)(Image.new("RGB", (size[1], size[0])))
    geometry = transform(resize=48).draw(size, KEY, 0)
    assert geometry.target_size == (expected.height, expected.width)
    assert geometry.box == (0, 0, *size)


@pytest.mark.parametrize("target", [(256, 320), (320, 256), (64, 512), (512, 64), (300, 300)])
@pytest.mark.parametrize("size", SIZES)
def test_centre_crop_covers_and_keeps_the_middle(size, target):
    geometry = transform(resize=list(target), center_crop=True).draw(size, KEY, 0)
    top, left, height, width = geometry.box
    assert geometry.target_size == target
    # One side of the image is kept whole, the other is cut by as much on both sides.
    assert height == size[0] or width == size[1]
    assert abs(top - (size[0] - height - top)) <= 1
    assert abs(left - (size[1] - width - left)) <= 1
    # To within half a source pixel on the side that is cut, nothing is stretched.
    aspect = target[0] / target[1]
    assert min(abs(height - width * aspect), abs(width - height / aspect)) <= 0.5 or min(height, width) == 1


def test_centre_crop_of_a_number_is_a_square():
    geometry = transform(resize=128, center_crop=True).draw((400, 600), KEY, 0)
    assert geometry.target_size == (128, 128)
    assert geometry.box == (0, 100, 400, 400)


def test_height_comes_before_width():
    image = transform(resize=[64, 128], center_crop=True)
    pixels = skimage.data.coffee()
    geometry = image.draw(pixels.shape[:2], KEY, 0)
    assert image.finish(image.resample(pixels, geometry), geometry, KEY, 0).shape == (3, 64, 128)


def test_a_bucket_goes_before_resize_and_never_stretches():
    geometry = transform(resize=[100, 300]).draw((400, 600), KEY._replace(size=(320, 320)), 0)
    assert geometry.target_size == (320, 320)
    assert geometry.box == (0, 100, 400, 400)
    assert ImageTransform().draw((400, 600), KEY._replace(size=(320, 320)), 0).box == (0, 100, 400, 400)


def test_without_a_size_the_image_stays_as_it_is():
    pixels = skimage.data.coffee()
    image = ImageTransform.from_config(None)
    geometry = image.draw(pixels.shape[:2], KEY, 0)
    result = image.finish(image.resample(pixels, geometry), geometry, KEY, 0)
    assert np.array_equal(result.permute(1, 2, 0).numpy(), pixels)


@pytest.mark.parametrize("option", ["center_crop", "random_crop"])
def test_a_crop_to_no_size_is_an_error(option):
    with pytest.raises(ConfigError, match=rf"{option}: found no size to crop to; add resize"):
        transform(**{option: True}).draw((400, 600), KEY, 0)


def test_random_crop_reaches_every_place_and_stays_inside():
    boxes = [geometry.box for geometry in draws(transform(resize=[100, 100], random_crop=True), n=4000, size=(40, 60))]
    assert {box[1] for box in boxes} == set(range(21))
    assert {(box[0], box[2], box[3]) for box in boxes} == {(0, 40, 40)}


def test_random_crop_draws_the_area_uniformly():
    boxes = [g.box for g in draws(transform(resize=[200, 300], random_crop={"scale": [0.25, 1.0]}), n=2000)]
    areas = np.array([height * width / (400 * 600) for _, _, height, width in boxes])
    assert areas.min() >= 0.248
    assert areas.max() <= 1.0
    # Quartiles of a uniform draw; 0.03 is about 3 standard errors of 2,000 draws.
    assert np.quantile(areas, [0.25, 0.5, 0.75]) == pytest.approx([0.4375, 0.625, 0.8125], abs=0.03)
    for top, left, height, width in boxes:
        assert 0 <= top <= 400 - height
        assert 0 <= left <= 600 - width


def test_flips_come_as_often_as_asked():
    geometries = draws(transform(resize=64, horizontal_flip=0.25, vertical_flip=True), n=4000)
    assert np.mean([g.flip[0] for g in geometries]) == pytest.approx(0.25, abs=0.03)
    assert np.mean([g.flip[1] for g in geometries]) == pytest.approx(0.5, abs=0.03)


def test_one_option_does_not_change_another_ones_draws():
    base = {"resize": [64, 64], "horizontal_flip": 0.5, "vertical_flip": 0.3}
    flips = [g.flip for g in draws(transform(**base))]
    for more in ({"random_crop": True}, {"random_crop": {"scale": [0.5, 1]}}, {"rotate": 20}, {"center_crop": True}):
        assert [g.flip for g in draws(transform(**base, **more))] == flips
    places = [g.box for g in draws(transform(resize=[64, 64], random_crop=True))]
    assert [g.box for g in draws(transform(**base, random_crop=True))] == places
    angles = [g.rotate for g in draws(transform(resize=[64, 64], rotate=20))]
    assert [g.rotate for g in draws(transform(**base, rotate=20, random_crop=True))] == angles
    # More flips are the same flips and some others.
    often = [g.flip[0] for g in draws(transform(**base | {"horizontal_flip": 0.8}))]
    assert all(new or not old[0] for old, new in zip(flips, often, strict=True))
    assert sum(often) > sum(old[0] for old in flips)


def test_draws_follow_from_seed_and_key_alone():
    image = transform(resize=[64, 64], random_crop={"scale": [0.5, 1]}, horizontal_flip=True, rotate=10)
    first = image.draw((400, 600), KEY, 7)
    assert image.draw((400, 600), KEY, 7) == first
    others = [(KEY, 8), (KEY._replace(epoch=3), 7), (KEY._replace(index=6), 7), (KEY._replace(repeat=1), 7)]
    assert all(image.draw((400, 600), key, seed) != first for key, seed in others)


def sdxl_script(size, resolution, flipped):
    """diffusers' train_text_to_image_sdxl.py with --center_crop, in numbers: original_size and crop_top_left."""
    image = v1.Resize(resolution)(Image.new("RGB", (size[1], size[0])))
    if flipped:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    y1 = max(0, int(round((image.height - resolution) / 2.0)))  # noqa: RUF046
    x1 = max(0, int(round((image.width - resolution) / 2.0)))  # noqa: RUF046
    return size, (y1, x1)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize(
    "size", [(400, 600), (427, 640), (640, 427), (1281, 957), (2000, 3000), (512, 512), (300, 301)]
)
def test_sdxl_numbers_of_a_centre_crop_are_those_of_diffusers_script(size, flipped):
    geometry = transform(resize=512, center_crop=True, horizontal_flip=float(flipped)).draw(size, KEY, 0)
    assert geometry.flip == (flipped, False)
    assert (geometry.original_size, geometry.crop_top_left) == sdxl_script(size, 512, flipped)


@pytest.mark.parametrize("flip", [(False, False), (True, False), (False, True), (True, True)])
def test_crop_top_left_counts_in_the_resized_and_flipped_image(flip):
    """At scale 1 the numbers can be checked by cropping the flipped image there."""
    pixels = skimage.data.coffee()[:300, :301]
    image = transform(
        resize=[80, 90],
        random_crop={"scale": [0.0900, 0.0901]},
        horizontal_flip=float(flip[0]),
        vertical_flip=float(flip[1]),
    )
    checked = 0
    for i in range(50):
        geometry = image.draw((300, 301), SampleKey(i), 0)
        if geometry.box[2:] != geometry.target_size:
            continue
        checked += 1
        result = image.finish(image.resample(pixels, geometry), geometry, SampleKey(i), 0)
        whole = pixels[:: -1 if flip[1] else 1, :: -1 if flip[0] else 1]
        top, left = geometry.crop_top_left
        assert np.array_equal(result.permute(1, 2, 0).numpy(), whole[top : top + 80, left : left + 90])
    assert checked > 20


@pytest.mark.parametrize("crop", [{"random_crop": True}, {"center_crop": True}, {}])
@pytest.mark.parametrize("size", [(400, 600), (600, 400), (90, 1000), (5, 5)])
def test_a_turned_part_stays_inside_the_image(size, crop):
    for geometry in draws(transform(resize=[96, 160], rotate=180, **crop), n=200, size=size):
        top, left, height, width = geometry.box
        middle = np.array([left + width / 2, top + height / 2])
        angle = math.radians(geometry.rotate)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        corners = np.array([[x * width / 2, y * height / 2] for x in (-1, 1) for y in (-1, 1)])
        if crop:
            places = middle + corners @ turn.T
            # A box is whole pixels, so a corner may lie up to one outside, where the border is continued.
            assert places.min() >= -1.0
            assert (places.max(axis=0) <= np.array([size[1], size[0]]) + 1.0).all()
        assert height >= 1
        assert width >= 1


def test_needed_size_is_enough_and_not_more():
    image = transform(resize=[100, 100], random_crop={"scale": [0.3, 1.0]})
    for geometry in draws(image, n=100, size=(2000, 3000)):
        height, width = image.needed_size(geometry)
        assert geometry.box[2] * height / 2000 >= 100
        assert geometry.box[3] * width / 3000 >= 100
        assert geometry.box[2] * (height - 1) / 2000 < 100
    assert transform(resize=512, center_crop=True).needed_size(
        transform(resize=512, center_crop=True).draw((50, 60), KEY, 0)
    ) == (50, 60)


@pytest.mark.parametrize(
    ("options", "fixed", "output"),
    [
        ({"resize": 64}, True, None),
        ({"resize": 64, "center_crop": True, "horizontal_flip": 0.5, "color_jitter": {"hue": 0.1}}, True, (64, 64)),
        ({"resize": [64, 32], "random_crop": True}, False, (64, 32)),
        ({"resize": [64, 32], "rotate": 5}, False, (64, 32)),
        ({}, True, None),
    ],
)
def test_what_is_known_beforehand(options, fixed, output):
    image = transform(**options)
    assert image.fixed_geometry is fixed
    assert image.output_size == output
    geometries = [image.draw((400, 600), SampleKey(1, epoch), 0) for epoch in range(20)]
    assert (len({(geometry.box, geometry.rotate, geometry.target_size) for geometry in geometries}) == 1) is fixed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"center_crops": True}, r"img_transform: unknown option 'center_crops'; did you mean 'center_crop'\?"),
        (
            {"resize": 0},
            r"img_transform\.resize: found 0, expected one number or \[height, width\] in pixels, such as 1024",
        ),
        ({"resize": True}, r"resize: found True"),
        ({"resize": [64]}, r"resize: found \[64\], expected one number or \[height, width\]"),
        ({"resize": [64, 0.5]}, r"resize: found \[64, 0\.5\], expected"),
        ({"resize": "64"}, r"resize: found '64'"),
        ({"horizontal_flip": 1.5}, r"horizontal_flip: found 1\.5, expected a probability from 0 to 1"),
        ({"vertical_flip": "yes"}, r"vertical_flip: found 'yes'"),
        ({"center_crop": 64}, r"center_crop: found 64, expected true or false"),
        ({"center_crop": True, "random_crop": True}, r"center_crop, random_crop: found both"),
        ({"random_crop": {"scales": [0.5, 1]}}, r"random_crop: unknown option 'scales'; did you mean 'scale'\?"),
        ({"random_crop": {"scale": [0.0, 1]}}, r"random_crop\.scale: found .*, expected two parts of the area above 0"),
        ({"random_crop": {"scale": [1.0, 0.5]}}, r"random_crop\.scale: found .*the smaller first"),
        ({"rotate": 200}, r"rotate: found 200, expected degrees from 0 to 180"),
        ({"rotate": [5, -5]}, r"rotate: found \[5, -5\]"),
        ({"interpolation": "nearest"}, r"interpolation: found 'nearest', expected one of lanczos, bicubic, bilinear"),
        (
            {"color_jitter": {"brigthness": 0.1}},
            r"color_jitter: unknown option 'brigthness'; did you mean 'brightness'\?",
        ),
        ({"color_jitter": {"hue": 0.7}}, r"color_jitter\.hue: found 0\.7, expected 0 to 0\.5"),
        ({"color_jitter": {"contrast": -0.1}}, r"color_jitter\.contrast: found -0\.1"),
        ({"color_jitter": 0.1}, r"color_jitter: found 0\.1, expected a mapping"),
        ({"custom": ["blur"]}, r"custom: found 'blur', expected a callable"),
    ],
)
def test_a_wrong_option_is_an_error_at_construction(options, message):
    with pytest.raises(ConfigError, match=message):
        transform(**options)


def test_a_wrong_whole_is_an_error_at_construction():
    with pytest.raises(ConfigError, match=r"here: found 3, expected a mapping of options \(center_crop, .*"):
        ImageTransform.from_config(3, where="here")
    with pytest.raises(ConfigError, match=r"torchvision.transforms.v2.GausianBlur.*did you mean '?GaussianBlur"):
        ImageTransform.from_config({"_component_": "torchvision.transforms.v2.GausianBlur", "kernel_size": 3})


def test_yaml_containers_of_omegaconf_are_options_too():
    from omegaconf import OmegaConf

    config = OmegaConf.create(
        {
            "resize": [64, 32],
            "random_crop": {"scale": [0.5, 1.0]},
            "custom": [{"_component_": "torchvision.transforms.v2.GaussianBlur", "kernel_size": 3}],
        }
    )
    image = ImageTransform.from_config(config)
    assert image.output_size == (64, 32)
    assert len(image.custom) == 1
    geometry = image.draw((400, 600), KEY, 0)
    assert image.finish(torch.zeros(3, 64, 32, dtype=torch.uint8), geometry, KEY, 0).shape == (3, 64, 32)
