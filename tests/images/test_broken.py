"""Broken, hostile and mistaken files: an `ImageError` that says what is wrong, and never anything else."""

from __future__ import annotations

import io
import random
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from calotype.errors import DecodeError, DecompressionBombError, ImageError
from calotype.images import Decoded, Header, ImageReader

READER = ImageReader()
FORMATS = ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "HEIF"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (bytes(5000), "only zero bytes"),
        (b"<!DOCTYPE html><html><body>404 Not Found", "this is an HTML page, not an image: '<!DOCTYPE html>"),
        (b"\n\n <HTML>\n<head>", "this is an HTML page"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "this is an SVG drawing"),
        (b'{"error": "quota exceeded"}', "this is text, not an image"),
        ("a caption, not a photo, and a café".encode(), "this is text, not an image: 'a caption"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"PK\x03\x04 rest", "a zip archive"),
        (b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00", "a video or another ISO media file"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"\x93NUMPY\x01\x00", "it begins with 93 4e"),
    ],
)
def test_what_is_no_image_is_named(ref, data, reason):
    for call in (READER.read, READER.header, READER.size):
        with pytest.raises(DecodeError) as caught:
            call(ref(data, "cats/a.jpg".replace("/", "_")))
        assert reason in str(caught.value)
        assert str(caught.value).startswith("cats_a.jpg: ")


@pytest.mark.parametrize("format", FORMATS)
def test_a_truncated_file_is_an_error(photo, encode, ref, format):
    data = encode(photo, format)
    for keep in (0.05, 0.4, 0.9):
        with pytest.raises(DecodeError):
            READER.read(ref(data[: int(len(data) * keep)]))


@pytest.mark.parametrize("keep", [3, 20, 200, 620, 3000, -1000, -2])
def test_a_truncated_jpeg_says_so(photo, encode, ref, keep):
    data = encode(photo, "JPEG", quality=90)
    with pytest.raises(DecodeError, match="truncated"):
        READER.read(ref(data[:keep]))


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def enlarged(data: bytes, format: str) -> bytes:
    """A small file whose header announces 60,000 x 60,000."""
    if format == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        return data[:at] + struct.pack(">HH", 60_000, 60_000) + data[at + 4 :]
    if format == "PNG":
        return png_header(60_000, 60_000)
    if format == "GIF":
        return data[:6] + struct.pack("<HH", 60_000, 60_000) + data[10:]
    if format == "BMP":
        return data[:18] + struct.pack("<ii", 60_000, 60_000) + data[26:]
    if format == "TIFF":
        width, height = Image.open(io.BytesIO(data)).size
        for tag, value in ((256, width), (257, height)):
            for kind, code in ((3, "H"), (4, "I")):
                entry = struct.pack("<HHI", tag, kind, 1) + struct.pack("<" + code, value).ljust(4, b"\0")
                data = data.replace(entry, struct.pack("<HHII", tag, 4, 1, 60_000))
        return data
    assert format in ("AVIF", "HEIF")
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", 60_000, 60_000) + data[at + 8 :]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_a_decompression_bomb_is_refused_by_its_header(photo, encode, ref, format):
    bomb = ref(enlarged(encode(photo, format), format))
    for call in (READER.read, READER.header):
        with pytest.raises(DecompressionBombError, match=r"60000 x 60000 = 3,600,000,000 pixels.*raise max_pixels"):
            call(bomb)


@pytest.mark.parametrize("format", ["AVIF", "HEIF"])
def test_a_lying_container_is_refused(photo, encode, ref, format):
    with pytest.raises(ImageError):
        READER.read(ref(enlarged(encode(photo, format), format)))


def test_max_pixels_is_ours_and_not_the_process_wide_one_of_pillow(photo, encode, ref, monkeypatch):
    for format in FORMATS:
        picture = ref(encode(photo, format))
        with pytest.raises(DecompressionBombError, match="203 x 149"):
            ImageReader(max_pixels=203 * 149 - 1).read(picture)
        assert ImageReader(max_pixels=203 * 149).read(picture).original_size == (149, 203)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)  # Pillow would warn above it, and raise above twice that
    for format in FORMATS:
        assert READER.read(ref(encode(photo, format))).original_size == (149, 203)


