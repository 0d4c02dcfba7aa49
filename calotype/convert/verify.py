"""`verify_conversion`: compare a result with its source, every row and every byte of every image."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import xxhash

from calotype.convert.plan import ConvertPlan
from calotype.errors import ImageError, MissingPathError
from calotype.images import ImageReader
from calotype.manifest import load_manifest
from calotype.progress import Show
from calotype.types import ImageRef, Row

__all__ = ["Difference", "VerifyReport", "verify_conversion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One difference between result and source."""

    id: str
    what: str
    """`missing`, `more`, `picture`, `captions`, `weight`, `size`, a column's name, or `order`."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """Result of a verification."""

    destination: str
    rows: int
    bytes: int
    """Of the source's images."""
    differences: tuple[Difference, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def verify_conversion(
    plan: ConvertPlan, *, reader: ImageReader | None = None, progress: Show = lambda done, total: None
) -> VerifyReport:
    """Read the result as training does, and compare ids, captions, weights, sizes, columns and images.

    Args:
        plan: The result of `plan_conversion` for the present source, with the options of the conversion.
        reader: Reads images of both datasets.
        progress: Called with (done, total) images.

    Raises:
        MissingPathError: There is no result.
        ManifestError: The result can't be read.
    """
    if not plan.destination.exists():
        raise MissingPathError(f"{plan.destination}: there is no such result to verify")
    options: dict[str, Any] = dict(plan.form.reading())
    if plan.form.name != "hf":  # folders of the result may be named like splits
        options["split"] = "all"
    result = load_manifest(plan.destination, missing_captions="empty", columns={"rejected": None}, **options)
    indices = {name: index for index, name in enumerate(result.ids.to_pylist())}
    ids = plan.manifest.ids.to_pylist()
    found: list[Difference] = []
    total = 0
    # (index in the source, index in the result) of the rows that both have
    pairs = [(index, indices.pop(name)) for index, name in enumerate(ids) if name in indices]
    common = {index for index, _ in pairs}
    found += [
        Difference(id=name, what="missing", reason="the result has no such row")
        for index, name in enumerate(ids)
        if index not in common
    ]
    found += [Difference(id=name, what="more", reason="the source has no such row") for name in indices]
    if [other for _, other in pairs] != sorted(other for _, other in pairs):
        found.append(Difference(id="", what="order", reason="the rows are in another order"))
    reader = reader or ImageReader()

    def compare(pair: tuple[int, int]) -> tuple[int, list[Difference]]:
        index, other = pair
        size, differences = _images(plan.manifest.refs([index])[0], result.refs([other])[0], ids[index], reader)
        return size, [*_rows(plan, plan.row(index), result[other]), *differences]

    with ThreadPoolExecutor(4) as pool:
        for done, (size, differences) in enumerate(pool.map(compare, pairs), 1):
            total += size
            found += differences
            progress(done, len(pairs))
    return VerifyReport(destination=str(plan.destination), rows=len(result), bytes=total, differences=tuple(found))


def _rows(plan: ConvertPlan, wanted: Row, got: Row) -> Iterator[Difference]:
    pairs: list[tuple[str, Any, Any]] = [
        ("captions", wanted.captions, got.captions),
        ("weight", wanted.weight, got.weight),
        ("size", (wanted.width, wanted.height), (got.width, got.height)),
    ]
    for old, new in plan.target.columns.extras.items():
        pairs.append((new, plan.form.extra(wanted.extra[old]), plan.form.extra(got.extra.get(new))))
    for what, expected, found in pairs:
        if expected != found and repr(expected) != repr(found):  # NaN does not equal itself
            yield Difference(id=wanted.id, what=what, reason=f"expected {expected!r}, found {found!r}")


def _images(source: ImageRef, result: ImageRef, id: str, reader: ImageReader) -> tuple[int, list[Difference]]:
    try:
        data = reader.read_bytes(source)
        other = data if result == source else reader.read_bytes(result)
    except ImageError as error:
        return 0, [Difference(id=id, what="picture", reason=str(error))]
    if xxhash.xxh3_128_digest(data) == xxhash.xxh3_128_digest(other):
        return len(data), []
    reason = f"its {len(other):,} bytes differ from the {len(data):,} bytes of the source"
    return len(data), [Difference(id=id, what="picture", reason=reason)]
