"""Tokens as a person can read them: the very ids of the batch, and a text that can be recognised."""

import pytest
from real_tokenizers import flux_tokenizers, tokenizer

from calotype.models import load_tokenizer
from calotype.models.pieces import byte_alphabet

TEXTS = [
    "",
    "a photo of a cat",
    "Two  spaces, an emoji 🐈‍⬛, naïve café (né) and 写真 of 猫!",
    "e\u0301 combining, \u200bzero width, \u00a0 no-break",
    "snowboarding unbelievableness " * 60,
    "<|endoftext|> typed by hand, and <extra_id_0> too",
    "\ufffd broken \U0001f9ff",
]


@pytest.fixture(scope="module", params=["clip_l", "t5", "sd3_clip_g", "sd3_t5"])
def real(request):
    kind = "t5" if "t5" in request.param else "clip"
    return load_tokenizer(tokenizer(request.param), kind=kind)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("limit", [8, 77])
def test_pieces_hold_the_ids_of_the_batch(real, text, limit):
    pieces = real.pieces(text, limit)
    seen = [piece.id for piece in pieces if piece.kind != "cut"]
    assert seen + [real.pad_id] * (limit - len(seen)) == real(text, limit)
    assert len(pieces) == real.count(text)
    assert all(piece.text and not any(0xD800 <= ord(letter) < 0xE000 for letter in piece.text) for piece in pieces)


def test_counts_are_those_of_single_texts(real):
    assert real.counts(TEXTS * 3) == [real.count(text) for text in TEXTS] * 3
    assert real.counts([]) == []


def test_what_they_read_like():
    clip, t5 = (load_tokenizer(path, kind=kind) for path, kind in zip(flux_tokenizers(), ("clip", "t5"), strict=True))

    def text(tokenizer, caption):
        return "".join(piece.text for piece in tokenizer.pieces(caption, 77) if piece.kind == "text")

    assert text(clip, "A photo, of Chelsea's cat!") == "a photo , of chelsea 's cat ! "
    assert text(t5, "A photo, of Chelsea's cat!") == " A photo, of Chelsea's cat!"
    assert text(clip, "naïve 写") in ("naïve 写 ", "naïve <0xE5><0x86><0x99> ")
    frame = [piece.text for piece in clip.pieces("cat", 77) if piece.kind == "frame"]
    assert frame == ["<|startoftext|>", "<|endoftext|>"]


def test_the_alphabet_has_each_byte_once():
    letters = byte_alphabet()
    assert len(set(letters)) == 256 and letters[ord("a")] == "a" and letters[ord(" ")] == "Ġ"
