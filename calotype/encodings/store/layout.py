"""The layout of a record: its named tensors, their bytes and their checksums."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from calotype.errors import StoreError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["DTYPES", "KEY_BYTES", "Field", "Layout", "as_bytes", "as_keys", "checksum", "checksum_of", "memory_of"]

KEY_BYTES: Final = 16
"""Length of a record's key: a 128-bit hash of everything that could change the record."""

DTYPES: Final[Mapping[str, torch.dtype]] = {
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F32": torch.float32,
    "I32": torch.int32,
    "U32": torch.uint32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""safetensors names of dtypes."""

_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_RESERVED: Final = "keys"
_MAX_FIELDS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One tensor of a record."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def dtype_name(self) -> str:
        """The dtype's name in safetensors: `BF16`."""
        return _NAMES[self.dtype]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The kind of a record and its tensors, in file order. Make one with `Layout.of`.

    Raises:
        StoreError: A name or dtype is not valid in a shard.
    """

    kind: str
    """`text`, `picture`, `scaling`, …"""
    fields: tuple[Field, ...]
    """Tensors with large elements first, so that each one is aligned to its element size."""
    nbytes: int = field(init=False, compare=False)
    """Bytes of one record's tensors."""
    positions: Mapping[str, tuple[int, int, int]] = field(init=False, compare=False)
    """Field name → (its number, bytes of the fields before it in a record, its own bytes)."""
    seeds: tuple[int, ...] = field(init=False, compare=False)
    """Seed of each field's checksum: a hash of kind, name, dtype and shape, so that the checksum covers them, too."""

    def __post_init__(self) -> None:
        if not _KIND.fullmatch(self.kind):
            raise StoreError(f"kind of a record: found {self.kind!r}, expected a word such as 'text'")
        if not 0 < len(self.fields) <= _MAX_FIELDS:
            raise StoreError(f"a {self.kind} record has {len(self.fields)} tensors; expected 1 … {_MAX_FIELDS}")
        positions, before, seeds = {}, 0, []
        for number, item in enumerate(self.fields):
            if not _FIELD.fullmatch(item.name) or item.name == _RESERVED:
                raise StoreError(f"name of a tensor: found {item.name!r}, expected a name such as 'prompt_embeds'")
            if item.dtype not in _NAMES:
                known = ", ".join(map(str, _NAMES))
                raise StoreError(f"{item.name}: found {item.dtype}, which no shard can hold (known: {known})")
            positions[item.name] = (number, before, item.nbytes)
            before += item.nbytes
            text = f"{self.kind}.{item.name} {item.dtype_name} {list(item.shape)}"
            seeds.append(xxhash.xxh3_64_intdigest(text.encode("ascii")))
        object.__setattr__(self, "nbytes", before)
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "seeds", tuple(seeds))

    @staticmethod
    def of(kind: str, tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> Layout:
        """Return the layout of a record with these tensors: name → (dtype, shape)."""
        ordered = sorted(tensors.items(), key=lambda item: (-item[1][0].itemsize, item[0]))
        return intern(kind, tuple(Field(name=name, dtype=dtype, shape=shape) for name, (dtype, shape) in ordered))

    @property
    def table_width(self) -> int:
        """Bytes of a record in its group's table: its key, then an 8-byte checksum for each field."""
        return KEY_BYTES + 8 * len(self.fields)

    def to_json(self) -> list[Any]:
        return [self.kind, [[item.name, item.dtype_name, list(item.shape)] for item in self.fields]]

    @staticmethod
    def from_json(document: list[Any]) -> Layout:
        kind, fields = document
        return intern(kind, tuple(Field(name=n, dtype=DTYPES[d], shape=tuple(shape)) for n, d, shape in fields))


@lru_cache(maxsize=1 << 16)
def intern(kind: str, fields: tuple[Field, ...]) -> Layout:
    """Return the layout with this kind and fields, always the same object: a store has many groups and few layouts."""
    return Layout(kind=kind, fields=fields)


def checksum_of(key: bytes, seed: int) -> xxhash.xxh3_64:
    """Return the hasher of a checksum, XXH3-64, fed with the record's key; the tensor's bytes follow."""
    return xxhash.xxh3_64(key, seed=seed)


def checksum(key: bytes, seed: int, data: Buffer) -> int:
    """Return the checksum of one tensor's bytes. Hashing a large one releases the GIL."""
    digest = checksum_of(key, seed)
    digest.update(data)
    return digest.intdigest()


def as_bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """Return the memory of a contiguous CPU tensor as a byte array, without a copy."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy()


def memory_of(tensor: torch.Tensor) -> memoryview:
    """Return the memory of a contiguous CPU tensor as a bare buffer, several times faster than `as_bytes`.

    The buffer is valid only while the tensor exists.
    """
    return memoryview((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


def as_keys(keys: Iterable[bytes] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return keys as an array (n, 16) of uint8.

    Raises:
        StoreError: Some are not 16 bytes.
    """
    if isinstance(keys, np.ndarray):
        array = np.ascontiguousarray(keys, np.uint8)
        if array.ndim != 2 or array.shape[1] != KEY_BYTES:
            raise StoreError(f"keys: found an array of shape {keys.shape}, expected (n, {KEY_BYTES}) of uint8")
        return array
    listed = list(keys)
    if wrong := [key for key in listed if len(key) != KEY_BYTES]:
        raise StoreError(f"keys: found one of {len(wrong[0])} bytes, expected {KEY_BYTES}")
    return np.frombuffer(b"".join(listed), np.uint8).reshape(-1, KEY_BYTES)
