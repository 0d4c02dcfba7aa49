"""Findings about pixels, held against what the dataset that trains does with each image."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import calotype
from calotype.check.facts import scan_facts
from calotype.check.framing import framing
from calotype.check.pixels import pixel_findings
from calotype.check.report import Finding
from calotype.data.dataset import TextToImageDataset
from calotype.types import SampleKey

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def photo(skimage_data) -> Image.Image:
    return Image.open(skimage_data / "astronaut.png").convert("RGB").resize((256, 256))


def dataset_of(folder: Path, **options) -> TextToImageDataset:
    options = {"resolution": 256} | options if "img_transform" not in options else options
    return calotype.text_to_image_dataset(path=str(folder), on_error="skip", missing_captions="empty", **options)


def findings(folder: Path, *, deep: bool = False, **options) -> list[Finding]:
    dataset = dataset_of(folder, **options)
    facts = scan_facts(dataset.manifest.refs(), dataset.reader, deep=deep, threads=2)
    sizes = np.array([one.header.size if one.header else (0, 0) for one in facts], np.int32).reshape(-1, 2)
    return pixel_findings(dataset, facts, sizes)


def said(found: list[Finding]) -> set[tuple[str, str, str]]:
    return {(one.kind, one.where, one.detail) for one in found}


def swapped_profile() -> bytes:
    """A real profile that changes colours: sRGB's with two of its primaries swapped."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    table = bytearray(srgb)
    places = {}
    for entry in range(132, 132 + 12 * struct.unpack_from(">I", srgb, 128)[0], 12):
        places[srgb[entry : entry + 4]] = entry
    red, blue = places[b"rXYZ"], places[b"bXYZ"]
    table[red + 4 : red + 12], table[blue + 4 : blue + 12] = srgb[blue + 4 : blue + 12], srgb[red + 4 : red + 12]
    return bytes(table)


def png_16(photo: Image.Image) -> bytes:
    """16-bit RGB, which Pillow reads as 8-bit and can't write."""
    wide = np.asarray(photo).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in wide)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", photo.width, photo.height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


# ------------------------------------------------------------------------------------------------------- colours


@pytest.fixture
def colours(photo, tmp_path) -> Path:
    folder = tmp_path / "colours"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(folder / "plain.jpg")
    photo.save(
        folder / "plain with sRGB.jpg", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    )
    photo.save(folder / "turned.jpg", exif=exif)
    photo.save(folder / "profile.jpg", icc_profile=swapped_profile())
    photo.save(folder / "bad profile.jpg", icc_profile=b"nonsense" * 30)
    photo.convert("CMYK").save(folder / "inks.jpg")
    (folder / "wide.png").write_bytes(png_16(photo))
    photo.convert("L").save(folder / "grey.jpg")
    photo.convert("L").convert("RGB").save(folder / "greyish.jpg")
    clear = photo.convert("RGBA")
    clear.save(folder / "opaque.png")
    clear.putalpha(Image.linear_gradient("L"))
    clear.save(folder / "clear.png")
    return folder


HEADERS = {
    ("rotated", "turned.jpg", "EXIF orientation 6: turned by a quarter clockwise"),
    ("cmyk", "inks.jpg", "without a profile that could be used"),
    ("sixteen_bit", "wide.png", "16 bits a channel"),
    ("greyscale", "grey.jpg", "stored without colours"),
}


def test_colours_told_by_headers(colours):
    may_be = "it may be transparent: --deep finds out"
    found = findings(colours)
    profile = next(one for one in found if one.kind == "colour_profile")
    assert profile.where == "profile.jpg"
    assert profile.detail.startswith("its pixels are in sRGB")  # what the profile calls itself; it is not
    assert said(found) - {("colour_profile", profile.where, profile.detail)} == HEADERS | {
        ("alpha", "clear.png", may_be),
        ("alpha", "opaque.png", may_be),
    }
    assert {one.level for one in found} == {"note"}


