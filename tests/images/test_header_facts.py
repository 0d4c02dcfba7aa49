"""What a look at a file tells without decoding it: depth, colour space, and whether its end is there."""

from __future__ import annotations

import io
import os
import struct

import numpy as np
import pytest
from PIL import Image

from calotype.core.file_state import file_state
from calotype.errors import DecodeError, DecompressionBombError, FetchError, ImageError
from calotype.images import Fetcher, ImageReader
from calotype.images.cache_table import CacheTable, file_keys
from calotype.images.header import Look
from calotype.types import ImageRef

READER = ImageReader()
FORMATS = ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "HEIF"]


def cut_of(picture: ImageRef) -> str | None:
    seen = READER.examine(picture)
    assert isinstance(seen, Look), seen
    return seen.cut


# -------------------------------------------------------------------------------------------------- no false alarms


def test_no_photo_that_decodes_is_called_cut(skimage_data, ref):
    decoded = 0
    for path in sorted(skimage_data.rglob("*.*")):
        picture = ImageRef(name=path.name, path=str(path))
        try:
            READER.read(picture)
        except ImageError:
            continue
        decoded += 1
        assert cut_of(picture) is None, path
    assert decoded > 20


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("trailer", [b"", bytes(1), bytes(10_000), b"\x01\x02junk" * 3000, b"\xff\xd8\xff\xe0junk"])
def test_data_behind_a_image_is_no_reason(photo, encode, ref, format, trailer):
    if format == "HEIF" and len(trailer) > 1:
        pytest.skip("libheif itself refuses stray data behind the boxes")
    data = encode(photo, format)
    picture = ref(data + trailer)
    assert np.array_equal(READER.read(picture).pixels, READER.read(ref(data, "plain")).pixels)
    assert cut_of(picture) is None


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"restart_marker_rows": 1}, {"quality": 100}, {"exif": b""}]
)
def test_jpegs_of_all_kinds_are_whole(photo, encode, ref, options):
    assert cut_of(ref(encode(photo, "JPEG", **options))) is None


def test_animations_pages_and_compressed_tiffs_are_whole(photo, encode, ref):
    others = [photo.rotate(90 * turn, expand=False) for turn in (1, 2)]
    for format in ("GIF", "WEBP", "PNG", "TIFF", "AVIF"):
        data = encode(photo, format, save_all=True, append_images=others)
        assert cut_of(ref(data)) is None, format
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "tiff_adobe_deflate"):
        assert cut_of(ref(encode(photo, "TIFF", compression=compression))) is None
    assert cut_of(ref(encode(photo, "TIFF", big_tiff=True))) is None
    for mode in ("1", "L", "P", "RGBA"):
        assert cut_of(ref(encode(photo.convert(mode), "BMP"))) is None, mode


# -------------------------------------------------------------------------------------------------- what is cut


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9, 0.97])
def test_a_cut_file_is_found_without_decoding(photo, encode, ref, format, keep):
    data = encode(photo, format)
    seen = READER.examine(ref(data[: int(len(data) * keep)]))
    if isinstance(seen, ImageError):
        assert seen.kind == "truncated", seen
    else:
        assert seen.cut


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"big_tiff": True}])
@pytest.mark.parametrize("cut", [1, 12, 100, 5000])
def test_a_tiff_knows_its_strips_and_its_directory(photo, encode, ref, options, cut):
    seen = READER.examine(ref(encode(photo, "TIFF", **options)[:-cut]))
    assert seen.kind == "truncated" if isinstance(seen, ImageError) else seen.cut


def test_a_jpeg_filled_up_with_zeros_is_cut(photo, encode, ref):
    data = encode(photo, "JPEG", quality=95)
    half = data[: len(data) // 2]
    assert "zero bytes" in (cut_of(ref(half + bytes(len(data) - len(half)))) or "")


def test_the_end_of_a_thumbnail_is_not_that_of_the_image(photo, encode, ref):
    thumbnail = encode(photo.resize((40, 30)), "JPEG")
    app = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 8) + b"Other\0" + thumbnail
    data = encode(photo, "JPEG")
    data = data[:2] + app + data[2:]
    assert cut_of(ref(data)) is None
    assert "no end marker" in (cut_of(ref(data[: len(app) + 900])) or "")


