"""What a conversion will do, worked out and said before anything is written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from calotype.convert.columns import Columns, choose_columns
from calotype.convert.form import MEMBER, Finding, Form, Images, Record, Target
from calotype.convert.forms import FORMS
from calotype.convert.names import is_whole_file, reference
from calotype.core.file_state import FileState, file_holding, file_state
from calotype.core.placeholders import PLACEHOLDER, has_placeholder
from calotype.errors import ConfigError
from calotype.manifest import Manifest
from calotype.progress import Show
from calotype.types import ImageRef, Row, SampleKey

if TYPE_CHECKING:
    from calotype.transforms.caption import CaptionTransform

__all__ = ["ConvertPlan", "plan_conversion"]

_SHARD_BYTES = 500_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertPlan:
    """A conversion that can be run, run on, or held against its result."""

    manifest: Manifest
    destination: Path
    """Absolute: the folder that is made, or the one data file."""
    single: bool
    """Whether the destination is one file."""
    form: Form
    target: Target
    names: Sequence[str]
    """What each image is called in the result."""
    program: CaptionTransform | None
    """What is baked into the captions."""
    shard_size: int
    findings: tuple[Finding, ...]
    nbytes: int
    """Of the images that are read, as far as their sizes are known without fetching."""
    unknown_sizes: int
    """Images whose sizes are not known: those behind URLs."""
    key: str
    """A hash of source and options: a conversion only goes on where the same one stopped."""

    def __len__(self) -> int:
        return len(self.manifest)

    def row(self, index: int) -> Row:
        """The row that the result must give."""
        row = self.manifest[index]
        captions = tuple(self.form.caption(_baked(self.program, text)) for text in row.captions)
        return replace(row, captions=captions)

    def record(self, index: int, *, name: str | None = None, data: bytes | None = None) -> Record:
        return Record(index=index, row=self.row(index), name=name or self.names[index], data=data)

    def moves(self, ref: ImageRef) -> bool:
        """Whether an image's bytes are read and written."""
        if self.target.images == "link":
            return not is_whole_file(ref)
        return self.target.images != "refer"


def plan_conversion(
    manifest: Manifest,
    destination: str | os.PathLike[str],
    *,
    to: str,
    images: Images | None = None,
    trigger: str | None = None,
    template: str | None = None,
    shard_size: int = _SHARD_BYTES,
    progress: Show = lambda done, total: None,
) -> ConvertPlan:
    """Works out names, columns and sizes, and what the form can't hold.

    Args:
        manifest: The source, loaded with `missing_captions="empty"`, and (for all forms but kohya's)
            `columns={"rejected": None}`, so that images without captions and rejected ones come along.
        destination: A folder that is not there yet or empty; or a file with the form's own suffix, where all of the
            result is one file.
        to: A name in `FORMS`.
        images: What becomes of the images' files; None takes what suits the form.
        trigger: A word that is written into every caption, as `CaptionTransform` would when training.
        template: Where in a caption it stands.
        shard_size: Bytes of images in one file, for forms of several.
        progress: Called with (done, total) rows.

    Raises:
        ConfigError: An option is unknown, or asks of the form what it can't do.
    """
    if to not in FORMS:
        raise ConfigError(f"to: found {to!r}; expected one of {', '.join(FORMS)}")
    form = FORMS[to]
    place = Path(os.path.abspath(Path(destination).expanduser()))  # noqa: PTH100 - resolve() would follow links
    images = images or _default(form, manifest, place)
    if images not in form.images:
        raise ConfigError(f"images: {to} can't {images} images; expected {' or '.join(form.images)}")
    if shard_size < 1:
        raise ConfigError(f"shard_size: found {shard_size}; expected a number of bytes, 1 or more")
    single = _is_single(form, images, place)
    _check_place(manifest, images, place)
    program = _program(trigger, template)
    folder = place.parent if single else place
    title = trigger or manifest.root.name or "pictures"
    facts = _Facts(program, form)
    names = list(form.names(facts.watch(manifest, progress), images, folder, title))
    columns = _columns(form, images, manifest, facts, names)
    target = Target(images=images, folder=folder, title=title, columns=columns, extras=manifest.extras)
    stats = _stats(manifest.refs()) if images in ("copy", "embed") else []
    sizes = [size for size, _ in stats]
    options = (to, images, trigger, template, shard_size)
    hashed = xxhash.xxh3_128(repr((facts.digest, stats, options)).encode())
    return ConvertPlan(
        manifest=manifest,
        destination=place,
        single=single,
        form=form,
        target=target,
        names=names,
        program=program,
        shard_size=sys.maxsize if single else shard_size,
        findings=tuple(_findings(form, manifest, names, columns, facts, images)),
        nbytes=sum(size or 0 for size in sizes),
        unknown_sizes=sum(size is None for size in sizes),
        key=hashed.hexdigest(),
    )


def _default(form: Form, manifest: Manifest, place: Path) -> Images:
    """What a form does with images unasked; what can't be referred to is copied."""
    first = form.images[0]
    led = first != "refer" or all(reference(ref, place) is not None for ref in manifest.refs())
    return first if led else "copy"


