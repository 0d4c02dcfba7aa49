"""Implements `calotype check`: checks the dataset of a config, and caches the report until an input changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from calotype.check.kinds import KINDS
from calotype.check.report import Report, finding
from calotype.config import Config
from calotype.config.inputs import image_folders, input_files, input_folders, source_name
from calotype.core.report_cache import code_state, files_state, folders_state, load_report, report_key, save_report
from calotype.errors import ConfigError, ManifestError, MissingPathError, MissingTokenizerError
from calotype.ledger import Ledger
from calotype.models import TokenTransform
from calotype.models.registry import ENTRY_POINTS
from calotype.progress import Track
from calotype.terminal import get_logger

if TYPE_CHECKING:
    from calotype.data.dataset import TextToImageDataset
    from calotype.manifest import Manifest
    from calotype.models.spec import EncodingSpec

__all__ = ["run"]

logger = get_logger("calotype")

_CACHE: Final = "reports"
_USED: Final = ("dataset", "loader", "model", "tokenizer", "tokenizers")
_PLANNED: Final = ("batch_size", "remainder", "on_upscale", "seed", "shuffle", "world_size", "threads")
"""Options of the Loader that a check follows."""


def run(
    config: Config | Mapping[str, Any],
    *,
    deep: bool | None = None,
    world_size: int | None = None,
    fresh: bool = False,
    track: Track | None = None,
) -> Report:
    """Check the dataset of a config as its loader would use it.

    Args:
        config: The result of `load_config`.
        deep: See `calotype.check.check.check`.
        world_size: Ranks to plan for; the config's `loader.world_size` by default, else 1.
        fresh: Check again even if a cached report is still valid.
        track: Shows the progress of a named step.

    Raises:
        ConfigError: The config is wrong, or its dataset is a `_component_` of another class.
        MissingPathError: The path does not exist.
    """
    config = Config.parse(config, only=_USED)
    key = report_key(
        config.to_mapping(), code=code_state(), deep=deep, world_size=world_size, packages=_model_packages()
    )
    if not fresh and (known := _recalled(key)) is not None:
        return known
    # These modules import torch, which a cached report does not need.
    from calotype.check.check import check
    from calotype.manifest.exclude import parse_exclude

    # Load the dataset leniently. The states of folders and files are read before the check: a change in between then
    # invalidates the cached report.
    given = config.loader_options()
    options = {name: given[name] for name in _PLANNED if given.get(name) is not None}
    if world_size is not None:
        options["world_size"] = world_size
    folders = input_folders(config)
    folders_were = folders_state(folders or ())
    section = config.our_dataset("checked")
    lenient, ledger = config.lenient(), Ledger()
    try:
        dataset, whole = _dataset(lenient, ledger)
    except MissingPathError:
        raise
    except ManifestError as error:
        return _nothing(source_name(config), error, ledger)
    held_out = _other_side(lenient, dataset.manifest)
    files = _files(config, dataset, held_out, folders) if whole and folders is not None else None
    files_were = files_state(files or ())
    report = check(
        dataset,
        held_out=held_out,
        source=source_name(config),
        folders=[Path(folder) for folder in image_folders(config)],
        missing_captions=None if section.missing_captions == "error" else section.missing_captions,
        caption_lines=section.caption_lines,
        caption_suffix=section.caption_suffix,
        exclude=parse_exclude(section.exclude),
        deep=deep,
        encodings=_own_encodings(config),
        track=track,
        refetch=fresh,
        **options,
    )
    # Not cached with a broken package: no file of the key changes when it is fixed.
    broken = any(found.kind == "broken_package" for found in report.findings)
    if folders is not None and files is not None and not broken:
        save_report(
            _CACHE,
            key,
            report.to_json(),
            folders=folders,
            folders_were=folders_were,
            files=files,
            files_were=files_were,
        )
    return report


def _model_packages() -> list[str]:
    """Return the installed packages with model families, part of the cache key."""
    points = metadata.entry_points(group=ENTRY_POINTS)
    return sorted(f"{point.dist and point.dist.version} {point.value}" for point in points)


def _nothing(source: str, error: ManifestError, ledger: Ledger) -> Report:
    """Return the report on data without a usable row."""
    rows = [finding(entry.kind if entry.kind in KINDS else "bad_row", entry.id, entry.reason) for entry in ledger]
    return Report(
        source=source,
        root=str(Path(source).expanduser().absolute().parent),
        model=None,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        images=0,
        held_out=0,
        deep=False,
        findings=(finding("bad_data", "", str(error)), *rows),
        captions=None,
        tokens=(),
        plan=None,
        cost=(),
        not_checked=("everything else: there is no row to look at",),
    )


def _files(
    config: Config, dataset: TextToImageDataset, held_out: Manifest | None, folders: Sequence[str]
) -> tuple[str, ...] | None:
    """Return the other files that the report depends on, including the model's; None if any is remote."""
    refs = [*dataset.manifest.refs(), *(held_out.refs() if held_out is not None else ())]
    used: list[Path] = []
    transform = dataset.model_transform
    for field in transform.fields if isinstance(transform, TokenTransform) else ():
        home = Path(field.tokenizer.name)
        used += home.iterdir() if home.is_dir() else [home]
    used += [] if (pipeline := _pipeline(config)) is None else pipeline.glob("*/config.json")
    return input_files(config, refs, folders, more=used)


def _pipeline(config: Config) -> Path | None:
    """Return the folder of a local pipeline that the config names as its model."""
    folder = Path(config.any_model or "").expanduser()
    return folder if config.any_model and folder.is_dir() else None


def _own_encodings(config: Config) -> EncodingSpec | None:
    """Return the sizes and costs of a local pipeline's own encoders, which may be smaller than its model's."""
    from calotype.encodings.frozen import FrozenModels

    folder = _pipeline(config)
    try:
        return None if folder is None else FrozenModels(folder).encoding_spec
    except ConfigError:  # a component is left out there; `calotype encode` says so
        return None


def _recalled(key: str) -> Report | None:
    known = load_report(_CACHE, key)
    try:
        return None if known is None else Report.from_json(known)
    except (ValueError, KeyError, TypeError):
        return None  # damaged: the check runs again


def _dataset(config: Config, ledger: Ledger) -> tuple[TextToImageDataset, bool]:
    """Return the dataset, and whether it is complete: it is built without tokenizers if the hub can't provide them."""
    from calotype.data.build import build_dataset

    try:
        return build_dataset(config, ledger=ledger), True
    except MissingTokenizerError as error:
        if config.any_tokenizers:
            raise  # the configured path is wrong
        said = str(error).rstrip(".")
        logger.warning("%s. Continuing without them: caption lengths in tokens are not checked.", said)
        return build_dataset(config.without_tokens(), ledger=ledger), False


def _other_side(config: Config, read: Manifest) -> Manifest | None:
    """Return the images of the validation set: a held-out share or another split; None if there is none."""
    from calotype.data.build import build_dataset
    from calotype.manifest.folders.named_splits import DEFAULT_SPLIT_NOTE

    section = config.our_dataset()
    taken = any(note.startswith(DEFAULT_SPLIT_NOTE) for note in read.describe()["notes"])
    if not section.validation and section.split is None and not taken:
        return None
    other = "train" if section.split in ("validation", "valid", "val") else "validation"
    try:
        # Without the model: only the images are compared, and no tokenizer is loaded again.
        return build_dataset(config.without_model().side(other).with_dataset(missing_captions="empty")).manifest
    except (ManifestError, ConfigError):
        return None  # no other split; the report lists this under `not_checked`
