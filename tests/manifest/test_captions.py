"""Texts of caption files: their encoding is known, or they are refused."""

import codecs

import pytest

from calotype.errors import ManifestError
from calotype.manifest import load_manifest
from calotype.manifest.captions import decode_text

TEXTS = ["a cafe at night", "caf\u00e9 \u732b, two  spaces\n", "\u4e00 cat on \u4e00 mat, sitting", "x\r\n"]
UNMARKED = ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
MARKS = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE, "utf-32-le": codecs.BOM_UTF32_LE,
         "utf-32-be": codecs.BOM_UTF32_BE, "utf-8": codecs.BOM_UTF8}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("encoding", MARKS)
def test_with_a_mark(text, encoding):
    assert decode_text(MARKS[encoding] + text.encode(encoding)) == text


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("encoding", UNMARKED)
def test_without_a_mark(text, encoding):
    assert decode_text(text.encode(encoding)) == text


def test_a_long_text_is_known_by_its_beginning():
    text = "a photo of \u732b, " * 2000
    assert decode_text(text.encode("utf-16-le")) == text
    assert decode_text(text.encode("utf-8")) == text


@pytest.mark.parametrize(
    "data",
    [
        b"a\0b",  # one NUL in UTF-8
        b"\0\0\0\0",
        b"a \0c\0a\0t\0",  # an odd number of bytes
        codecs.BOM_UTF16_LE + "a\0b".encode("utf-16-le"),
        codecs.BOM_UTF16_LE + b"a",
        "\u4e00 \u2000".encode("utf-16-le"),  # as likely in the other byte order
        b"caf\xe9",
    ],
)
def test_what_is_not_certain_is_refused(put, data):
    with pytest.raises(UnicodeDecodeError):
        decode_text(data)
    put("a.jpg"), put("a.txt", data)
    with pytest.raises(ManifestError, match=r"a\.txt: not UTF-8 text \(byte \d+\)"):
        load_manifest(put.root)


def test_caption_files_in_any_of_them(put):
    for number, encoding in enumerate(UNMARKED):
        put(f"{number}.jpg"), put(f"{number}.txt", "a caf\u00e9\n".encode(encoding))
    put("j.jpg"), put("j.json", '{"caption": "a caf\u00e9"}'.encode("utf-16"))
    assert {row.captions for row in load_manifest(put.root)} == {("a caf\u00e9",)}