def test_a_png_without_its_last_chunk_and_a_gif_without_trailer(photo, encode, ref):
    png = encode(photo, "PNG")
    assert "no IEND" in (cut_of(ref(png[:-12])) or "")
    assert "IDAT would end" in (cut_of(ref(png[:-400])) or "")
    assert "trailer" in (cut_of(ref(encode(photo, "GIF")[:-1])) or "")


# ------------------------------------------------------------------------------------------ depth and colour space


def test_bits_a_channel(photo, encode, ref, tiff):
    wide = np.asarray(photo.convert("L")).astype(np.uint16) * 257
    colour = np.asarray(photo).astype(np.uint16) * 257
    cases = {
        encode(photo, "JPEG"): 8,
        encode(photo, "PNG"): 8,
        encode(photo.convert("1"), "PNG"): 1,
        encode(photo.quantize(4), "PNG"): 8,  # a palette's colours have 8 whatever the index has
        encode(Image.fromarray(wide), "PNG"): 16,
        tiff(colour, photometric=2): 16,
        tiff(wide[:, :202] >> 4, photometric=1, packed_12=True): 12,
        encode(photo, "AVIF"): 8,
        encode(photo, "WEBP"): 8,
        encode(photo, "GIF"): 8,
        encode(photo, "HEIF"): 8,
    }
    for data, bits in cases.items():
        seen = READER.header(ref(data))
        assert seen.bits == bits, seen
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_bytes("RGB;16", photo.size, colour.tobytes()).save(file)
    assert READER.header(ref(file.getvalue())).bits == 10


def test_the_colour_space_is_named_only_where_it_changes_colours(photo, encode, ref, icc):
    p3 = icc.p3.profile()
    for format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        assert READER.header(ref(encode(photo, format, icc_profile=p3))).colour_space == "Display P3", format
        plain = READER.header(ref(encode(photo, format, icc_profile=icc.srgb.profile(4))))
        assert (plain.icc, plain.colour_space) == ("sRGB", None), format
    assert READER.header(ref(encode(photo, "JPEG"))).colour_space is None
    broken = READER.header(ref(encode(photo, "JPEG", icc_profile=b"nonsense" * 40)))
    assert (broken.icc, broken.colour_space) == ("unreadable profile", None)
    # Passed over when decoding, as it contradicts the pixels.
    cmyk = READER.header(ref(encode(photo.convert("CMYK"), "JPEG", icc_profile=p3)))
    assert (cmyk.icc, cmyk.colour_space) == ("Display P3", None)
    inks = READER.header(ref(encode(photo.convert("CMYK"), "JPEG", icc_profile=icc.colourless_cmyk())))
    assert inks.colour_space == "Grey inks"


@pytest.mark.parametrize("profile", ["p3", "adobe", "srgb"])
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "1", "LA"])
def test_the_colour_space_agrees_with_what_decoding_does(photo, encode, ref, icc, mode, profile):
    picture = ref(encode(photo.convert(mode), "PNG", icc_profile=getattr(icc, profile).profile()))
    converted = [note for note in READER.read(picture).notes if note.endswith(" to sRGB")]
    space = READER.header(picture).colour_space
    assert converted == ([f"icc: {space} to sRGB"] if space else [])


# ------------------------------------------------------------------------------------------------- kinds of problem


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty_file"),
        (bytes(900), "damaged"),
        (b"<html><body>404", "not_an_image"),
        (b"8BPS\0\1", "not_an_image"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "truncated"),
        (b"\xff\xd8\xff\xe0\0\x00JFIF" + bytes(300), "damaged"),
    ],
)
def test_problems_have_a_kind(ref, data, kind):
    seen = READER.examine(ref(data))
    assert isinstance(seen, DecodeError)
    assert seen.kind == kind
    with pytest.raises(DecodeError) as caught:
        READER.read(ref(data))
    assert caught.value.kind == kind


