"""`bench_config`: measure each strategy with a config's dataset and model on this machine, one process at a time."""

from __future__ import annotations

import importlib.util
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from calotype.bench.laps import WARM_UP
from calotype.bench.report import BenchReport, BenchRow, break_even, recommend
from calotype.bench.strategies import Strategy, choose, settings
from calotype.bench.task import SERVER, Encoded, Measured, Refused, Task, perform
from calotype.config import Config
from calotype.config.inputs import data_folder_around
from calotype.config.loader import LoaderConfig
from calotype.config.train import TrainConfig
from calotype.core.cache_folder import cache_folder
from calotype.encodings.build import build_encode_job
from calotype.errors import ConfigError, MissingDependencyError
from calotype.loader.build import make_loader
from calotype.progress import Track, silent
from calotype.train.run_folder import sole_run

__all__ = ["bench_config"]

_SCRATCH: Final = "calotype-bench-"
_LOCK: Final = ".lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """The measured rows, and facts about the dataset."""

    rows: tuple[int, ...]
    """The dataset's rows of the first batches, so that buckets are as full as in training."""
    pictures: int
    samples: int
    batch_size: int
    remote: bool
    fixed_geometry: bool
    model: str

    @property
    def scale(self) -> float:
        """Ratio of the dataset's images to the measured ones."""
        return self.pictures / len(self.rows)


def bench_config(
    config: Config | Mapping[str, Any],
    *,
    strategies: Sequence[str] | None = None,
    steps: int = 10,
    track: Track = silent,
    tell: Callable[[str], None] = lambda text: None,
) -> BenchReport:
    """Run short trainings with each strategy, and recommend one.

    Args:
        config: What `load_config` returned. Its own caches are not used; a bench deletes the files it writes.
        strategies: Names of the strategies to measure; None is all.
        steps: Most timed batches of each strategy, after an epoch over as many images; fewer where they take 5 s.
        track: Shows the progress.
        tell: Called with what is measured next.

    Raises:
        ConfigError: The config is wrong, the model's family is not supported, or a named strategy does not exist or has
            no effect with the config.
        MissingDependencyError: accelerate, diffusers or peft is not installed.
        CalotypeError: A strategy's process exited without a result.
    """
    # Check the arguments.
    chosen = choose(strategies)
    if steps < 1:
        raise ConfigError(f"steps: found {steps}, expected 1 or more")
    if importlib.util.find_spec("accelerate") is None:
        raise MissingDependencyError("accelerate", extra="train", purpose="to take training steps")
    config = Config.parse(config)
    options = config.train or TrainConfig()
    device = config.loader_device or ("cuda" if torch.cuda.is_available() else "cpu")
    with _scratch(config) as scratch, closing(SERVER):
        # Choose the rows to measure.
        with track("reading the data and the model's configuration"):
            plan = _plan(settings(config, choose(["none"])[0], str(scratch)), options, steps)
        for one in chosen:
            if strategies is not None and (reason := _why_no_effect(one, plan)) is not None:
                raise ConfigError(f"strategies: {one.name} has no effect with this config: {reason}; leave it out")

        # Encode the rows once, then train with each strategy.
        encoded = any(one.encoded_before for one in chosen)
        total, done = len(chosen) + encoded, 0
        outcomes: dict[str, Measured | str] = {}
        took: Encoded | None = None
        with track("measuring", unit="strategies") as show:
            if encoded:
                tell(f"1 of {total}: encoding the images")
                first = next(one for one in chosen if one.encoded_before)
                try:
                    took = Encoded(**perform(_task(config, first, plan, scratch, device, steps, encode=True), scratch))
                except Refused as refused:
                    outcomes |= {one.name: str(refused) for one in chosen if one.encoded_before}
                show(done := done + 1, total)
            for one in chosen:
                if (reason := _why_no_effect(one, plan)) is not None:
                    outcomes[one.name] = reason
                elif one.name not in outcomes:
                    tell(f"{done + 1} of {total}: training with {one.title}")
                    try:
                        task = _task(config, one, plan, scratch, device, steps, encode=False)
                        outcomes[one.name] = Measured(**perform(task, scratch))
                    except Refused as refused:
                        outcomes[one.name] = str(refused)
                show(done := done + 1, total)
        rows = [_row(one, outcomes[one.name], took, plan, scratch, device) for one in chosen]

    # Compare with no cache, and recommend.
    nothing = rows[0]
    rows = [replace(row, break_even_epochs=break_even(row, nothing)) if row is not nothing else row for row in rows]
    batches = options.max_steps * options.gradient_accumulation_steps
    epochs = max(1, math.ceil(batches * plan.batch_size / plan.samples))
    return BenchReport(
        model=plan.model,
        pictures=plan.pictures,
        samples=plan.samples,
        measured_pictures=len(plan.rows),
        batch_size=plan.batch_size,
        steps=steps,
        epochs=epochs,
        device=device,
        machine=_machine(device),
        rows=tuple(rows),
        recommendation=recommend(rows, epochs, host_room=_host_room(), device_room=_device_room(device)),
    )


