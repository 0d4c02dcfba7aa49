"""`run_conversion`: threads read images ahead; they are written in order, read back and compared."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import xxhash

from calotype.convert.form import Finding, Record
from calotype.convert.names import split_suffix, suffix_of
from calotype.convert.plan import ConvertPlan
from calotype.convert.staging import Part, Staging
from calotype.core.daemon_pool import DaemonPool
from calotype.errors import ConfigError, ConvertError, DecodeError, ImageError
from calotype.images import ImageReader
from calotype.images.formats import NotAnImageError
from calotype.progress import Show, count_failure
from calotype.terminal import size_text

__all__ = ["ConvertReport", "run_conversion"]

_PART_ROWS = 4096
_PART_BYTES = 64_000_000
"""Limits of a part, for forms without shards: the most work that a kill loses."""
_THREADS = 4
_AHEAD = 12
"""Images read before they are written, besides those that are being read."""
"""Most images in memory that are read and not written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertReport:
    """Result of a conversion."""

    destination: str
    form: str
    images: str
    rows: int
    """In the result."""
    bytes: int
    """Of images written, including interrupted earlier runs."""
    resumed: int
    """Rows written by interrupted earlier runs."""
    seconds: float
    failed: dict[str, str]
    """Id of each skipped image → reason."""
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run_conversion(
    plan: ConvertPlan,
    *,
    reader: ImageReader | None = None,
    lossy: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    progress: Show = lambda done, total: None,
) -> ConvertReport:
    """Write the result, or resume the same conversion where it was interrupted.

    Args:
        plan: The result of `plan_conversion`.
        reader: Reads and fetches images.
        lossy: Write although captions change (findings of level `error`).
        on_error: For images that can't be read: `raise` (finished parts remain), or `skip` and report them.
        progress: Called with (done, total) images.

    Raises:
        ConfigError: The destination exists, or another process writes it; or captions would change.
        ConvertError: An image can't be read; or written data differs when read back.
    """
    if not lossy and (lost := [found.text for found in plan.findings if found.level == "error"]):
        raise ConfigError(f"{'; '.join(lost)}. lossy=True (--lossy) writes them anyway")
    start = time.monotonic()
    with _disk_errors(plan), Staging.open(plan) as staging:
        if not staging.moved:
            staging.result.mkdir(exist_ok=True)
            _check_done(plan, staging, progress)
            resumed = staging.parts[-1].end if staging.parts else 0
            _check_space(plan, staging)
            _write_parts(plan, staging, reader or ImageReader(), on_error, progress)
            parts = staging.parts
            plan.form.finish(plan.target, staging.result, len(parts), lambda: _records(plan, parts))
        else:
            resumed = len(plan)
        staging.publish()
    failed = {plan.manifest[index].id: why for part in staging.parts for index, why in part.failed.items()}
    return ConvertReport(
        destination=str(plan.destination),
        form=plan.form.name,
        images=plan.target.images,
        rows=len(plan) - len(failed),
        bytes=sum(part.bytes for part in staging.parts),
        resumed=resumed,
        seconds=time.monotonic() - start,
        failed=failed,
        findings=plan.findings,
    )


@contextmanager
def _disk_errors(plan: ConvertPlan) -> Iterator[None]:
    """Raise one error for a full or failing disk, whichever library wrote."""
    try:
        yield
    except OSError as error:
        raise ConvertError(
            f"{plan.destination}: can't be written: {error.strerror or error}. Finished parts remain: free disk "
            "space, and run the same conversion again"
        ) from error


def _records(plan: ConvertPlan, parts: list[Part]) -> Iterator[Record]:
    """Yield all rows of the result, without images."""
    for part in parts:
        for index in range(part.first, part.end):
            if index not in part.failed:
                yield plan.record(index, name=part.names.get(index))


def _check_done(plan: ConvertPlan, staging: Staging, progress: Show) -> None:
    """Verify the parts of an earlier run, drop damaged ones and delete unfinished files."""
    for number, part in enumerate(staging.parts):
        if _digest(plan, staging, number, part) != part.digest:
            staging.drop_from(number)
            break
        progress(part.end, len(plan))
    kept: set[Path] = set()
    for number, part in enumerate(staging.parts):
        names = [part.names.get(index, plan.names[index]) for index in range(part.first, part.end)]
        kept.update(staging.result / file for file in plan.form.files(plan.target, number, names))
    for file in staging.result.rglob("*"):
        if file not in kept and not file.is_dir():
            file.unlink()


def _digest(plan: ConvertPlan, staging: Staging, number: int, part: Part) -> str | None:
    """Return the digest of a part on disk; None when it can't be read."""
    digest = xxhash.xxh3_128()
    refs = enumerate(plan.manifest.refs(range(part.first, part.end)), part.first)
    moved = [index for index, ref in refs if index not in part.failed and plan.moves(ref)]
    names = [part.names.get(index, plan.names[index]) for index in moved]
    try:
        for data in plan.form.read_part(plan.target, staging.result, number, names):
            digest.update(xxhash.xxh3_128_digest(data))
    except Exception:  # tar, Arrow, LMDB and the OS have their own errors for incomplete files
        return None
    return digest.hexdigest()