def test_problems_of_places_have_a_kind(photo, encode, ref, tmp_path, serve):
    data = encode(photo, "JPEG")
    os.mkfifo(tmp_path / "pipe.jpg")
    whole = ref(data)

    def kind(**fields: object) -> str:
        seen = READER.examine(ImageRef(name="x", **fields))  # type: ignore[arg-type]
        assert isinstance(seen, ImageError), seen
        return seen.kind

    assert kind(path=str(tmp_path / "gone.jpg")) == "missing_file"
    assert kind(path=str(tmp_path)) == kind(path=str(tmp_path / "pipe.jpg")) == "unreadable"
    assert kind(path=whole.path, offset=100, size=len(data)) == "truncated"
    small = ImageReader(max_pixels=100).examine(whole)
    assert isinstance(small, DecompressionBombError)
    assert small.kind == "too_many_pixels"
    server = serve()
    reader = ImageReader(fetcher=Fetcher(allow_private=True, retries=0))
    assert isinstance(reader.examine(ImageRef(name="u", url=f"{server.url}/picture/a")), Look)
    for path in ("status/404", "html"):
        seen = reader.examine(ImageRef(name="u", url=f"{server.url}/{path}"))
        assert isinstance(seen, FetchError)
        assert seen.kind == "fetch_failed"


def test_a_look_at_bytes_is_that_at_the_file(photo, encode, ref):
    for format in FORMATS:
        data = encode(photo, format)
        assert READER.examine(ref(data), data=data) == READER.examine(ref(data))
        decoded = READER.read(ImageRef(name="nowhere"), data=data)
        assert np.array_equal(decoded.pixels, READER.read(ref(data)).pixels)


def test_a_sketch_tells_files_apart_by_their_ends(photo, encode, ref):
    data = encode(photo, "BMP")
    middle = bytearray(data)
    middle[50_000] ^= 1
    end = bytearray(data)
    end[-9] ^= 1
    one, same, other = (READER.examine(ref(bytes(each))) for each in (data, middle, end))
    assert isinstance(one, Look)
    assert isinstance(same, Look)
    assert isinstance(other, Look)
    assert one.sketch == same.sketch != other.sketch


# --------------------------------------------------------------------------------------------------------- memory


def memory(made_by: str | None = None) -> CacheTable:
    return CacheTable("trial", "t", key=("a", "b"), state=("c",), values=("x", "y"), what="trials", made_by=made_by)


def test_a_memory_gives_back_what_it_was_taught():
    rows = [(f"name {n}", f"part {n % 3}", n, n * n, bytes([n % 256])) for n in range(1300)]
    with memory() as trial:
        trial.put(rows)
    with memory() as trial:
        keys = [row[:3] for row in rows]
        assert trial.get(keys) == [row[3:] for row in rows]
        assert trial.get([keys[0], None, keys[7], keys[0]]) == [rows[0][3:], None, rows[7][3:], rows[0][3:]]
        assert trial.get([("name 0", "part 0", 99), ("no name", "part 0", 0)]) == [None, None]
        one_name = [("one", str(n), n, n, None) for n in range(1300)]
        trial.put(one_name)
        assert trial.get([row[:3] for row in one_name]) == [row[3:] for row in one_name]
        trial.put([("one", "5", 6, 1, 2)])
        assert trial.get([("one", "5", 5), ("one", "5", 6)]) == [None, (1, 2)]


def test_a_memory_made_by_others_is_not_believed(monkeypatch):
    with memory("one") as trial:
        trial.put([("a", "b", 1, 2, 3)])
        assert trial.get([("a", "b", 1)]) == [(2, 3)]
    with memory("two") as trial:
        assert trial.get([("a", "b", 1)]) == [None]


def test_keys_tell_files_parts_and_urls_apart(ref, tmp_path):
    file = ref(b"12345")
    state = file_state(str(file.path))
    assert state is not None and state.size == 5
    part = ImageRef(name="p", path=file.path, offset=1, size=2)
    keys = file_keys([file, part, ImageRef(name="u", url="http://x/y"), ImageRef(name="g", path="/nowhere")])
    assert keys == [
        (file.path, "", *state),
        (file.path, "1+2", *state),
        None,
        None,
    ]
