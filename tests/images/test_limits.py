"""Images inside the limit of pixels that would take minutes or gigabytes are refused before a pixel is decoded."""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from calotype.errors import DecompressionBombError, ImageError
from calotype.images import ImageReader
from calotype.images import pillow as pillow_module
from calotype.images import sources as sources_module
from calotype.images.jpeg import count_scans, scan_jpeg
from calotype.images.limits import (
    MAX_PIXELS,
    TooCostlyError,
    TooManyPixelsError,
    check_bytes,
    check_pixels,
    check_scans,
)
from calotype.types import ImageRef

READER = ImageReader()


def jpeg(scans: int, size: tuple[int, int] = (64, 64), *, mode: str = "RGB", progressive: bool = True) -> bytes:
    """With so many scans more than it has, for a header of (H, W)."""
    out = io.BytesIO()
    Image.new(mode, (64, 64)).save(out, "JPEG", progressive=progressive, restart_marker_blocks=4)
    data = bytearray(out.getvalue())
    frame = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", *size)
    last = data.rindex(b"\xff\xda")
    return bytes(data[:-2]) + bytes(data[last:-2]) * scans + b"\xff\xd9"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_of_many_scans_are_refused_by_what_they_would_cost(ref, mode):
    for scans, size in [(300, (13_000, 13_000)), (20, (13_000, 13_000)), (95, (6_000, 6_000)), (3_000, (64, 64))]:
        with pytest.raises(DecompressionBombError, match=r"JPEG of [\d,]+ scans over .*save it again") as caught:
            READER.read(ref(jpeg(scans, size, mode=mode)))
        assert caught.value.kind == "too_costly"
    for scans in (0, 5, 80):
        try:
            READER.read(ref(jpeg(scans, mode=mode)))
        except ImageError as error:  # libjpeg's own: the same scan twice
            assert scans
            assert error.kind == "damaged"


def test_scans_are_counted_where_a_decoder_finds_them(photo, encode):
    def count(data):
        return count_scans(data, scan_jpeg(data))

    plain = encode(photo, "JPEG", progressive=True)
    assert count(plain) == plain.count(b"\xff\xda") == 10
    assert count(encode(photo, "JPEG")) == 1
    many = jpeg(50)
    assert count(many) == many.count(b"\xff\xda")
    hidden = many.replace(b"\xff\xda", b"\xff" * 3 + b"\xda")  # behind fill bytes
    assert count(hidden) == count(many)
    end, comment = many.rindex(b"\xff\xda"), b"\xff\xfe\x00\x04\xff\xd9"
    assert count(many[:end] + comment + many[end:]) == count(many)  # the end marker in a comment is none
    assert count(plain + b"\xff\xda\x00\x02" * 30_000) == 10  # a video behind it
    baseline = bytearray(jpeg(50, progressive=False))
    assert count(baseline) == 1
    baseline[scan_jpeg(baseline).scan + 2] = 1  # the first scan has one colour of three, so others are read
    assert count(baseline) == 51
    noise = b"\xff\xfe" + struct.pack(">H", 2 + 2_000) + b"\xff\xda" * 1_000
    start = plain.index(b"\xff\xda", 700)
    assert count(plain[:start] + noise + plain[start:]) == 10


@pytest.mark.parametrize(
    ("check", "most", "error"),
    [
        (lambda scans: check_scans(scans, (13_000, 13_000)), 16, TooCostlyError),
        (lambda scans: check_scans(scans, (6_000, 6_000)), 79, TooCostlyError),
        (lambda scans: check_scans(scans, (64, 64)), 100, TooCostlyError),
        (lambda side: check_pixels((1, side), MAX_PIXELS), 1_000_000, TooCostlyError),
        (lambda side: check_pixels((10, side), 1_000), 100, TooManyPixelsError),
        (lambda length: check_bytes(length, 100), (64 << 20) + 800, TooCostlyError),
    ],
)
def test_limits_hold_to_the_last_one(check, most, error):
    check(most)
    with pytest.raises(error):
        check(most + 1)


class Counting(bytes):
    """Bytes that count how often Python code looks at them."""

    looks = 0

    def __getitem__(self, place):
        self.looks += 1
        return super().__getitem__(place)

    def find(self, *args):
        self.looks += 1
        return super().find(*args)