def _check_space(plan: ConvertPlan, staging: Staging) -> None:
    free = shutil.disk_usage(staging.folder).free
    needed = plan.nbytes - sum(part.bytes for part in staging.parts)
    if needed > free:
        raise ConvertError(f"{plan.destination}: {size_text(needed)} to write, {size_text(free)} free on that disk")


def _write_parts(plan: ConvertPlan, staging: Staging, reader: ImageReader, on_error: str, progress: Show) -> None:
    first = staging.parts[-1].end if staging.parts else 0
    shards = plan.form.shards and plan.target.images in ("embed", "refer")
    limits = (plan.shard_size, len(plan)) if shards else (_PART_BYTES, _PART_ROWS)
    failed: dict[int, str] = {}
    records = _read(plan, reader, first, failed, on_error)
    queue = _Queue(plan, records, limits, progress)
    try:
        while queue.head is not None:
            plan.form.write_part(plan.target, staging.result, len(staging.parts), queue.part())
            part = queue.written(first, failed)
            if _digest(plan, staging, len(staging.parts), part) != part.digest:
                raise ConvertError(
                    f"rows {first} to {part.end - 1}: {staging.result} differs from what was written. Is the disk full "
                    "or failing? Run the same conversion again to rewrite them"
                )
            staging.add(part)
            first = part.end
        if first < len(plan) and staging.parts:  # all remaining rows failed
            last = staging.parts[-1]
            staging.drop_from(len(staging.parts) - 1)
            staging.add(replace(last, end=len(plan), failed=last.failed | failed))
        if not staging.parts:
            raise ConvertError(f"no image can be read: {next(iter(failed.values()), 'the source has none')}")
        progress(len(plan), len(plan))
    finally:
        records.close()


class _Queue:
    """Splits the records into parts, and describes each written part."""

    def __init__(self, plan: ConvertPlan, records: Iterator[Record], limits: tuple[int, int], progress: Show) -> None:
        self._plan, self._records, self._progress = plan, records, progress
        self._most_bytes, self._most_rows = limits
        self.head = next(records, None)
        """The next record; None at the end."""
        self._clear()

    def _clear(self) -> None:
        self._bytes = self._count = 0
        self._digest = xxhash.xxh3_128()
        self._names: dict[int, str] = {}

    def part(self) -> Iterator[Record]:
        """Yield the records of the next part: at least one, up to the limits."""
        self._clear()
        while (record := self.head) is not None:
            size = len(record.data or b"")
            if self._count and (self._count >= self._most_rows or self._bytes + size > self._most_bytes):
                return
            self._bytes += size
            self._count += 1
            if record.data is not None:
                self._digest.update(xxhash.xxh3_128_digest(record.data))
            if record.name != self._plan.names[record.index]:
                self._names[record.index] = record.name
            yield record
            self._progress(record.index + 1, len(self._plan))
            self.head = next(self._records, None)

    def written(self, first: int, failed: Mapping[int, str]) -> Part:
        """Return the part of all records since row `first`."""
        end = len(self._plan) if self.head is None else self.head.index
        return Part(
            first=first,
            end=end,
            bytes=self._bytes,
            digest=self._digest.hexdigest(),
            names=self._names,
            failed={index: why for index, why in failed.items() if first <= index < end},
        )


def _read(
    plan: ConvertPlan, reader: ImageReader, first: int, failed: dict[int, str], on_error: str
) -> Generator[Record, None, None]:
    """Yield the records from row `first` on, read ahead by threads; failures are added to `failed`."""
    if plan.target.images == "refer":
        yield from map(plan.record, range(first, len(plan)))
        return
    threads = reader.fetcher.connections if plan.manifest.has_urls else _THREADS
    pool = DaemonPool(threads, "calotype-convert")
    ahead: deque[tuple[int, Future[Record]]] = deque()
    try:
        for index in range(first, len(plan)):
            ahead.append((index, pool.submit(_load, plan, reader, index)))
            if len(ahead) > threads + _AHEAD:
                yield from _result(*ahead.popleft(), failed, on_error)
        while ahead:
            yield from _result(*ahead.popleft(), failed, on_error)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _result(index: int, future: Future[Record], failed: dict[int, str], on_error: str) -> Iterator[Record]:
    try:
        yield future.result()
    except ImageError as error:
        if on_error != "skip":
            raise ConvertError(
                f"{error}. Finished parts remain: fix it and run the same conversion again, or leave such images out "
                "with on_error='skip' (--skip)"
            ) from error
        count_failure(error.why)
        failed[index] = str(error)


def _load(plan: ConvertPlan, reader: ImageReader, index: int) -> Record:
    ref = plan.manifest.refs([index])[0]
    data = reader.read_bytes(ref) if plan.moves(ref) else None
    name = plan.names[index]
    named = bool(split_suffix(name)[1])
    if named and plan.target.images != "embed":
        return plan.record(index, data=data)
    try:
        suffix = suffix_of(reader.read_bytes(ref) if data is None else data)
    except NotAnImageError as error:  # without a suffix, or embedded, a reader could not recognise it
        raise DecodeError(ref.name, str(error), kind=error.kind) from error
    return plan.record(index, name=name if named else name + suffix, data=data)
