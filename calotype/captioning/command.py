"""`run` implements `calotype caption`; `caption_lints` checks the captions afterwards."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from calotype.captioning.backend import CaptionBackend, open_backend
from calotype.captioning.job import CaptionJob
from calotype.captioning.local_engine import caption_locally, dry_run_job
from calotype.captioning.modes import check_mode
from calotype.captioning.prepare_image import MAX_PIXELS
from calotype.captioning.presets import load_preset
from calotype.captioning.prompts import check_class_word, plan_variants
from calotype.captioning.report import CaptionReport
from calotype.captioning.sampling import VARIED
from calotype.config import Config
from calotype.config.caption_transform import CaptionTransformConfig
from calotype.editing import open_captions
from calotype.errors import ConfigError, ManifestError
from calotype.manifest.folders.named_splits import ALL
from calotype.manifest.unused_captions import unused_captions
from calotype.progress import Track, silent
from calotype.terminal import get_logger

if TYPE_CHECKING:
    from calotype.check.report import Finding
    from calotype.data.dataset import TextToImageDataset

__all__ = ["caption_lints", "run"]

logger = get_logger("calotype")

_PLACEHOLDER_NOTE: Final[dict[str, Any]] = {"level": "note", "advice": "train with caption_transform.trigger=WORD"}
"""Placeholders without a trigger are an error in training, but expected right after captioning."""

_KEYS: Final = ("dataset",)
_ROW_FILTERS: Final = ("data_files", "validation")
"""Options that select rows; all rows are captioned."""


def run(
    config: Config | Mapping[str, Any],
    *,
    backend: str | CaptionBackend = "http",
    presets: Sequence[str | Path] = ("descriptive",),
    n: int | None = None,
    mode: str = "fill",
    class_word: str | None = None,
    seed: int = 0,
    force: bool = False,
    retry_failed: bool = False,
    sidecars: bool = False,
    pixels: int = MAX_PIXELS,
    only: Collection[str] | None = None,
    dry_run: int | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    track: Track = silent,
    stop: threading.Event | None = None,
    **options: Any,
) -> CaptionReport:
    """Generate captions and write them to the dataset's own files: `metadata.jsonl`, `.txt` files, or a data file.

    Every result is appended to a ledger, `.calotype/captions` in the dataset's folder. After any end of a run, the same
    call resumes it: prompts that have a result do not run again.

    Args:
        config: The result of `load_config`; its dataset is a folder of images, or data files.
        backend: A name for `open_backend`, or an open backend.
        presets: Names or files, as for `load_preset`.
        n: Captions per image. Default: one per preset. With more, presets are used in turn, and the default temperature
            is 0.7.
        mode: `fill` captions images without captions; `add` appends to existing captions; `replace` replaces
            them, unless a person wrote them.
        class_word: Class of the subject (`man`, `teapot`), for presets with `{class_word}`.
        seed: Seed of the sampling, at a temperature above 0.
        force: With `replace`, also replace captions that a person wrote.
        retry_failed: Retry what failed in earlier runs.
        sidecars: Also write `.txt` files beside the images of a folder.
        pixels: Larger images are downscaled to this number of pixels.
        only: Ids of the rows to caption. Default: all.
        dry_run: Caption only this many images, return them as `examples`, and write nothing.
        engine: `local` runs in this process, `ray` on a cluster.
        address: Address of the cluster. Default: `$RAY_ADDRESS`, else one is started.
        track: Shows the progress.
        stop: Ends the run early when it is set.
        **options: Options of the backend: `model`, `url`, `max_tokens`, `temperature`, …

    Raises:
        ConfigError: An option is wrong or has no effect, or the backend has no such option.
        CaptionError: The backend can't be reached or used. Earlier results are kept.
        EditError: The format of the data is read-only; names the command that converts it.
        ManifestError: The data can't be read.
    """
    # Check the options.
    chosen = [load_preset(preset) for preset in presets]
    variants = plan_variants(chosen, n, seed)
    check_class_word(chosen, class_word)
    _check_effects(
        {
            "force": (force and mode != "replace", f"with mode {mode}; it is for mode replace"),
            "sidecars": (sidecars and dry_run is not None, "in a dry run, which writes nothing"),
            "engine": (engine == "ray" and dry_run is not None, "in a dry run, which captions in this process"),
            "address": (address is not None and engine != "ray", "with engine local; it is for engine ray"),
            ", ".join(options): (bool(options) and not isinstance(backend, str), "on a backend that is open already"),
        }
    )
    # Open the dataset and its captions.
    config = Config.parse(config, only=_KEYS)
    section = config.our_dataset("captioned")
    if section.origin is None:
        raise ConfigError("dataset: path is missing: give a folder of images or a data file")
    captions = open_captions(section.origin, **section.caption_place())
    if sidecars and not captions.takes_sidecars:
        raise ConfigError("sidecars: .txt files are written beside the images of a folder, and this is a data file")
    dataset = _plain_dataset(config)
    for message in unused_captions(dataset.manifest):
        logger.warning("%s", message)
    job = CaptionJob(
        captions=captions,
        manifest=dataset.manifest,
        reader=dataset.reader,
        presets=chosen,
        count=n,
        mode=check_mode(mode),
        class_word=class_word,
        seed=seed,
        force=force,
        retry_failed=retry_failed,
        sidecars=sidecars,
        only=None if only is None else frozenset(only),
        pixels=pixels,
    )
    # Run on the cluster or in this process.
    if len(variants) > len(chosen) and isinstance(backend, str) and options.get("temperature") is None:
        options["temperature"] = VARIED
    if engine not in ("local", "ray"):
        raise ConfigError(f"engine: found {engine!r}, expected local or ray")
    if engine == "ray":
        return _on_cluster(job, backend, options, address=address, track=track, stop=stop)
    if not isinstance(backend, str):
        return _run(job, backend, dry_run, track, stop)
    with closing(open_backend(backend, **options)) as opened:
        return _run(job, opened, dry_run, track, stop)


def _check_effects(rules: Mapping[str, tuple[bool, str]]) -> None:
    """Check that every option has an effect.

    Args:
        rules: Option → (whether it is set without effect, the reason as the text after "has no effect").

    Raises:
        ConfigError: An option has none.
    """
    for name, (idle, why) in rules.items():
        if idle:
            raise ConfigError(f"{name}: has no effect {why}; leave it out")


def _run(
    job: CaptionJob, backend: CaptionBackend, dry_run: int | None, track: Track, stop: threading.Event | None
) -> CaptionReport:
    if dry_run is not None:
        return dry_run_job(job, backend, dry_run)
    return caption_locally(job, backend, track=track, stop=stop)


def _on_cluster(
    job: CaptionJob,
    backend: str | CaptionBackend,
    options: Mapping[str, Any],
    *,
    address: str | None,
    track: Track,
    stop: threading.Event | None,
) -> CaptionReport:
    if not isinstance(backend, str):
        raise ConfigError(f"engine: ray opens a backend on each machine by its name; found {backend!r}")
    from calotype.captioning.ray_engine import caption_on_cluster

    return caption_on_cluster(job, backend, options, address=address, track=track, stop=stop)


def caption_lints(config: Config | Mapping[str, Any], *, trigger: str | None = None) -> tuple[Finding, ...]:
    """Return the findings of `calotype check` about the captions.

    Args:
        config: The result of `load_config`.
        trigger: The trigger of the training, if the config has none.
    """
    from calotype.check.captions import caption_findings

    _, findings = caption_findings(_plain_dataset(Config.parse(config, only=_KEYS), trigger=trigger))
    return tuple(replace(one, **_PLACEHOLDER_NOTE) if one.kind == "placeholder" else one for one in findings)


def _plain_dataset(config: Config, *, trigger: str | None = None) -> TextToImageDataset:
    """Return the dataset without a model; bad rows are skipped, since `calotype check` reports them."""
    from calotype.data.build import build_dataset

    options: dict[str, Any] = {"missing_captions": "empty", "on_error": "skip", "split": ALL}
    options |= dict.fromkeys(_ROW_FILTERS)
    if trigger is not None:
        captions = config.our_dataset().caption_transform
        known = captions if isinstance(captions, CaptionTransformConfig) else CaptionTransformConfig()
        options["caption_transform"] = known.updated(trigger=trigger)
    try:
        return build_dataset(config.without_model().with_dataset(**options))
    except ManifestError as error:
        raise ManifestError(f"{error}; nothing can be captioned") from error
