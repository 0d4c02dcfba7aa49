"""`plan_conversion`: names, columns, sizes and findings of a conversion, before anything is written."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from calotype.convert.columns import Columns, choose_columns
from calotype.convert.form import MEMBER, Finding, Form, Images, Record, Target
from calotype.convert.names import is_whole_file, reference
from calotype.convert.registry import FORMS
from calotype.core.file_state import FileState, file_holding, file_state
from calotype.core.placeholders import PLACEHOLDER, has_placeholder
from calotype.errors import ConfigError
from calotype.manifest import Manifest
from calotype.manifest.paths import PathLike, absolute
from calotype.progress import Show
from calotype.types import ImageRef, Row, SampleKey

if TYPE_CHECKING:
    from calotype.transforms.caption import CaptionTransform

__all__ = ["ConvertPlan", "plan_conversion"]

_SHARD_BYTES = 500_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertPlan:
    """A conversion to run, resume or verify."""

    manifest: Manifest
    destination: Path
    """Absolute path of the new folder, or of the one data file."""
    single: bool
    """Whether the destination is one file."""
    form: Form
    target: Target
    names: Sequence[str]
    """Name of each image in the result."""
    transform: CaptionTransform | None
    """Writes the trigger into the captions."""
    shard_size: int
    findings: tuple[Finding, ...]
    nbytes: int
    """Of the images to read; those behind URLs are not counted."""
    unknown_sizes: int
    """Number of images of unknown size: those behind URLs."""
    key: str
    """Hash of source and options: only the same conversion is resumed."""

    def __len__(self) -> int:
        return len(self.manifest)

    def row(self, index: int) -> Row:
        """Return the row as the result must be read."""
        row = self.manifest[index]
        captions = tuple(self.form.caption(_final(self.transform, text)) for text in row.captions)
        return replace(row, captions=captions)

    def record(self, index: int, *, name: str | None = None, data: bytes | None = None) -> Record:
        return Record(index=index, row=self.row(index), name=name or self.names[index], data=data)

    def moves(self, ref: ImageRef) -> bool:
        """Whether an image's bytes are copied."""
        if self.target.images == "link":
            return not is_whole_file(ref)
        return self.target.images != "refer"


def plan_conversion(
    manifest: Manifest,
    destination: PathLike,
    *,
    to: str,
    images: Images | None = None,
    trigger: str | None = None,
    template: str | None = None,
    shard_size: int = _SHARD_BYTES,
    progress: Show = lambda done, total: None,
) -> ConvertPlan:
    """Plan a conversion: names, columns, sizes, and findings about what the form can't hold.

    Args:
        manifest: The source, loaded with `missing_captions="empty"` and, except for kohya,
            `columns={"rejected": None}`, so that it has images without captions and rejected ones.
        destination: A new or empty folder; or a file with the form's suffix, if the result is one file.
        to: A name in `FORMS`.
        images: How images are stored; None is the form's default.
        trigger: Word to write into every caption, as `CaptionTransform` does in training.
        template: Text with `{trigger}` and `{caption}`, as `CaptionTransform`'s.
        shard_size: Most bytes of images in one file, for forms with shards.
        progress: Called with (done, total) rows.

    Raises:
        ConfigError: An option is wrong, or the form does not support it.
    """
    if to not in FORMS:
        raise ConfigError(f"to: found {to!r}; expected one of {', '.join(FORMS)}")
    form = FORMS[to]
    path = absolute(destination)
    _check_name(path)
    images = images or _default(form, manifest, path)
    if images not in form.images:
        raise ConfigError(f"images: {to} can't {images} images; expected {' or '.join(form.images)}")
    if shard_size < 1:
        raise ConfigError(f"shard_size: found {shard_size}; expected a number of bytes, 1 or more")
    single = _is_single(form, images, path)
    _check_destination(manifest, images, path)
    transform = _transform(trigger, template)
    folder = path.parent if single else path
    title = trigger or manifest.root.name or "pictures"
    facts = _Facts(transform, form)
    # One pass over the rows: the form makes names while `facts` collects what else is needed.
    names = list(form.names(facts.watch(manifest, progress), images, folder, title))
    columns = _columns(form, images, manifest, facts, names)
    target = Target(images=images, folder=folder, title=title, columns=columns, extras=manifest.extras)
    stats = _stats(manifest.refs()) if images in ("copy", "embed") else []
    sizes = [size for size, _ in stats]
    options = (to, images, trigger, template, shard_size)
    hashed = xxhash.xxh3_128(repr((facts.digest, stats, options)).encode())
    return ConvertPlan(
        manifest=manifest,
        destination=path,
        single=single,
        form=form,
        target=target,
        names=names,
        transform=transform,
        shard_size=sys.maxsize if single else shard_size,
        findings=tuple(_findings(form, manifest, names, columns, facts, images)),
        nbytes=sum(size or 0 for size in sizes),
        unknown_sizes=sum(size is None for size in sizes),
        key=hashed.hexdigest(),
    )