def _is_single(form: Form, images: Images, place: Path) -> bool:
    suffix = Path(form.table).suffix if form.table else ""
    if not suffix or place.suffix.lower() != suffix or place.is_dir():
        return False
    if images in ("copy", "link"):
        raise ConfigError(
            f"destination: {place.name} is one file, and with images '{images}' the result is a folder; name a folder"
        )
    return True


def _check_place(manifest: Manifest, images: Images, place: Path) -> None:
    of_pictures = {"folder", "images"} & set(str(manifest.describe()["format"]).split(", "))
    inside = of_pictures and images in ("copy", "link") and manifest.root in place.parents
    if inside or place == manifest.root:
        raise ConfigError(
            f"destination: {place} lies in the source {manifest.root}, whose images it would join; name a folder "
            "elsewhere"
        )


def _program(trigger: str | None, template: str | None) -> CaptionTransform | None:
    if trigger is None and template is None:
        return None
    from calotype.transforms.caption import CaptionTransform  # with torch, which takes seconds to import

    return CaptionTransform(trigger=trigger, template=template)


def _baked(program: CaptionTransform | None, text: str) -> str:
    return text if program is None else program((text,), SampleKey(0), 0)


class _Facts:
    """What one look at all rows tells."""

    def __init__(self, program: CaptionTransform | None, form: Form) -> None:
        self._program, self._form = program, form
        self._hash = xxhash.xxh3_128()
        self.ids: list[str] = []
        self.most = 1
        self.changed = self.placed = 0
        self.sized = self.weighted = False

    def watch(self, manifest: Manifest, progress: Show) -> Iterator[Row]:
        for number, row in enumerate(manifest, start=1):
            captions = [_baked(self._program, text) for text in row.captions]
            self.changed += sum(self._form.caption(text) != text for text in captions)
            self.placed += sum(map(has_placeholder, captions))
            self.most = max(self.most, len(captions))
            self.sized |= row.width is not None or row.height is not None
            self.weighted |= row.weight != 1.0
            self.ids.append(row.id)
            self._hash.update(repr(row).encode("utf-8", "surrogatepass"))
            progress(number, len(manifest))
            yield row

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def _columns(form: Form, images: Images, manifest: Manifest, facts: _Facts, names: Sequence[str]) -> Columns:
    image, captions = form.column_names(images, facts.most)
    # Files of their own keep their names as ids unasked; a name that is still to get its suffix is none yet.
    natural = form.table is not None and images in ("copy", "link") and facts.ids == list(names)
    return choose_columns(
        image=image,
        captions=captions,
        several=facts.most > 1,
        ids=not natural,
        sizes=facts.sized,
        weights=facts.weighted,
        extras=manifest.extras.column_names,
        clean=form.column,
        image_is_given=image == MEMBER,
    )


def _findings(
    form: Form, manifest: Manifest, names: Sequence[str], columns: Columns, facts: _Facts, images: Images
) -> Iterator[Finding]:
    notes = manifest.describe()["notes"]
    if facts.changed:
        lines = any("caption_lines=many" in note for note in notes)
        yield Finding(
            level="error",
            kind="captions_changed",
            count=facts.changed,
            text=f"{facts.changed:,} captions hold line breaks, which {form.name} can't; they would become spaces"
            + ("; caption_lines=many makes each line a caption" if lines else ""),
        )
    if facts.placed:
        yield Finding(
            level="note",
            kind="placeholders",
            count=facts.placed,
            text=f"{facts.placed:,} captions hold {PLACEHOLDER}, which only calotype fills in; a trigger "
            "(--bake-trigger) writes the word itself",
        )
    renamed = {old: new for old, new in columns.extras.items() if old != new}
    if renamed:
        yield Finding(
            level="note",
            kind="renamed_columns",
            count=len(renamed),
            text="columns whose names would mean something else are renamed: "
            + ", ".join(f"{old!r} to {new!r}" for old, new in renamed.items()),
        )
    yield from form.findings(manifest, names, facts.most)
    if images == "link":
        copied = sum(not is_whole_file(ref) for ref in manifest.refs())
        if copied:
            yield Finding(
                level="note",
                kind="copied",
                count=copied,
                text=f"{copied:,} images are behind URLs or inside archives; they can't be linked and are copied",
            )
    for sentence in manifest.describe()["notes"]:
        yield Finding(level="note", kind="source", count=1, text=f"of the source: {sentence}")
    first = {entry.kind: entry for entry in reversed(list(manifest.ledger))}
    for kind, count in manifest.ledger.counts().items():
        left_out = (
            f"{count:,} of the source left out: {kind.replace('_', ' ')} ({first[kind].id}: {first[kind].reason})"
        )
        yield Finding(level="note", kind=kind, count=count, text=left_out)


def _stats(refs: Sequence[ImageRef]) -> list[tuple[int | None, FileState | None]]:
    """(bytes, state of its file) of each image, as far as they are known without fetching."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(_stat, refs))


def _stat(ref: ImageRef) -> tuple[int | None, FileState | None]:
    if ref.path is None:
        return None, None
    state = file_state(file_holding(ref.path, ref.key))
    if state is None or ref.key is not None:  # one that is not there is named when it is read
        return None, state
    return (state.size if ref.size is None else ref.size), state
