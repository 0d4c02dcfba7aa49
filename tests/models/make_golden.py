"""Writes golden_tokens.json: what transformers' own tokenizers give when called as diffusers' pipelines call them.

    python tests/models/make_golden.py

The call is that of `FluxPipeline._get_clip_prompt_embeds` and `_get_t5_prompt_embeds` (diffusers 0.42; SDXL's and SD3's
are the same): `tokenizer(text, padding="max_length", max_length=n, truncation=True)`, n = 77 for CLIP and 512 for T5.
The table keeps the ids that the attention mask keeps, so padding is left out; where a text is longer than 40 tokens,
it keeps the first and last six. It is made once, by hand, and read by people; the tests never write it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

GOLDEN = Path(__file__).with_name("golden_tokens.json")

CAPTIONS = {
    "plain": "A photo of a tabby cat asleep on a red sofa.",
    "empty": "",
    "a space": " ",
    "newlines": "a cat\n\na dog\r\nand a bird",
    "tabs and doubled spaces": "  a cat,\ta  dog   and a bird  ",
    "uppercase": "A CAT IN A HAT, PHOTOGRAPHED BY ANSEL ADAMS",
    "contractions": "it's what they'd've called a DON'T-look-back photo",
    "numbers": "f/2.8, 1/125 s, ISO 400, 35mm, 1999",
    "prompt syntax": "(masterpiece:1.2), [blurry], <lora:cat:0.8>, best_quality!!!",
    "exclamation": "Stop! Look! A cat!",
    "curly quotes": "“it’s” a ‘cat’ — really…",
    "html entities": "cats &amp; dogs &#39;n&#39; birds &lt;br&gt;",
    "accents": "café, naïve, Ångström, São Paulo, Dvořák",
    "combining accents": "cafe\u0301, nai\u0308ve, A\u030angstro\u0308m",
    "ligatures and wide": "ﬁne ﬂower ＡＢＣ ① ½ ™",
    "dotted capital i": "İstanbul, ẞ and ſ",
    "emoji": "a 🙂 cat 😻 with a flag 🇫🇷",
    "joined emoji": "a family 👩‍👩‍👧 and a wave 👋🏽",
    "chinese": "一只猫坐在窗台上",
    "japanese": "窓辺で眠る猫の写真、フィルム",
    "korean": "창가에 앉은 고양이",
    "arabic": "قطة جميلة على النافذة",
    "cyrillic": "Кошка сидит на окне, Ёлка",
    "hindi": "खिड़की पर बैठी बिल्ली",
    "thai": "แมวนอนอยู่บนโซฟา",
    "german": "Straßenkatze auf der Fußmatte",
    "control characters": "a\x00cat\x07and\x1ba\x7fdog",
    "odd spaces": "a\u00a0cat\u200band\u2003a\u3000dog\ufeff",
    "clip's end token": "a cat <|endoftext|> a dog",
    "clip's start token, uppercase": "<|STARTOFTEXT|>a cat<|ENDOFTEXT|>",
    "t5's end token": "a cat </s> a dog</s>",
    "t5's sentinels": "a <extra_id_0> on a<extra_id_99>sofa <pad> <unk>",
    "sentencepiece's space": "a▁cat ▁▁dog",
    "long": "a quiet harbour at dawn, fishing boats, " * 80,
    "long without spaces": "catdog" * 300,
    "long emoji": "😻" * 400,
}

TOKENIZERS = {
    "clip_l": ("clip", 77),
    "sdxl_clip_g": ("clip", 77),
    "sd3_clip_g": ("clip", 77),
    "t5": ("t5", 512),
}


def shortened(ids: list[int]) -> list[int | str]:
    """A list short enough to read: the first and the last six, and how many there are."""
    return ids if len(ids) <= 40 else [*ids[:6], f"{len(ids)} in all", *ids[-6:]]


def main() -> None:
    from transformers import CLIPTokenizer, T5TokenizerFast, __version__

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from real_tokenizers import tokenizer

    classes = {"clip": CLIPTokenizer, "t5": T5TokenizerFast}
    loaded = {name: classes[kind].from_pretrained(str(tokenizer(name))) for name, (kind, _) in TOKENIZERS.items()}
    lines = [f'  "made with": {json.dumps(f"transformers {__version__}")}']
    for title, text in CAPTIONS.items():
        rows = []
        for name, (_, length) in TOKENIZERS.items():
            found = loaded[name](text, padding="max_length", max_length=length, truncation=True)
            ids = [id for id, kept in zip(found.input_ids, found.attention_mask, strict=True) if kept]
            rows.append(f'    "{name}": {json.dumps(shortened(ids))}')
        lines.append(f"  {json.dumps(title)}: {{\n" + ",\n".join(rows) + "\n  }")
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
