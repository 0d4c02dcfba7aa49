"""Records whose content follows from their key, so that any process can tell whether one is right."""

import hashlib

import numpy as np
import torch

from calotype.encodings.store import EncodingStore
from calotype.encodings.store.writer import ShardWriter


def key(number: int, writer: str = "") -> bytes:
    return hashlib.blake2b(f"{writer}/{number}".encode(), digest_size=16).digest()


def keys(numbers, writer: str = "") -> list[bytes]:
    return [key(number, writer) for number in numbers]


def record(name: bytes) -> dict[str, torch.Tensor]:
    """A text's record: 1 to 32 tokens of 64 numbers, its mask, a pooled vector."""
    length = 1 + name[0] % 32
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(name, "big")))
    return {
        "prompt_embeds": torch.from_numpy(generator.standard_normal((length, 64), np.float32)).bfloat16(),
        "prompt_attention_mask": torch.ones(length, dtype=torch.bool),
        "pooled_prompt_embeds": torch.from_numpy(generator.standard_normal(48, np.float32)),
    }


def put(writer: ShardWriter, names: list[bytes]) -> None:
    writer.put(names, [record(name) for name in names], kind="text")


def is_right(store: EncodingStore, name: bytes) -> bool:
    (row,) = store.find([name]).tolist()
    found, expected = store.get(row), record(name)
    return found.keys() == expected.keys() and all(torch.equal(found[field], expected[field]) for field in expected)
