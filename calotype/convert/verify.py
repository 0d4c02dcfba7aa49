"""Holds a result against its source: every row, and every byte of every image."""

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
    """One thing that is not as it should be."""

    id: str
    what: str
    """`missing`, `more`, `picture`, `captions`, `weight`, `size`, a column's name, or `order`."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a look at a result found."""

    destination: str
    rows: int
    bytes: int
    """Of images, read on both sides."""
    differences: tuple[Difference, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def verify_conversion(
    plan: ConvertPlan, *, reader: ImageReader | None = None, progress: Show = lambda done, total: None
) -> VerifyReport:
    """Reads the result as training would, and compares ids, captions, weights, sizes, columns and images.

    Args:
        plan: What `plan_conversion` gives for the source as it is now, with the options of the conversion.
        reader: Reads images on both sides.
        progress: Called with (done, total) images.

    Raises:
        MissingPathError: There is no result.
        ManifestError: It can't be read at all.
    """
    if not plan.destination.exists():
        raise MissingPathError(f"{plan.destination}: there is no such result to verify")
    options: dict[str, Any] = dict(plan.form.reading())
    if plan.form.name != "hf":  # folders of the result may have the names of splits
        options["split"] = "all"
    result = load_manifest(plan.destination, missing_captions="empty", columns={"rejected": None}, **options)
    places = {name: index for index, name in enumerate(result.ids.to_pylist())}
    ids = plan.manifest.ids.to_pylist()
    found: list[Difference] = []
    total = 0
    pairs = [(index, places.pop(name)) for index, name in enumerate(ids) if name in places]
    there = {index for index, _ in pairs}
    found += [
        Difference(id=name, what="missing", reason="the result has no such row")
        for index, name in enumerate(ids)
        if index not in there
    ]
    found += [Difference(id=name, what="more", reason="the source has no such row") for name in places]
    if [place for _, place in pairs] != sorted(place for _, place in pairs):
        found.append(Difference(id="", what="order", reason="the rows come in another order"))
    look = reader or ImageReader()

    def compare(pair: tuple[int, int]) -> tuple[int, list[Difference]]:
        index, place = pair
        size, differences = _pictures(plan.manifest.refs([index])[0], result.refs([place])[0], ids[index], look)
        return size, [*_rows(plan, plan.row(index), result[place]), *differences]

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
    for what, mine, theirs in pairs:
        if mine != theirs and repr(mine) != repr(theirs):  # what is no number does not equal itself
            yield Difference(id=wanted.id, what=what, reason=f"expected {mine!r}, found {theirs!r}")


def _pictures(mine: ImageRef, theirs: ImageRef, id: str, reader: ImageReader) -> tuple[int, list[Difference]]:
    try:
        data = reader.read_bytes(mine)
        other = data if theirs == mine else reader.read_bytes(theirs)
    except ImageError as error:
        return 0, [Difference(id=id, what="picture", reason=str(error))]
    if xxhash.xxh3_128_digest(data) == xxhash.xxh3_128_digest(other):
        return len(data), []
    reason = f"its {len(other):,} bytes are not the {len(data):,} bytes of the source"
    return len(data), [Difference(id=id, what="picture", reason=reason)]