def test_colours_told_by_pixels(colours):
    found = findings(colours, deep=True)
    profiles = {one.where: one for one in found if one.kind == "colour_profile"}
    assert set(profiles) == {"profile.jpg", "bad profile.jpg"}
    assert "unreadable profile" in profiles["bad profile.jpg"].detail
    assert "read as sRGB" in profiles["bad profile.jpg"].advice
    assert said([one for one in found if one.kind != "colour_profile"]) == HEADERS | {
        ("alpha", "clear.png", "laid on rgb(255, 255, 255)"),
        ("greyscale", "greyish.jpg", "stored with colours, and all of them are grey"),
    }


def test_the_background_that_training_uses_is_named(colours):
    found = findings(colours, deep=True, background=[0, 10, 20])
    assert ("alpha", "clear.png", "laid on rgb(0, 10, 20)") in said(found)


def test_pictures_that_can_not_be_used_have_no_findings_here(colours):
    for path in colours.iterdir():
        path.write_bytes(path.read_bytes()[:-60])
    assert findings(colours, deep=True) == []


# ---------------------------------------------------------------------------------------------------------- sizes


@pytest.fixture
def shapes(photo, tmp_path) -> Path:
    folder = tmp_path / "shapes"
    folder.mkdir()
    for width, height in ((256, 256), (200, 200), (512, 300), (300, 512), (1100, 250), (250, 1100), (260, 262)):
        photo.resize((width, height)).save(folder / f"{width}x{height}.png")
    return folder


def test_small_cropped_and_odd_shapes_in_buckets(shapes):
    found = said(findings(shapes, buckets={"max_aspect": 2.0, "multiple": 64}))
    assert found == {
        ("too_small", "200x200.png", "200×200 is enlarged 1.28× to 256×256"),
        ("extreme_aspect", "1100x250.png", "62% of its area is cut away, 1100×250 for a frame of 320×192"),
        ("extreme_aspect", "250x1100.png", "62% of its area is cut away, 250×1100 for a frame of 192×320"),
    }
    assert findings(shapes, buckets={"max_aspect": 2.0, "multiple": 64, "max_upscale": 1.3})[0].kind == "extreme_aspect"


def test_small_cropped_and_odd_shapes_in_one_size(shapes):
    found = said(findings(shapes, img_transform={"resize": [256, 256], "center_crop": True}))
    assert {(kind, where) for kind, where, _ in found} == {
        ("too_small", "200x200.png"),
        ("too_small", "1100x250.png"),
        ("too_small", "250x1100.png"),
        ("cropped", "512x300.png"),
        ("cropped", "300x512.png"),
        ("cropped", "1100x250.png"),
        ("cropped", "250x1100.png"),
    }
    assert ("cropped", "512x300.png", "41% of its area is cut away, 512×300 for a frame of 256×256") in found


def test_nothing_is_cut_where_nothing_is_cropped(shapes):
    found = said(findings(shapes, img_transform={"resize": 200}))
    assert found == {
        ("extreme_aspect", "1100x250.png", "1100×250: one side is 4.4 times the other"),
        ("extreme_aspect", "250x1100.png", "250×1100: one side is 4.4 times the other"),
    }
    assert findings(shapes, img_transform=_Whole()) == []


class _Whole:
    """A callable that decides the size itself."""

    def __call__(self, image):
        return image[:, :64, :64]


def test_a_random_area_is_told_by_what_is_expected(shapes):
    crop = {"random_crop": {"scale": [0.2, 0.6]}}
    found = said(findings(shapes, img_transform=crop | {"resize": [120, 120]}))
    assert ("cropped", "256x256.png", "60% of its area is cut away on average, 256×256 for a frame of 120×120") in found
    assert not any(kind == "too_small" for kind, *_ in found)  # 120 / (200 × √0.4) is 0.95
    found = said(findings(shapes, img_transform=crop | {"resize": [160, 160]}))
    assert ("too_small", "200x200.png", "200×200 is enlarged 1.26× on average to 160×160") in found


