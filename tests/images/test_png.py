"""Metadata of any length costs no image: Pillow does not get what makes no pixels, and nobody changes its limits."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from calotype.errors import DecodeError, ImageError
from calotype.images import ImageReader
from calotype.images.png import open_chunks

READER = ImageReader()
MEGABYTE = 1 << 20


def chunk(name: bytes, data: bytes, checksum: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(data))
        + name
        + data
        + struct.pack(">I", zlib.crc32(name + data) if checksum is None else checksum)
    )


def with_chunks(png: bytes, *extra: bytes, late: bool = False) -> bytes:
    place = len(png) - 12 if late else 33
    return png[:place] + b"".join(extra) + png[place:]


@pytest.fixture(scope="module")
def png(photo, encode) -> bytes:
    return encode(photo.resize((40, 30)), "PNG")


@pytest.fixture(scope="module")
def profile(icc) -> bytes:
    """Display P3 with a private tag of 3 MB, as profiles with tables of colours have them."""
    plain = icc.p3.profile()
    (count,) = struct.unpack_from(">I", plain, 128)
    tags = [struct.unpack_from(">4sII", plain, 132 + 12 * i) for i in range(count)]
    moved = [(name, start + 12, length) for name, start, length in tags]
    table = b"".join(struct.pack(">4sII", *tag) for tag in [*moved, (b"zzzz", len(plain) + 12, 3 * MEGABYTE)])
    body = plain[132 + 12 * count :] + b"data\0\0\0\0" + bytes(3 * MEGABYTE - 8)
    whole = plain[4:128] + struct.pack(">I", count + 1) + table + body
    return struct.pack(">I", len(whole) + 4) + whole


def test_long_texts_cost_no_pixel(png, ref):
    text = bytes(3 * MEGABYTE).replace(b"\0", b"a ")
    long = [
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(text)),
        chunk(b"tEXt", b"prompt\0" + text),
        chunk(b"iTXt", b"prompt\0\1\0en\0\0" + zlib.compress(text)),
        chunk(b"iTXt", b"prompt\0\0\0en\0\0" + text),
        chunk(b"tEXt", b"no separator, and longer than any key may be " * 9),
    ]
    many = [chunk(b"zTXt", b"p%d\0\0" % i + zlib.compress(bytes(MEGABYTE))) for i in range(70)]  # 70 MB of text
    before = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, ImageFile.LOAD_TRUNCATED_IMAGES
    plain = READER.read(ref(png))
    for late in (False, True):
        for extra in (*([each] for each in long), many, long):
            data = ref(with_chunks(png, *extra, late=late))
            assert np.array_equal(READER.read(data).pixels, plain.pixels)
            assert READER.header(data).size == (30, 40)
            assert READER.examine(data).cut is None
    assert before == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, ImageFile.LOAD_TRUNCATED_IMAGES)
    with pytest.raises(ValueError, match="MAX_TEXT_CHUNK"), Image.open(io.BytesIO(with_chunks(png, long[0]))) as image:
        image.load()  # Pillow's own behaviour is its user's to choose


def test_a_long_profile_is_used_in_every_format(photo, encode, ref, icc, profile):
    small = photo.resize((40, 30))
    for format in ("PNG", "JPEG", "TIFF", "WEBP", "AVIF"):
        options = {} if format in ("PNG", "TIFF") else {"quality": 95}
        decoded = READER.read(ref(encode(small, format, icc_profile=profile, **options)))
        expected = READER.read(ref(encode(small, format, icc_profile=icc.p3.profile(), **options)))
        assert decoded.notes == expected.notes == ("icc: Display P3 to sRGB",), format
        assert np.array_equal(decoded.pixels, expected.pixels)
        assert READER.header(ref(encode(small, format, icc_profile=profile, **options))).icc == "Display P3"


def test_long_metadata_of_other_formats_costs_no_pixel(photo, encode, ref):
    small = photo.resize((40, 30))
    xmp = b"<x:xmpmeta>" + b" " * 5 * MEGABYTE + b"</x:xmpmeta>"
    plain = {format: encode(small, format) for format in ("JPEG", "TIFF", "WEBP", "AVIF", "GIF")}
    app = b"\xff\xef" + struct.pack(">H", 65_000) + bytes(64_998)
    long = {
        "JPEG": plain["JPEG"][:2] + app * 200 + plain["JPEG"][2:],
        "TIFF": encode(small, "TIFF", tiffinfo={700: xmp, 270: "a" * 3 * MEGABYTE}),
        "WEBP": encode(small, "WEBP", xmp=xmp, exif=b"Exif\0\0II*\0" + bytes(2 * MEGABYTE)),
        "AVIF": encode(small, "AVIF", xmp=xmp),
        "GIF": encode(small, "GIF", comment=b"a" * 3 * MEGABYTE),
    }
    for format, data in long.items():
        assert len(data) > 2 * MEGABYTE
        assert np.array_equal(READER.read(ref(data)).pixels, READER.read(ref(plain[format])).pixels), format
        assert READER.examine(ref(data)).header.size == (30, 40)


@pytest.mark.parametrize("late", [False, True], ids=["before the pixels", "behind them"])
def test_an_orientation_is_found_wherever_a_png_names_it(png, ref, late):
    exif = Image.Exif()
    exif[274] = 6
    raw = exif.tobytes()
    text = f"\nexif\n{len(raw):8}\n{raw.hex()}\n".encode()
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    turned = np.rot90(READER.read(ref(png)).pixels, -1)
    for extra in (
        chunk(b"eXIf", raw.removeprefix(b"Exif\0\0")),
        chunk(b"tEXt", b"Raw profile type exif\0" + text),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0x-default\0XMP\0" + zlib.compress(xmp)),
        chunk(b"tEXt", b"prompt\0" + b"a" * 2 * MEGABYTE) + chunk(b"eXIf", raw.removeprefix(b"Exif\0\0")),
    ):
        data = ref(with_chunks(png, extra, late=late))
        assert np.array_equal(READER.read(data).pixels, turned)
        assert READER.header(data).size == (40, 30)
    for damaged in (
        chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nno hex"),
        chunk(b"zTXt", b"Raw profile type exif\0\0no zlib"),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1"),
        chunk(b"eXIf", b"nothing"),
    ):
        assert READER.read(ref(with_chunks(png, damaged, late=late))).pixels.shape == (30, 40, 3)


def test_damage_is_found_where_it_matters(png, ref, profile):
    plain = READER.read(ref(png))
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    text = chunk(b"tEXt", b"prompt\0a", checksum=1)
    assert np.array_equal(READER.read(ref(with_chunks(png, text))).pixels, plain.pixels)
    for extra, reason in [
        (chunk(b"eXIf", exif, checksum=1), "the checksum of its chunk eXIf is wrong"),
        (chunk(b"iCCP", b"x\0\0" + zlib.compress(profile), checksum=1), "the checksum of its chunk iCCP is wrong"),
        (chunk(b"pLTE", bytes(6), checksum=1), "pLTE"),  # one bit off
    ]:
        for read in (READER.read, READER.header):
            with pytest.raises(DecodeError, match=reason) as caught:
                read(ref(with_chunks(png, extra)))
            assert caught.value.kind == "damaged"
    for unusable in (b"x\0\0no zlib", b"x\0\0" + zlib.compress(bytes(40 * MEGABYTE)), b"x"):
        decoded = READER.read(ref(with_chunks(png, chunk(b"iCCP", unusable))))
        assert np.array_equal(decoded.pixels, plain.pixels)
        assert decoded.notes[0].startswith("icc: profile ignored, it can't be read")


def test_metadata_is_read_and_inflated_up_to_a_limit(png):
    long = zlib.compress(bytes(17 * MEGABYTE))
    for extra, name, length in [
        (chunk(b"zTXt", b"Raw profile type exif\0\0" + long), "Raw profile type exif", 16 * MEGABYTE),
        (chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + long), "xmp", 16 * MEGABYTE),
        (chunk(b"iCCP", b"x\0\0" + long), "icc_profile", 16 * MEGABYTE),
        (chunk(b"iCCP", bytes(17 * MEGABYTE)), "icc_profile", 1),
    ]:
        info = open_chunks(io.BytesIO(with_chunks(png, extra)), pixels=False)[1]
        assert {key: len(value) for key, value in info.items()} == {name: length}
    unread = chunk(b"eXIf", bytes(17 * MEGABYTE), checksum=1)
    assert open_chunks(io.BytesIO(with_chunks(png, unread)), pixels=False)[1] == {}


def test_an_animation_keeps_its_frames_and_loses_its_texts(photo, encode, ref):
    frames = [photo.resize((40, 30)), photo.resize((40, 30)).transpose(Image.Transpose.ROTATE_180)]
    data = encode(frames[0], "PNG", save_all=True, append_images=frames[1:])
    long = with_chunks(data, chunk(b"zTXt", b"p\0\0" + zlib.compress(bytes(2 * MEGABYTE))))
    for each in (data, long):
        decoded = READER.read(ref(each))
        assert np.array_equal(decoded.pixels, np.asarray(frames[0]))
        assert decoded.notes == ("animated: first of 2 frames",) and READER.header(ref(each)).frames == 2


def test_chunks_without_end_are_refused_at_once(png, ref):
    data = ref(with_chunks(png, chunk(b"tEXt", b"") * 60_000, chunk(b"IDAT", b"") * 60_000))
    for ask in (READER.read, READER.header):
        with pytest.raises(ImageError, match="it has more than 100,000 chunks"):
            ask(data)
    assert READER.examine(data).kind == "damaged"
    some = ref(with_chunks(png, chunk(b"prVt", b"") * 2_000))
    assert np.array_equal(READER.read(some).pixels, READER.read(ref(png)).pixels)
