"""Right pixels: every mode, orientation, profile and depth against a slow, obvious path through plain Pillow."""

from __future__ import annotations

import io
import pickle
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from PIL import Image, ImageChops, ImageOps

from calotype.errors import ConfigError, DecodeError
from calotype.images import ImageReader

READER = ImageReader()
ORIENTATION = 0x0112


def twin(data: bytes, background: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    """Plain Pillow for 8-bit images without a profile, the compositing in float64."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA")).astype(np.float64)
        alpha = rgba[..., 3:] / 255
        return np.round(rgba[..., :3] * alpha + np.array(background) * (1 - alpha)).astype(np.uint8)
    return np.asarray(image.convert("RGB"))


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[ORIENTATION] = orientation
    return made


def largest_difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def shapes_of(photo: Image.Image) -> dict[str, Image.Image]:
    """The photo in each of Pillow's 8-bit modes."""
    ramp = Image.linear_gradient("L").resize(photo.size)
    rgba = photo.copy()
    rgba.putalpha(ramp)
    grey_alpha = photo.convert("L")
    grey_alpha.putalpha(ramp)
    palette = photo.quantize(64)
    return {
        "1": photo.convert("1"),
        "L": photo.convert("L"),
        "LA": grey_alpha,
        "P": palette,
        "RGB": photo,
        "RGBA": rgba,
        "CMYK": photo.convert("CMYK"),
    }


# -------------------------------------------------------------------------------------------------------------- JPEG


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_is_bit_equal_to_pillow_upright(photo, encode, ref, mode, orientation):
    data = encode(photo.convert(mode), "JPEG", quality=88, exif=exif(orientation))
    decoded = READER.read(ref(data))
    assert np.array_equal(decoded.pixels, twin(data))
    assert decoded.original_size == decoded.pixels.shape[:2] == READER.size(ref(data))
    assert (decoded.original_size == (203, 149)) == (orientation >= 5)
    assert decoded.notes == (("cmyk",) if mode == "CMYK" else ())


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("size", [(203, 149), (16, 16), (1, 1), (17, 1), (9, 300)])
def test_every_subsampling_is_bit_equal(photo, encode, ref, size, subsampling, progressive):
    data = encode(photo.resize(size), "JPEG", quality=92, subsampling=subsampling, progressive=progressive)
    assert np.array_equal(READER.read(ref(data)).pixels, twin(data))


def test_odd_but_whole_jpegs_are_bit_equal(photo, encode, ref):
    plain = encode(photo, "JPEG", quality=90)
    rgb = encode(photo, "JPEG", keep_rgb=True)
    restarts = encode(photo, "JPEG", restart_marker_blocks=3)
    after = plain + b"trailing bytes, as some cameras leave them"
    comment = plain[:2] + b"\xff\xfe\x00\x08hello!" + b"\xff\xff\xff" + plain[2:].lstrip(b"\xff")
    for data in (plain, rgb, restarts, after, comment):
        assert np.array_equal(READER.read(ref(data)).pixels, twin(data))


def test_stray_bytes_that_libjpeg_only_warns_of_are_not_damage(photo, encode, ref):
    data = encode(photo, "JPEG", quality=90)
    at = data.index(b"\xff\xc4")  # in front of the Huffman tables
    stray = data[:at] + b"stray" + data[at:]
    decoded = READER.read(ref(stray))
    assert np.array_equal(decoded.pixels, twin(data))
    assert decoded.notes == ("jpeg: Corrupt JPEG data: 5 extraneous bytes before marker 0xc4",)
    with pytest.raises(DecodeError, match="truncated"):
        READER.read(ref(stray[:-1000]))


def test_a_damaged_middle_is_an_error_not_a_grey_half(photo, encode, ref):
    data = bytearray(encode(photo, "JPEG", quality=90, restart_marker_blocks=8))
    first = data.index(b"\xff\xd3")
    del data[first : data.index(b"\xff\xd5")]
    with pytest.raises(DecodeError, match="Corrupt JPEG data"):
        READER.read(ref(bytes(data)))


def test_orientation_in_xmp_counts_where_exif_is_silent(photo, encode, ref):
    packet = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encode(photo, "JPEG", xmp=packet)
    assert np.array_equal(READER.read(ref(data)).pixels, twin(data))
    assert READER.header(ref(data)).orientation == 6
    both = encode(photo, "JPEG", xmp=packet, exif=exif(3))
    assert READER.header(ref(both)).orientation == 3


def test_damaged_exif_costs_the_orientation_and_not_the_image(photo, encode, ref):
    for block in (
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0junk" * 9,
    ):
        data = encode(photo, "JPEG", exif=block)
        assert READER.read(ref(data)).original_size == (149, 203)
        assert READER.header(ref(data)).orientation == 1


@pytest.mark.parametrize("value", [0, 9, 255])
def test_an_orientation_that_does_not_exist_counts_as_upright(photo, encode, ref, value):
    data = encode(photo, "JPEG", exif=exif(value))
    assert np.array_equal(READER.read(ref(data)).pixels, twin(data))


# ------------------------------------------------------------------------------------------------- scaled JPEG decode


@pytest.mark.parametrize(
    ("need", "factor"),
    [((400, 1), 1), ((1, 602), 1), ((399, 601), 2), ((200, 1), 2), ((199, 300), 4), ((1, 151), 4), ((100, 150), 8)],
)
def test_fast_decodes_to_a_power_of_two_and_never_below_one_and_a_half_times_the_need(photo, encode, ref, need, factor):
    large = photo.resize((1803, 1197), Image.Resampling.LANCZOS)
    picture = ref(encode(large, "JPEG", quality=90))
    fast = ImageReader(decode="fast").read(picture, need=lambda size: need)
    assert fast.pixels.shape == (int(1197 / factor + 0.5), int(1803 / factor + 0.5), 3)
    assert fast.original_size == (1197, 1803)
    if factor > 1:
        assert fast.pixels.shape[0] >= 1.5 * need[0]
        assert fast.pixels.shape[1] >= 1.5 * need[1]
    assert READER.read(picture, need=lambda size: need).pixels.shape == (1197, 1803, 3)


@pytest.mark.parametrize(("size", "least"), [((1800, 1200), 42), ((1803, 1197), 30)])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_fast_decode_shows_the_same_image(photo, encode, ref, size, least, factor):
    picture = ref(encode(photo.resize(size, Image.Resampling.LANCZOS), "JPEG", quality=90))
    target = size[0] * 2 // 3 // factor, size[1] * 2 // 3 // factor
    fast = ImageReader(decode="fast").read(picture, need=lambda size: (target[1], target[0]))
    assert fast.pixels.shape[1] == int(size[0] / factor + 0.5)
    both = [Image.fromarray(x.pixels).resize(target, Image.Resampling.LANCZOS) for x in (fast, READER.read(picture))]
    error = np.asarray(ImageChops.difference(*both)).astype(float)
    # Sides that 8 does not divide are half a scaled pixel off at the far edge, which costs more than the scaling.
    assert 10 * np.log10(255**2 / float((error**2).mean())) > least


def test_the_need_is_upright(photo, encode, ref):
    data = encode(photo.resize((1600, 400)), "JPEG", exif=exif(6))  # upright: 1600 high, 400 wide
    fast = ImageReader(decode="fast")
    asked = []

    def half(size):
        asked.append(size)
        return size[0] // 3, size[1] // 3

    assert fast.read(ref(data), need=half).pixels.shape == (800, 200, 3)
    assert asked == [(1600, 400)]
    assert fast.read(ref(data), need=lambda size: (120, 500)).pixels.shape == (1600, 400, 3)
    assert fast.read(ref(data)).pixels.shape == (1600, 400, 3)


def test_fast_converts_colours_too(photo, encode, ref, icc):
    data = encode(photo.resize((812, 596), Image.Resampling.LANCZOS), "JPEG", icc_profile=icc.p3.profile(), quality=95)
    decoded = ImageReader(decode="fast").read(ref(data), need=lambda size: (99, 100))
    assert decoded.pixels.shape == (149, 203, 3)
    assert decoded.notes == ("icc: Display P3 to sRGB",)


# ------------------------------------------------------------------------------------------- other formats and modes


LOSSLESS = [  # and lossy ones, whose pixels are compared after decoding
    *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
    *(("TIFF", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")),
    *(("BMP", mode) for mode in ("1", "L", "P", "RGB")),
    *(("GIF", mode) for mode in ("L", "P", "RGB")),
    *(("WEBP", mode) for mode in ("RGB", "RGBA")),
    *(("AVIF", mode) for mode in ("L", "RGB", "RGBA")),
    *(("HEIF", mode) for mode in ("L", "RGB", "RGBA")),
]


UPRIGHT_ONLY = ("BMP", "GIF")  # formats without an orientation


@pytest.mark.parametrize(
    ("format", "mode", "orientation"),
    [(f, mode, o) for f, mode in LOSSLESS for o in range(1, 9) if o == 1 or f not in UPRIGHT_ONLY],
)
def test_every_mode_and_orientation_equals_the_twin(photo, encode, ref, format, mode, orientation):
    image, options = shapes_of(photo)[mode].copy(), {}
    if format == "HEIF":
        image.info["exif"] = exif(orientation).tobytes()  # pillow-heif makes it the container's own rotation
    elif orientation != 1:
        options["exif"] = exif(orientation)
    data = encode(image, format, **options)
    background = (10, 200, 90)
    decoded = ImageReader(background=background).read(ref(data))
    assert largest_difference(decoded.pixels, twin(data, background)) <= (1 if "A" in mode else 0)
    assert decoded.pixels.flags["C_CONTIGUOUS"]
    assert decoded.pixels.flags["WRITEABLE"]
    assert decoded.pixels.dtype == np.uint8
    assert READER.size(ref(data)) == decoded.original_size == decoded.pixels.shape[:2]
    expected = (149, 203) if orientation < 5 else (203, 149)
    assert decoded.original_size == expected
    assert (f"alpha on {background}" in decoded.notes) == (mode in ("LA", "RGBA"))


@pytest.mark.parametrize("order", ["exif before the pixels", "exif after the pixels", "xmp after the pixels"])
def test_a_png_may_name_its_orientation_behind_the_pixels(photo, encode, ref, order):
    data = encode(photo, "PNG")
    if order.startswith("exif"):
        name, body = b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0")
    else:
        name, body = b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<a tiff:Orientation="6"/>'
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    where = data.index(b"IDAT") - 4 if "before" in order else data.index(b"IEND") - 4
    data = data[:where] + chunk + data[where:]
    assert READER.size(ref(data)) == (203, 149)
    assert np.array_equal(READER.read(ref(data)).pixels, np.rot90(np.asarray(photo), -1))


def test_a_palette_with_transparency_shows_the_background(ref, encode):
    image = Image.new("P", (4, 2), 0)
    image.putpalette([255, 0, 0, 0, 0, 255, 0, 255, 0])
    image.putpixel((1, 0), 1)
    image.putpixel((2, 0), 2)
    reader = ImageReader(background=(0, 0, 0))
    one = reader.read(ref(encode(image, "PNG", transparency=0)))
    assert one.pixels[0].tolist() == [[0, 0, 0], [0, 0, 255], [0, 255, 0], [0, 0, 0]]
    many = reader.read(ref(encode(image, "PNG", transparency=bytes((255, 0, 128)))))
    assert many.pixels[0].tolist() == [[255, 0, 0], [0, 0, 0], [0, 128, 0], [255, 0, 0]]
    assert one.notes == many.notes == ("alpha on (0, 0, 0)",)
    gif = reader.read(ref(encode(image, "GIF", transparency=0)))
    assert gif.pixels[0, 0].tolist() == [0, 0, 0]


def test_one_transparent_colour_shows_the_background(ref, encode):
    rgb = Image.new("RGB", (2, 1), (9, 8, 7))
    rgb.putpixel((1, 0), (1, 2, 3))
    assert READER.read(ref(encode(rgb, "PNG", transparency=(1, 2, 3)))).pixels[0].tolist() == [[9, 8, 7], [255] * 3]
    grey = Image.new("L", (2, 1), 9)
    grey.putpixel((1, 0), 50)
    assert READER.read(ref(encode(grey, "PNG", transparency=50))).pixels[0].tolist() == [[9] * 3, [255] * 3]


def test_hidden_colours_under_full_transparency_stay_hidden(ref, encode):
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 0))
    assert READER.read(ref(encode(image, "PNG"))).pixels.tolist() == [[[255] * 3] * 3]
    assert READER.read(ref(encode(image, "WEBP", lossless=True, exact=True))).pixels.tolist() == [[[255] * 3] * 3]


def test_an_alpha_that_hides_nothing_is_not_worth_a_note(photo, encode, ref):
    opaque = photo.convert("RGBA")
    decoded = READER.read(ref(encode(opaque, "PNG")))
    assert decoded.notes == ()
    assert np.array_equal(decoded.pixels, np.asarray(photo))
    assert READER.header(ref(encode(opaque, "PNG"))).has_alpha


@pytest.mark.parametrize("order", ["<", ">"])
def test_premultiplied_alpha_is_composited_once(ref, tiff, order):
    colour, alpha = np.array([200, 100, 40]), np.array([0, 64, 128, 255])
    pixels = np.zeros((1, 4, 4), np.uint8)
    pixels[0, :, :3] = np.round(colour * (alpha / 255)[:, None])
    pixels[0, :, 3] = alpha
    decoded = ImageReader(background=(0, 0, 255)).read(ref(tiff(pixels, photometric=2, order=order, extra=1)))
    expected = colour * (alpha / 255)[:, None] + np.array([0, 0, 255]) * (1 - alpha / 255)[:, None]
    assert largest_difference(decoded.pixels[0], np.round(expected)) <= 1


# -------------------------------------------------------------------------------------------------------------- 16-bit


def png_16(pixels: np.ndarray, *, clear: bytes | None = None) -> bytes:
    """A 16-bit PNG of grey (H, W), or RGB or RGBA (H, W, C) pixels."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2] if pixels.ndim == 3 else 1]

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    transparency = chunk(b"tRNS", clear) if clear is not None else b""
    pixels_chunk = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + transparency + pixels_chunk + chunk(b"IEND", b"")


RAMP = np.linspace(0, 65535, 4 * 64).round().astype(np.uint16).reshape(4, 64)
EIGHT = np.round(RAMP / 257).astype(np.uint8)


def test_16_bit_grey_is_scaled_not_clipped(ref, tiff):
    pictures = {
        "png": png_16(RAMP),
        "tiff": tiff(RAMP, photometric=1),
        "tiff big-endian": tiff(RAMP, photometric=1, order=">"),
        "tiff white is zero": tiff(65535 - RAMP, photometric=0),
    }
    for name, data in pictures.items():
        decoded = READER.read(ref(data))
        assert np.array_equal(decoded.pixels, np.repeat(EIGHT[..., None], 3, 2)), name
        assert decoded.notes == ("16-bit",)
        assert READER.header(ref(data)).mode.startswith("I;16")


def test_12_bit_grey_has_a_white_of_4095(ref, tiff):
    decoded = READER.read(ref(tiff(RAMP >> 4, photometric=1, packed_12=True)))
    assert largest_difference(decoded.pixels, EIGHT[..., None].repeat(3, 2)) <= 1
    assert (decoded.pixels.min(), decoded.pixels.max()) == (0, 255)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_rgb_is_within_one_level(ref, tiff, order):
    rgb = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)
    for data in (png_16(rgb), tiff(rgb, photometric=2, order=order)):
        decoded = READER.read(ref(data))
        assert largest_difference(decoded.pixels, np.round(rgb / 257)) <= 1
        assert decoded.pixels.min() == 0
        assert decoded.pixels.max() == 255
        assert decoded.notes == ("16-bit",)


def test_16_bit_alpha(ref, tiff):
    rgba = np.stack([RAMP, RAMP, RAMP, np.full_like(RAMP, 32896)], axis=2)
    expected = np.round(RAMP / 257 * (128 / 255) + 255 * (127 / 255))[..., None].repeat(3, 2)
    for data in (png_16(rgba), tiff(rgba, photometric=2, extra=2), png_16(rgba[..., 2:])):
        decoded = READER.read(ref(data))
        assert largest_difference(decoded.pixels, expected) <= 1
        assert decoded.notes == ("16-bit", "alpha on (255, 255, 255)")


def test_one_transparent_16_bit_grey(ref):
    decoded = READER.read(ref(png_16(RAMP, clear=struct.pack(">H", int(RAMP[1, 3])))))
    clear = np.all(decoded.pixels == 255, axis=2)
    assert clear[1, 3]
    assert clear.sum() == 1 + (EIGHT == 255).sum()


def test_one_transparent_16_bit_rgb(ref):
    rgb = np.full((1, 2, 3), 0x1234, np.uint16)
    rgb[0, 1] = (0xAB12, 0xCD34, 0xEF56)
    decoded = READER.read(ref(png_16(rgb, clear=struct.pack(">HHH", 0xAB12, 0xCD34, 0xEF56))))
    assert decoded.pixels.tolist() == [[[0x12] * 3, [255] * 3]]


@pytest.mark.parametrize("kind", ["float", "int32"])
def test_pixels_without_a_fixed_white_are_refused(ref, encode, kind):
    image = Image.new("F" if kind == "float" else "I", (3, 3), 1)
    with pytest.raises(DecodeError, match="save it as 8- or 16-bit"):
        READER.read(ref(encode(image, "TIFF")))


# -------------------------------------------------------------------------------------------------------- colour, CMYK


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize("space", ["adobe", "p3"])
def test_wide_colours_become_srgb(photo, encode, ref, icc, space, version, format):
    space = getattr(icc, space)
    data = encode(photo, format, icc_profile=space.profile(version))
    stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    decoded = READER.read(ref(data))
    difference = np.abs(decoded.pixels - icc.by_hand(stored, space))
    assert difference.mean() < 0.5
    assert difference.max() <= 3  # Little CMS's 8-bit tables against float64
    assert largest_difference(decoded.pixels, stored) > 10
    assert decoded.notes == (f"icc: {space.name} to sRGB",)
    assert READER.header(ref(data)).icc == space.name


@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_an_srgb_profile_changes_nothing(photo, encode, ref, icc, format, version):
    data = encode(photo, format, icc_profile=icc.srgb.profile(version))
    decoded = READER.read(ref(data))
    assert np.array_equal(decoded.pixels, twin(data))
    assert decoded.notes == ()
    assert READER.header(ref(data)).icc == "sRGB"


def test_a_profile_is_judged_by_what_it_does_and_not_by_its_name(photo, encode, ref, icc):
    impostor = type(icc.p3)(name="sRGB IEC61966-2.1", primaries=icc.p3.primaries, curve="srgb")
    decoded = READER.read(ref(encode(photo, "PNG", icc_profile=impostor.profile())))
    assert np.abs(decoded.pixels - icc.by_hand(np.asarray(photo), icc.p3)).max() <= 3


def test_a_profile_and_an_orientation_and_an_alpha_together(photo, encode, ref, icc):
    rgba = shapes_of(photo)["RGBA"]
    data = encode(rgba, "PNG", icc_profile=icc.p3.profile(), exif=exif(8))
    decoded = ImageReader(background=(0, 0, 0)).read(ref(data))
    pixels, alpha = np.asarray(rgba)[..., :3], np.asarray(rgba)[..., 3:] / 255
    expected = np.rot90(icc.by_hand(pixels, icc.p3) * alpha)  # colours first; the background is sRGB already
    assert np.abs(decoded.pixels - expected).max() <= 3
    assert decoded.notes == ("icc: Display P3 to sRGB", "alpha on (0, 0, 0)")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_grey_profiles(photo, encode, ref, icc, format):
    grey = photo.convert("L")
    data = encode(grey, format, icc_profile=icc.grey(1.8), **({"quality": 100} if format == "JPEG" else {}))
    stored = np.asarray(Image.open(io.BytesIO(data)))
    linear = (stored / 255) ** 1.8
    expected = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    decoded = READER.read(ref(data))
    assert np.abs(decoded.pixels - expected[..., None]).max() <= 2
    assert decoded.notes == ("icc: Grey 1.8 to sRGB",)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_an_rgb_profile_on_a_grey_image_means_what_it_says(photo, encode, ref, icc, format):
    data = encode(photo.convert("L"), format, icc_profile=icc.adobe.profile())
    stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.abs(READER.read(ref(data)).pixels - icc.by_hand(stored, icc.adobe)).max() <= 3


def test_a_profile_that_can_not_be_meant_is_passed_over_with_a_note(photo, encode, ref, icc):
    for profile, reason in [
        (icc.grey(2.2), "it is for L and the pixels are RGB"),
        (icc.colourless_cmyk(), "it is for CMYK and the pixels are RGB"),
        (b"no profile at all", "it can't be read"),
        (icc.p3.profile()[:200], "it can't be read"),
    ]:
        for format in ("JPEG", "PNG"):
            data = encode(photo, format, icc_profile=profile)
            decoded = READER.read(ref(data))
            assert np.array_equal(decoded.pixels, twin(data))
            assert len(decoded.notes) == 1
            assert decoded.notes[0].startswith("icc: profile ignored")
            assert reason in decoded.notes[0]
            READER.header(ref(data))


def test_cmyk_and_ycck_have_adobes_inversion(ref):
    simplejpeg = pytest.importorskip("simplejpeg")
    inks = np.zeros((16, 64, 4), np.uint8)  # four patches: no ink, cyan, yellow, black
    inks[:, 16:32, 0] = inks[:, 32:48, 2] = inks[:, 48:, 3] = 255
    data = simplejpeg.encode_jpeg(255 - inks, quality=95, colorspace="CMYK", colorsubsampling="444")
    assert b"Adobe" in data
    pixels = READER.read(ref(data)).pixels[8, 8::16].astype(int)
    assert np.abs(pixels - [[255, 255, 255], [0, 255, 255], [255, 255, 0], [0, 0, 0]]).max() <= 6
    assert READER.header(ref(data)).mode == "CMYK"
    assert np.array_equal(READER.read(ref(data)).pixels, twin(data))


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_own_profile(photo, encode, ref, icc, format):
    data = encode(photo.convert("CMYK"), format, icc_profile=icc.colourless_cmyk())
    decoded = READER.read(ref(data))
    assert decoded.notes == ("cmyk", "icc: Grey inks to sRGB")
    assert np.ptp(decoded.pixels.astype(int), axis=2).max() <= 2  # these inks are shades of grey
    assert np.ptp(twin(data).astype(int), axis=2).max() > 100  # and the naive way paints them


def test_threads_share_the_transform_of_a_profile(photo, encode, ref, icc):
    pictures = [ref(encode(photo, "JPEG", icc_profile=s.profile()), s.name) for s in (icc.adobe, icc.p3)]
    alone = [READER.read(picture).pixels for picture in pictures]
    start = threading.Barrier(8)

    def work(which: int) -> bool:
        start.wait()
        return all(np.array_equal(READER.read(pictures[which]).pixels, alone[which]) for _ in range(15))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, [0, 1] * 4))


# ---------------------------------------------------------------------------------------------------------- animations


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_of_several_frames_the_first_is_taken_and_said_so(encode, ref, format):
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "green", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    decoded = READER.read(ref(data))
    assert np.abs(decoded.pixels.reshape(-1, 3).astype(int) - [255, 0, 0]).max() <= 3
    assert decoded.notes == ("pages: first of 3" if format == "TIFF" else "animated: first of 3 frames",)
    assert READER.header(ref(data)).frames == 3


# ------------------------------------------------------------------------------------------------------ header, reader


def test_the_header_says_what_is_there(photo, encode, ref, icc):
    data = encode(photo, "JPEG", exif=exif(6), icc_profile=icc.p3.profile(4))
    header = READER.header(ref(data, "called.png"))
    assert (header.format, header.size, header.mode, header.orientation) == ("JPEG", (203, 149), "RGB", 6)
    assert (header.icc, header.frames, header.has_alpha, header.bytes) == ("Display P3", 1, False, len(data))
    palette = encode(shapes_of(photo)["P"], "PNG", transparency=3)
    header = READER.header(ref(palette))
    assert (header.format, header.mode, header.has_alpha, header.icc) == ("PNG", "P", True, None)
    assert READER.header(ref(encode(photo, "HEIF"))).format == "HEIF"


def test_a_header_behind_much_metadata_is_found(photo, encode, ref):
    data = encode(photo, "JPEG", exif=exif(6))
    padding = b"\xff\xed" + struct.pack(">H", 60_002) + bytes(60_000)
    for segments in (1, 3, 30):
        long = data[:2] + padding * segments + data[2:]
        assert READER.size(ref(long)) == (203, 149)
        assert np.array_equal(READER.read(ref(long)).pixels, twin(data))


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_a_reader_travels_by_pickle(photo, encode, ref, pickler):
    reader = ImageReader(decode="fast", background=(1, 2, 3), max_pixels=10**6)
    copy = pickle.loads(pickler.dumps(reader))
    assert (copy.decode, copy.background, copy.max_pixels) == ("fast", (1, 2, 3), 10**6)
    image = Image.new("RGBA", (1, 1), (0, 0, 0, 0))
    assert copy.read(ref(encode(image, "PNG"))).pixels.tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize(
    "options",
    [{"decode": "quick"}, {"background": (1, 2)}, {"background": (0, 0, 256)}, {"max_pixels": 0}, {"max_pixels": 1.5}],
)
def test_options_are_checked_at_construction(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        ImageReader(**options)


def test_heic_without_its_extra_names_it(photo, encode, ref, monkeypatch):
    data = encode(photo, "HEIF")
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(ImportError, match=r"calotype\[heif\]"):
        READER.read(ref(data))


def test_the_package_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, calotype.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def test_a_profile_with_several_tables_is_used_by_its_perceptual_one(photo, encode, ref, icc):
    inks = photo.resize((40, 30)).convert("CMYK")
    one, several = (
        READER.read(ref(encode(inks, "JPEG", quality=95, icc_profile=icc.colourless_cmyk(colorimetric=tables))))
        for tables in (False, True)
    )
    assert one.notes == several.notes == ("cmyk", "icc: Grey inks to sRGB")
    assert np.array_equal(one.pixels, several.pixels) and np.ptp(several.pixels) > 30