def odd_tiff(photo: Image.Image, encode) -> bytes:
    """A TIFF that Pillow warns of: one of its tags has two values instead of one."""
    data = encode(photo, "TIFF")
    (ifd,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, ifd)
    for entry in range(ifd + 2, ifd + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from("<HH", data, entry)
        if tag == 277:  # SamplesPerPixel
            return data[:entry] + struct.pack("<HHIHH", tag, kind, 2, 3, 3) + data[entry + 12 :]
    raise AssertionError("no such tag")


def test_pillows_warnings_stay_inside(photo, encode, ref):
    data = odd_tiff(photo, encode)
    with pytest.warns(UserWarning, match="too many entries"):
        Image.open(io.BytesIO(data)).load()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        assert np.array_equal(READER.read(ref(data)).pixels, np.asarray(photo))
        READER.header(ref(data))
        assert list(warnings.filters) == before
    assert not seen


def test_pillows_warnings_stay_inside_with_many_threads(photo, encode, ref):
    pictures = [ref(odd_tiff(photo, encode), "tiff"), ref(encode(photo.quantize(9), "PNG", transparency=b"\0"), "png")]
    start = threading.Barrier(8)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        before = list(warnings.filters)

        def work(index: int) -> None:
            start.wait()
            for _ in range(10):
                READER.read(pictures[index % 2])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert list(warnings.filters) == before
    assert not seen


def test_running_out_of_memory_is_that_images_error(photo, encode, ref, monkeypatch):
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("calotype.images.decode.upright", full)
    with pytest.raises(DecodeError, match="not enough memory"):
        READER.read(ref(encode(photo, "JPEG")))


SMALL = [
    (
        "JPEG",
        "RGB",
        {"quality": 60, "exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"},
    ),
    ("JPEG", "CMYK", {"quality": 60}),
    ("JPEG", "L", {"quality": 60, "progressive": True}),
    ("PNG", "RGBA", {}),
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "I;16", {}),
    ("WEBP", "RGBA", {}),
    ("WEBP", "RGB", {"lossless": True}),
    ("AVIF", "RGB", {}),
    ("GIF", "P", {"transparency": 1}),
    ("BMP", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "CMYK", {}),
    ("TIFF", "1", {"compression": "group4"}),
    ("HEIF", "RGB", {}),
]


@pytest.mark.parametrize(("format", "mode", "options"), SMALL, ids=[f"{f}-{m}" for f, m, _ in SMALL])
def test_damage_of_any_kind_gives_pixels_or_an_image_error(photo, encode, ref, icc, format, mode, options):
    small = photo.resize((37, 29))
    small = small.convert("L").convert("I;16") if mode == "I;16" else small.convert(mode)
    if format in ("JPEG", "PNG", "WEBP", "TIFF") and mode != "I;16":
        options = options | {"icc_profile": icc.p3.profile()}
    data = encode(small, format, **options)
    assert isinstance(READER.read(ref(data)), Decoded)
    rng = random.Random(f"{format} {mode}")
    fast = ImageReader(decode="fast", max_pixels=10**6)
    outcomes = set()
    for round in range(150):
        hurt = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8))):
            # Headers break in more ways than pixels, so half of the damage goes there.
            where = rng.randrange(min(len(hurt), 200) if rng.random() < 0.5 else len(hurt))
            kind = rng.randrange(5)
            if kind == 0:
                hurt[where] ^= 1 << rng.randrange(8)
            elif kind == 1:
                hurt[where] = rng.choice((0, 0xFF, 0x7F, 0x80))
            elif kind == 2:
                del hurt[where : where + rng.randrange(1, 16)]
            elif kind == 3:
                hurt[where:where] = rng.randbytes(rng.randrange(1, 16))
            else:
                del hurt[max(where, 8) :]
            if len(hurt) < 9:
                break
        picture = ref(bytes(hurt))
        for call in (fast.read, fast.header):
            try:
                result = call(picture, need=lambda size: (8, 8)) if round % 2 and call == fast.read else call(picture)
            except ImageError as error:
                assert error.reason
                outcomes.add("error")
            else:
                outcomes.add("result")
                assert isinstance(result, Decoded | Header)
                if isinstance(result, Decoded):
                    assert result.pixels.shape[2:] == (3,)
    assert outcomes == {"error", "result"}


def test_what_pillow_logs_reaches_nobody_but_those_who_use_pillow_themselves(ref, tiff, caplog):
    data = tiff(np.zeros((4, 4, 9), np.uint8), photometric=2)  # "More samples per pixel than can be decoded"
    with pytest.raises(ImageError):
        ImageReader().read(ref(data))
    assert ImageReader().examine(ref(data)).kind
    assert not caplog.records
    with pytest.raises(UnidentifiedImageError), Image.open(io.BytesIO(data)):
        pass
    assert [record.name for record in caplog.records] == ["PIL.TiffImagePlugin"]