def _default(form: Form, manifest: Manifest, folder: Path) -> Images:
    """Return the form's default; images without a reference are copied."""
    first = form.images[0]
    possible = first != "refer" or all(reference(ref, folder) is not None for ref in manifest.refs())
    return first if possible else "copy"


def _check_name(path: Path) -> None:
    """Check that a file system can have this path.

    Raises:
        ConfigError: It can't, such as for a name of more than 255 bytes.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it has a null byte"
        raise ConfigError(f"destination: {path} can't be written: {reason}") from error


def _is_single(form: Form, images: Images, path: Path) -> bool:
    suffix = Path(form.table).suffix if form.table else ""
    if not suffix or path.suffix.lower() != suffix or path.is_dir():
        return False
    if images in ("copy", "link"):
        raise ConfigError(
            f"destination: found the file {path.name}; with images '{images}' the result is a folder, name a folder"
        )
    return True


def _check_destination(manifest: Manifest, images: Images, path: Path) -> None:
    is_folder = {"folder", "images"} & set(str(manifest.describe()["format"]).split(", "))
    inside = is_folder and images in ("copy", "link") and manifest.root in path.parents
    if inside or path == manifest.root:
        raise ConfigError(
            f"destination: {path} is in the source {manifest.root}, which would have its images twice; name a folder "
            "outside it"
        )


def _transform(trigger: str | None, template: str | None) -> CaptionTransform | None:
    if trigger is None and template is None:
        return None
    from calotype.transforms.caption import CaptionTransform  # imports torch, which takes seconds

    return CaptionTransform(trigger=trigger, template=template)


def _final(transform: CaptionTransform | None, text: str) -> str:
    return text if transform is None else transform((text,), SampleKey(0), 0)


class _Facts:
    """Facts about all rows, collected in one pass."""

    def __init__(self, transform: CaptionTransform | None, form: Form) -> None:
        self._transform, self._form = transform, form
        self._hash = xxhash.xxh3_128()
        self.ids: list[str] = []
        self.most = 1
        self.changed = self.placed = 0
        self.sized = self.weighted = False

    def watch(self, manifest: Manifest, progress: Show) -> Iterator[Row]:
        """Yield the rows and collect their facts."""
        for number, row in enumerate(manifest, start=1):
            captions = [_final(self._transform, text) for text in row.captions]
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
    # Ids equal to file names need no column; a name without its suffix is not final.
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
            text=f"{facts.changed:,} captions have line breaks, which {form.name} can't hold; they would become spaces"
            + ("; caption_lines=many makes each line a caption" if lines else ""),
        )
    if facts.placed:
        yield Finding(
            level="note",
            kind="placeholders",
            count=facts.placed,
            text=f"{facts.placed:,} captions have {PLACEHOLDER}, which only calotype replaces; a trigger "
            "(--bake-trigger) writes the word itself",
        )
    renamed = {old: new for old, new in columns.extras.items() if old != new}
    if renamed:
        yield Finding(
            level="note",
            kind="renamed_columns",
            count=len(renamed),
            text="columns are renamed whose names have another meaning: "
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
                text=f"{copied:,} images are behind URLs or inside archives; they can't be linked, and are copied",
            )
    for sentence in notes:
        yield Finding(level="note", kind="source", count=1, text=f"source: {sentence}")
    first = {entry.kind: entry for entry in reversed(list(manifest.ledger))}
    for kind, count in manifest.ledger.counts().items():
        left_out = (
            f"{count:,} left out of the source: {kind.replace('_', ' ')} ({first[kind].id}: {first[kind].reason})"
        )
        yield Finding(level="note", kind=kind, count=count, text=left_out)


def _stats(refs: Sequence[ImageRef]) -> list[tuple[int | None, FileState | None]]:
    """Return (bytes, state of the file) of each image, None for URLs."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(_stat, refs))


def _stat(ref: ImageRef) -> tuple[int | None, FileState | None]:
    if ref.path is None:
        return None, None
    state = file_state(file_holding(ref.path, ref.key))
    if state is None or ref.key is not None:  # a missing file is reported when it is read
        return None, state
    return (state.size if ref.size is None else ref.size), state
