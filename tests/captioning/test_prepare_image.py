"""Images as captioners see them."""

import io

import numpy as np
import pytest
from PIL import Image

from calotype.captioning.prepare_image import fit, prepare_image
from calotype.errors import ImageError
from calotype.images import ImageReader
from calotype.types import ImageRef


def test_a_large_photo_is_made_to_fit(photos):
    from_file = prepare_image(photos / "00.jpg", pixels=10_000)
    assert (from_file.mode, from_file.size) == ("RGB", (100, 100))
    ref = ImageRef(name="00.jpg", path=str(photos / "00.jpg"))
    for same in (ref, str(photos / "00.jpg"), (photos / "00.jpg").read_bytes()):
        assert prepare_image(same, pixels=10_000).tobytes() == from_file.tobytes()
    exact = Image.open(photos / "00.jpg").resize((100, 100), Image.Resampling.LANCZOS)
    difference = np.asarray(exact, np.float32) - np.asarray(from_file, np.float32)
    assert np.abs(difference).mean() < 2  # a JPEG may be decoded smaller


def test_a_small_photo_stays_as_it_is(photos):
    assert prepare_image(photos / "01.jpg").tobytes() == Image.open(photos / "01.jpg").tobytes()


def test_upright_without_alpha_and_in_srgb(tmp_path):
    sideways = Image.new("RGB", (40, 20), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways.save(tmp_path / "a.jpg", exif=exif)
    assert prepare_image(tmp_path / "a.jpg").size == (20, 40)

    Image.new("RGBA", (10, 10), (255, 0, 0, 0)).save(tmp_path / "b.png")
    assert prepare_image(tmp_path / "b.png").getpixel((5, 5)) == (255, 255, 255)
    black = ImageReader(background=(0, 0, 0))
    assert prepare_image(tmp_path / "b.png", reader=black).getpixel((5, 5)) == (0, 0, 0)


def test_its_pixels_are_those_that_training_sees(skimage_data):
    for name in ("rocket.jpg", "horse.png", "no_time_for_that_tiny.gif"):
        ref = ImageRef(name=name, path=str(skimage_data / name))
        assert (np.asarray(prepare_image(ref)) == ImageReader().read(ref).pixels).all()


def test_what_is_no_picture_is_an_image_error(tmp_path):
    with pytest.raises(ImageError, match="image"):
        prepare_image(b"no image")
    with pytest.raises(ImageError, match=r"none\.png"):
        prepare_image(tmp_path / "none.png")
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    with pytest.raises(ImageError):
        prepare_image(file.getvalue()[:-30])


@pytest.mark.parametrize(
    ("size", "pixels", "expected"),
    [
        ((100, 200), 20_000, (100, 200)),
        ((1000, 2000), 20_000, (100, 200)),
        ((4000, 3000), 1 << 20, (1182, 886)),
        ((1, 10_000), 100, (1, 100)),
        ((10_000, 2), 100, (100, 1)),
    ],
)
def test_fit(size, pixels, expected):
    assert fit(size, pixels) == expected
    assert expected[0] * expected[1] <= pixels


def test_the_former_name_of_the_function_warns():
    with pytest.warns(
        DeprecationWarning, match=r"prepare_picture is now calotype\.captioning\.prepare_image\.prepare_"
    ):
        from calotype.captioning.prepare_image import prepare_picture
    assert prepare_picture is prepare_image