def _plan(config: Config, options: TrainConfig, steps: int) -> _Plan:
    """Check the config, and choose the rows to measure."""
    from calotype.train.preflight import check_data, check_model  # needs accelerate

    job = build_encode_job(config, network=True)
    network = check_model(job.models, options)
    check_data(job.dataset, network, options, job.models.spec)
    loader = make_loader(config.loader or LoaderConfig(), job.dataset, device="cpu")
    epoch = loader.plan.epoch(0)
    batches = range(min(len(epoch), WARM_UP + steps))
    rows = tuple(sorted({key.index for step in batches for key in epoch[step]}))
    usable = loader.plan.buckets >= 0
    return _Plan(
        rows=rows,
        pictures=int(usable.sum()),
        samples=max(1, round(float(job.dataset.manifest.weights()[usable].sum()))),
        batch_size=loader.plan.batch_size,
        remote=any(ref.url is not None for ref in job.dataset.manifest.refs(rows)),
        fixed_geometry=job.dataset.img_transform.fixed_geometry,
        model=job.models.spec.name,
    )


def _task(
    config: Config, strategy: Strategy, plan: _Plan, scratch: Path, device: str, steps: int, *, encode: bool
) -> Task:
    return Task(
        config=settings(config, strategy, str(scratch)).to_mapping(),
        encode=encode,
        online=strategy.encodings is None,
        rows=plan.rows,
        steps=steps,
        device=device,
        output=str(scratch / "output"),
    )


def _why_no_effect(strategy: Strategy, plan: _Plan) -> str | None:
    """Return why a strategy has no effect with the config; None if it has one."""
    if strategy.remote and not plan.remote:
        return "no image comes from a URL"
    if strategy.fixed_geometry and not plan.fixed_geometry:
        return "the crop is sampled anew each epoch, and only cropped images are cached there"
    return None


def _row(
    strategy: Strategy, outcome: Measured | str, took: Encoded | None, plan: _Plan, scratch: Path, device: str
) -> BenchRow:
    """Return the report's row of a strategy, with figures extrapolated to the whole dataset."""
    if isinstance(outcome, str):
        return BenchRow(strategy=strategy.name, title=strategy.title, config=strategy.config, refused=outcome)
    further = plan.pictures - len(plan.rows)
    kept, disk, prepare = outcome.kept_bytes, 0, 0.0
    notes: list[str] = []
    if strategy.encoded_before and took is not None:
        disk = round(took.bytes * plan.scale)
        prepare = took.first_seconds + took.picture_seconds * (plan.pictures - 1)
        kept = took.bytes // len(plan.rows) if strategy.name != "encodings" else 0
    elif strategy.name in ("downloads", "on_the_fly"):
        disk = round(_folder_bytes(scratch / strategy.name) * plan.scale)
    on_gpu = bool(strategy.loader.get("device_cache")) and outcome.device_bytes is not None
    if strategy.loader.get("device_cache") and outcome.device_bytes is None:
        notes.append("no GPU here: the device is the CPU")
    more_host, more_device = (0, kept * further) if on_gpu else (kept * further, 0)
    return BenchRow(
        strategy=strategy.name,
        title=strategy.title,
        config=strategy.config,
        images_per_second=1.0 / outcome.pace,
        data_wait=outcome.data_wait,
        host_bytes=None if outcome.host_bytes is None else outcome.host_bytes + more_host,
        device_bytes=None if outcome.device_bytes is None else outcome.device_bytes + more_device,
        disk_bytes=disk,
        prepare_seconds=prepare,
        first_epoch_seconds=(outcome.pace if strategy.encoded_before else outcome.first_pace) * plan.samples,
        epoch_seconds=outcome.pace * plan.samples,
        notes=tuple(notes),
    )


@contextmanager
def _scratch(config: Config) -> Iterator[Path]:
    """Yield a temporary folder on the encodings' disk, outside the data; delete those of killed benches."""
    store = config.encodings.store if config.encodings is not None else None
    parent = Path(store).expanduser().parent if store else cache_folder("bench")
    if data_folder_around(config, parent) is not None:
        parent = cache_folder("bench")
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"bench: {parent} can't be made ({error.strerror}); "
            "set encodings.store to a folder on a disk with free space"
        ) from None
    for lock in parent.glob(f"{_SCRATCH}*/{_LOCK}"):
        with suppress(ConfigError), sole_run(lock, lock.parent) as held:  # raises while its bench is running
            if held:
                shutil.rmtree(lock.parent, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=_SCRATCH, ignore_cleanup_errors=True) as folder:
        scratch = Path(folder).absolute()
        with sole_run(scratch / _LOCK, scratch):
            yield scratch


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _machine(device: str) -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f"{torch.cuda.get_device_name(device)}, " if torch.device(device).type == "cuda" else ""
    return f"{gpu}{cores} cores, {platform.system()} {platform.machine()}, torch {torch.__version__}"


def _host_room() -> int | None:
    """Return the machine's memory in bytes; None if the system does not report it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _device_room(device: str) -> int | None:
    """Return the GPU's memory in bytes; None for another device."""
    return torch.cuda.mem_get_info(device)[1] if torch.device(device).type == "cuda" else None