def test_sizes_that_a_data_file_has_wrong(photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.resize((300, 256)).save(tmp_path / "turned.jpg", exif=exif)
    photo.save(tmp_path / "other.png")
    photo.save(tmp_path / "right.png")
    rows = [("turned.jpg", 300, 256), ("other.png", 512, 512), ("right.png", 256, 256)]
    keys = ("file_name", "width", "height")
    lines = [json.dumps(dict(zip(keys, row, strict=True)) | {"text": "x"}) for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    found = {one.where: one.detail for one in findings(tmp_path / "rows.jsonl") if one.kind == "wrong_size"}
    assert found == {
        "turned.jpg": "the data file says 300×256, and it is 256×300 once it is turned upright",
        "other.png": "the data file says 512×512, and it is 256×256",
    }


# ---------------------------------------------------------------------------------------- the very geometry that trains

PROGRAMS = [
    {"resolution": 256},
    {"resolution": [192, 320], "buckets": {"max_aspect": 3.0}},
    {"resolution": 256, "img_transform": {"random_crop": True, "horizontal_flip": True}},
    {"resolution": 256, "img_transform": {"random_crop": {"scale": [0.5, 0.9]}}},
    {"resolution": 256, "img_transform": {"rotate": 10, "random_crop": True}},
    {"img_transform": {"resize": [128, 200]}},
    {"img_transform": {"resize": 128}},
    {"img_transform": {"resize": 128, "center_crop": True}},
    {"img_transform": {"resize": [96, 128], "random_crop": {"scale": [0.3, 1.0]}}},
    {"img_transform": {"resize": [96, 128], "rotate": [0, 30], "center_crop": True}},
    {"img_transform": None, "buckets": False, "resolution": 200},
]


@pytest.mark.parametrize("options", PROGRAMS, ids=str)
def test_framing_is_the_mean_of_what_training_draws(shapes, options):
    dataset = dataset_of(shapes, **options)
    refs = dataset.manifest.refs()
    sizes = np.array([dataset.reader.size(ref) for ref in refs], np.int32)
    frames = framing(dataset, np.arange(len(refs)), sizes, np.zeros_like(sizes))
    assert frames is not None
    for index in range(len(refs)):
        geometry = dataset.image(index)[1]
        height, width = sizes[index].tolist()
        size = geometry.target_size if dataset.buckets is not None else None
        keys = [SampleKey(index, epoch=epoch, size=size) for epoch in range(200 if frames.drawn else 1)]
        drawn = [dataset.img_transform.draw((height, width), key, dataset.seed) for key in keys]
        assert drawn[0] == geometry
        assert frames.target[index].tolist() == list(geometry.target_size)
        lost = np.mean([1 - one.box[2] * one.box[3] / (height * width) for one in drawn])
        assert frames.lost[index] == pytest.approx(lost, abs=0.08 if frames.drawn else 0.006)
        scale = np.mean([one.scale for one in drawn])
        assert frames.scale[index] == pytest.approx(scale, rel=0.12 if frames.drawn else 0.006)
    fixed = dataset.img_transform.fixed_geometry
    assert not (fixed and frames.drawn)


def test_a_bucket_is_chosen_by_the_size_that_the_data_file_says(shapes):
    dataset = dataset_of(shapes)
    rows = np.array([0, 1])
    sizes = np.array([[512, 512], [512, 512]], np.int32)
    stated = np.array([[0, 0], [300, 600]], np.int32)
    frames = framing(dataset, rows, sizes, stated)
    assert frames is not None
    assert dataset.buckets is not None
    expected = [dataset.buckets.sizes[int(place)] for place in dataset.buckets.assign([[512, 512], [300, 600]])]
    assert frames.target.tolist() == [list(size) for size in expected]
    assert frames.lost[0] < 0.01 < frames.lost[1]