@pytest.mark.parametrize("filling", [b"\xff", b"\xff\x00", b"\xff\xd0", b"\xff\x01"])
def test_bytes_between_segments_are_not_looked_at_one_by_one(photo, encode, ref, filling):
    data = encode(photo, "JPEG")
    long = Counting(data[:2] + filling * 50_000 + data[2:])
    assert scan_jpeg(long).size == (photo.height, photo.width) and long.looks < 100
    with pytest.raises(ImageError, match="truncated: the JPEG ends inside its header"):
        READER.header(ref(data[:2] + filling * 100_000))


def test_empty_segments_without_end_are_refused(photo, encode, ref):
    data = encode(photo, "JPEG")
    with pytest.raises(ImageError, match="more than 4,096 segments"):
        READER.header(ref(data[:2] + b"\xff\xfe\x00\x02" * 500_000 + data[2:]))
    assert READER.read(ref(data[:2] + b"\xff\xfe\x00\x02" * 4_000 + data[2:])).notes == ()


def test_a_side_that_no_image_has_is_refused(ref):
    def png(width: int, height: int) -> bytes:
        def chunk(name: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

        head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        body = zlib.compress(bytes((width + 1) * height))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")

    for size in ((1, 1_000_001), (1_000_001, 1)):
        for ask in (READER.read, READER.header):
            with pytest.raises(DecompressionBombError, match="a side of more than 1,000,000 is not read") as caught:
                ask(ref(png(*size)))
            assert caught.value.kind == "too_costly"
        assert READER.examine(ref(png(*size))).kind == "too_costly"
    assert READER.read(ref(png(2, 300_000))).pixels.shape == (300_000, 2, 3)


def test_local_files_have_a_limit_of_bytes(photo, encode, tmp_path):
    data = encode(photo, "PNG")
    path = tmp_path / "sparse.png"
    path.write_bytes(data)
    os.truncate(path, 20_000_000_000)
    sparse = ImageRef(name="sparse.png", path=str(path))
    for ask in (READER.read, READER.read_bytes, READER.header):
        with pytest.raises(ImageError, match=r"20,000,000,000 bytes, more than .*raise max_pixels") as caught:
            ask(sparse)
        assert caught.value.kind == "too_costly"
    assert READER.examine(sparse).kind == "too_costly"
    part = ImageRef(name="part.png", path=str(path), offset=0, size=len(data))
    assert np.array_equal(READER.read(part).pixels, np.asarray(photo))
    with pytest.raises(ImageError, match="more than"):
        READER.read(ImageRef(name="part.png", path=str(path), offset=0, size=2_000_000_000))
    small = ImageReader(max_pixels=photo.width * photo.height)
    assert small.read(part).pixels.shape == (photo.height, photo.width, 3)
    os.truncate(path, (64 << 20) + 8 * small.max_pixels + 1)
    with pytest.raises(ImageError, match="more than"):
        small.read(sparse)


def test_values_in_lmdb_have_the_same_limit(tmp_path, photo, encode):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path), map_size=1 << 28) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"long", encode(photo, "PNG") + bytes(65 << 20))
    ref = ImageRef(name="long", path=str(tmp_path), key=b"long")
    assert READER.read(ref).pixels.shape[2] == 3
    with pytest.raises(ImageError, match="more than"):
        ImageReader(max_pixels=photo.width * photo.height).read(ref)


def test_a_file_that_grows_while_it_is_read_is_read_as_it_began(photo, encode, tmp_path, monkeypatch):
    path = tmp_path / "grows.png"
    path.write_bytes(encode(photo, "PNG"))
    whole, pread = path.stat().st_size, os.pread

    def growing(descriptor, length, position):
        with path.open("ab") as file:
            file.write(bytes(100_000))
        return pread(descriptor, min(length, 1_000), position)

    monkeypatch.setattr(sources_module.os, "pread", growing)
    assert len(READER.read_bytes(ImageRef(name="grows", path=str(path)))) == whole


FRAME = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
"""One pixel of a GIF."""


def gif(*parts: bytes) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes((9, 9, 9, 255, 255, 255)) + b"".join(parts)


def pages(count: int, *, order: str = "<", big: bool = False, filling: int = 0, back_to: int | None = None) -> bytes:
    """A TIFF of so many pages of the same pixel; `filling` more entries in each, the last leads back to one of them."""
    number = "Q" if big else "I"
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "H", 43 if big else 42)
    head += struct.pack(order + "HHQ", 8, 0, 16) if big else struct.pack(order + "I", 8)
    tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: 1}
    tags |= {40_000 + place: 1 for place in range(filling)}
    table = struct.pack(order + ("Q" if big else "H"), len(tags))
    for tag, value in tags.items():
        table += struct.pack(f"{order}HH{number}{number}", tag, 16 if big else 4, 1, value)
    step = len(table) + struct.calcsize(order + number)
    following = [len(head) + page * step for page in range(1, count)]
    following.append(0 if back_to is None else len(head) + back_to * step)
    return head + b"".join(table + struct.pack(order + number, place) for place in following)


