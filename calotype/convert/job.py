"""Runs a conversion: images are read ahead by threads, written in order, and held against what was read."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import xxhash

from calotype.convert.form import Finding, Record
from calotype.convert.names import split_suffix, suffix_of
from calotype.convert.plan import ConvertPlan
from calotype.convert.work import Part, Work
from calotype.errors import ConfigError, ConvertError, DecodeError, ImageError
from calotype.images import ImageReader
from calotype.images.formats import NotAnImageError
from calotype.progress import Show

__all__ = ["ConvertReport", "run_conversion"]

_PART_ROWS = 4096
_PART_BYTES = 64_000_000
"""What a part holds at most, where it is no file of its own: a kill loses so much work."""
_THREADS = 4
_AHEAD = 16
"""Images in memory that wait to be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertReport:
    """What a conversion did."""

    destination: str
    form: str
    images: str
    rows: int
    """In the result."""
    bytes: int
    """Of images that were written (also by earlier runs that were cut off)."""
    resumed: int
    """Rows that were there from such a run."""
    seconds: float
    failed: dict[str, str]
    """Id of each image that can't be had → why."""
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
    """Makes the result, or goes on where the same conversion was cut off.

    Args:
        plan: What `plan_conversion` gave.
        reader: Reads images, and fetches those behind URLs.
        lossy: Write although captions change (`Finding` of level `error`).
        on_error: What to do when an image can't be had: `raise` (what is done is kept), or `skip` it and say so.
        progress: Called with (done, total) images.

    Raises:
        ConfigError: The destination is there, or is being made by another process; or captions would change.
        ConvertError: An image can't be had; or what was written does not come back as it was.
    """
    if not lossy and (lost := [found.text for found in plan.findings if found.level == "error"]):
        raise ConfigError(f"{'; '.join(lost)}. lossy=True (--lossy) writes it all the same")
    start = time.monotonic()
    with _disk_errors(plan), Work.open(plan) as work:
        if not work.moved:
            work.result.mkdir(exist_ok=True)
            _check_done(plan, work, progress)
            resumed = work.parts[-1].end if work.parts else 0
            _check_space(plan, work)
            _write_parts(plan, work, reader or ImageReader(), on_error, progress)
            parts = work.parts
            plan.form.finish(plan.target, work.result, len(parts), lambda: _records(plan, parts))
        else:
            resumed = len(plan)
        work.publish()
    failed = {plan.manifest[index].id: why for part in work.parts for index, why in part.failed.items()}
    return ConvertReport(
        destination=str(plan.destination),
        form=plan.form.name,
        images=plan.target.images,
        rows=len(plan) - len(failed),
        bytes=sum(part.bytes for part in work.parts),
        resumed=resumed,
        seconds=time.monotonic() - start,
        failed=failed,
        findings=plan.findings,
    )


@contextmanager
def _disk_errors(plan: ConvertPlan) -> Iterator[None]:
    """Whatever wrote, a disk that is full or fails is one error."""
    try:
        yield
    except OSError as error:
        raise ConvertError(
            f"{plan.destination}: can't be written: {error.strerror or error}. What is done is kept: make room "
            "there, and run the same conversion again"
        ) from error


def _records(plan: ConvertPlan, parts: list[Part]) -> Iterator[Record]:
    """All rows of the result, without their images' bytes."""
    for part in parts:
        for index in range(part.first, part.end):
            if index not in part.failed:
                yield plan.record(index, name=part.names.get(index))


def _check_done(plan: ConvertPlan, work: Work, progress: Show) -> None:
    """Reads what an earlier run wrote, forgets what is not as it was, and takes away what it had not finished."""
    for number, part in enumerate(work.parts):
        if _digest(plan, work, number, part) != part.digest:
            work.forget_from(number)
            break
        progress(part.end, len(plan))
    kept: set[Path] = set()
    for number, part in enumerate(work.parts):
        names = [part.names.get(index, plan.names[index]) for index in range(part.first, part.end)]
        kept.update(work.result / file for file in plan.form.files(plan.target, number, names))
    for file in work.result.rglob("*"):
        if file not in kept and not file.is_dir():
            file.unlink()