def is_too_costly(ref: ImageRef, reason: str) -> None:
    for ask in (READER.read, READER.header):
        with pytest.raises(DecompressionBombError, match=reason) as caught:
            ask(ref)
        assert caught.value.kind == "too_costly"
    assert READER.examine(ref).kind == "too_costly"


@pytest.mark.parametrize("options", [{}, {"order": ">"}, {"big": True}, {"back_to": 0}, {"back_to": 8}])
def test_pages_are_counted_as_pillow_counts_them(ref, options):
    for count in (1, 2, 9):
        several = pages(count, **options | ({"back_to": count - 1} if options.get("back_to") else {}))
        with Image.open(io.BytesIO(several)) as image:
            assert image.n_frames == count
        assert READER.header(ref(several)).frames == count
        assert READER.read(ref(several)).notes == ((f"pages: first of {count}",) if count > 1 else ())
        assert READER.examine(ref(several)).cut is None


def test_frames_are_counted_as_pillow_counts_them(encode, ref, monkeypatch):
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "green", "blue")]
    usual = encode(frames[0], "GIF", save_all=True, append_images=frames[1:], loop=0, comment=b"a" * 1_000)
    extension = b"!\xfe\x02ab\x00"
    cases = [usual, usual[:-20], usual + b"behind", gif(FRAME, b";"), gif(extension, FRAME, extension, FRAME)]
    for limit in (8_000_000, 200):  # the reads of short files are not counted
        monkeypatch.setitem(pillow_module.MAX_READS, "GIF", limit)
        for data in cases:
            with Image.open(io.BytesIO(data)) as image:
                count = image.n_frames
            assert READER.header(ref(data)).frames == count
            assert READER.read(ref(data)).notes == ((f"animated: first of {count} frames",) if count > 1 else ())


def test_tiffs_of_too_many_pages_are_refused(ref):
    reason = "it is a TIFF of more than 10,000 pages, .* save its first page as a file"
    with pytest.raises(DecompressionBombError, match=reason) as caught:
        READER.header(ref(pages(200_000)))
    assert caught.value.kind == "too_costly"


def test_tiffs_of_too_many_pages_are_refused_whoever_asks(ref, monkeypatch):
    monkeypatch.setattr(pillow_module, "MAX_PAGES", 20)
    for options in ({}, {"order": ">"}, {"big": True}):
        assert READER.header(ref(pages(20, **options))).frames == 20
        is_too_costly(ref(pages(21, **options)), "TIFF of more than 20 pages")


def test_directories_of_too_many_entries_are_refused(ref, monkeypatch):
    monkeypatch.setitem(pillow_module.MAX_READS, "TIFF", 7_000)
    reason = "TIFF of too many entries in its directories: .* more than 7,000 steps; save its first frame"
    assert READER.header(ref(pages(5, filling=400))).frames == 5
    is_too_costly(ref(pages(50, filling=400)), reason)
    is_too_costly(ref(pages(1, filling=6_000)), reason)  # before any page is counted
    is_too_costly(ref(pages(1, filling=6_000, big=True)), reason)


@pytest.mark.parametrize(
    ("data", "frames"),
    [
        (gif(FRAME * 200_000), 200_000),
        (gif(FRAME[:-1], b"\x01\x00" * 2_000_000, b"\x00", FRAME), 2),
        (gif(b"!\xfe", b"\x01a" * 2_000_000, b"\x00", FRAME), 1),
    ],
    ids=["frames", "pixels", "comment"],
)
def test_gifs_of_many_blocks_are_read_or_refused(ref, monkeypatch, data, frames):
    seen = READER.examine(ref(data))
    assert (seen.header.frames, seen.cut) == (frames, "it has no trailer")
    monkeypatch.setitem(pillow_module.MAX_READS, "GIF", 100_000)
    is_too_costly(ref(data), "GIF of too many blocks: .* more than 100,000 steps; save its first frame")
    is_too_costly(ref(gif(FRAME, bytes(200_000))), "GIF of too many blocks")  # stray bytes, one by one