def _digest(plan: ConvertPlan, work: Work, number: int, part: Part) -> str | None:
    """Of the part as it lies on the disk; None when it can't be read."""
    whole = xxhash.xxh3_128()
    refs = enumerate(plan.manifest.refs(range(part.first, part.end)), part.first)
    moved = [index for index, ref in refs if index not in part.failed and plan.moves(ref)]
    names = [part.names.get(index, plan.names[index]) for index in moved]
    try:
        for data in plan.form.read_part(plan.target, work.result, number, names):
            whole.update(xxhash.xxh3_128_digest(data))
    except Exception:  # tar, Arrow, LMDB and the system have errors of their own for files that are not whole
        return None
    return whole.hexdigest()


def _check_space(plan: ConvertPlan, work: Work) -> None:
    free = shutil.disk_usage(work.folder).free
    needed = plan.nbytes - sum(part.bytes for part in work.parts)
    if needed > free:
        raise ConvertError(f"{plan.destination}: {needed:,} bytes are to be written, and {free:,} are free there")


def _write_parts(plan: ConvertPlan, work: Work, reader: ImageReader, on_error: str, progress: Show) -> None:
    first = work.parts[-1].end if work.parts else 0
    shards = plan.form.shards and plan.target.images in ("embed", "refer")
    limits = (plan.shard_size, len(plan)) if shards else (_PART_BYTES, _PART_ROWS)
    failed: dict[int, str] = {}
    records = _read(plan, reader, first, failed, on_error)
    queue = _Queue(plan, records, limits, progress)
    try:
        while queue.head is not None:
            plan.form.write_part(plan.target, work.result, len(work.parts), queue.part())
            part = queue.written(first, failed)
            if _digest(plan, work, len(work.parts), part) != part.digest:
                raise ConvertError(
                    f"rows {first} to {part.end - 1}: what lies in {work.result} is not what was written. Is the disk "
                    "full or failing? Run the same conversion again to write them anew"
                )
            work.add(part)
            first = part.end
        if first < len(plan) and work.parts:  # nothing but failures was left
            last = work.parts[-1]
            work.forget_from(len(work.parts) - 1)
            work.add(replace(last, end=len(plan), failed=last.failed | failed))
        if not work.parts:
            raise ConvertError(f"no image can be had: {next(iter(failed.values()), 'the source has none')}")
        progress(len(plan), len(plan))
    finally:
        records.close()


class _Queue:
    """Hands out records part by part, and tells what a part was."""

    def __init__(self, plan: ConvertPlan, records: Iterator[Record], limits: tuple[int, int], progress: Show) -> None:
        self._plan, self._records, self._progress = plan, records, progress
        self._most_bytes, self._most_rows = limits
        self.head = next(records, None)
        """The record that comes next; None at the end."""
        self._clear()

    def _clear(self) -> None:
        self._bytes = self._count = 0
        self._digest = xxhash.xxh3_128()
        self._names: dict[int, str] = {}

    def part(self) -> Iterator[Record]:
        """The next part's records: one at least, and no more than the limits allow."""
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
        """What was handed out since row `first`."""
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
    """The records from row `first` on, in order, read ahead by threads; what can't be had goes into `failed`."""
    if plan.target.images == "refer":
        yield from map(plan.record, range(first, len(plan)))
        return
    pool = ThreadPoolExecutor(_THREADS)
    ahead: deque[tuple[int, Future[Record]]] = deque()
    try:
        for index in range(first, len(plan)):
            ahead.append((index, pool.submit(_load, plan, reader, index)))
            if len(ahead) > _AHEAD:
                yield from _taken(plan, *ahead.popleft(), failed, on_error)
        while ahead:
            yield from _taken(plan, *ahead.popleft(), failed, on_error)
    finally:
        pool.shutdown(cancel_futures=True)


def _taken(
    plan: ConvertPlan, index: int, future: Future[Record], failed: dict[int, str], on_error: str
) -> Iterator[Record]:
    try:
        yield future.result()
    except ImageError as error:
        if on_error != "skip":
            raise ConvertError(
                f"{error}. What is done is kept: mend it and run the same conversion again, or leave such images out "
                "with on_error='skip' (--skip)"
            ) from error
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
    except NotAnImageError as error:  # without its suffix, or inside a data file, no reader would know it
        raise DecodeError(ref.name, str(error), kind=error.kind) from error
    return plan.record(index, name=name if named else name + suffix, data=data)
