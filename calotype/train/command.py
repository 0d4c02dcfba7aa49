"""`run`: the implementation of `calotype train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from calotype.config import Config
from calotype.config.combinations import unused_in_training
from calotype.config.inputs import check_outside
from calotype.config.output_dir import default_output
from calotype.config.train import TrainConfig
from calotype.errors import ConfigError, MissingDependencyError
from calotype.ledger import LedgerEntry
from calotype.models.registry import get_spec
from calotype.progress import is_first_rank
from calotype.train.interrupt import StopRequest
from calotype.train.networks import network_of
from calotype.train.outline import outline, outline_of_rows, training_rows
from calotype.train.run_folder import LOCK, RUN_FOLDERS, check_old_default, check_start, sole_run

if TYPE_CHECKING:
    from calotype.train.report import Progress, TrainReport

__all__ = ["run"]

_USED: Final = ("dataset", "encodings", "loader", "model", "tokenizer", "tokenizers", "train")


def run(
    config: Config | Mapping[str, Any],
    *,
    name: str | None = None,
    resume: bool = False,
    changed_dataset: bool = False,
    stop: StopRequest | None = None,
    show: Callable[[Progress], None] = lambda progress: None,
    step_done: Callable[[int, int], None] = lambda step, max_steps: None,
    tell: Callable[[str], None] = lambda text: None,
) -> TrainReport:
    """Train by a config's `train` section, on its dataset through its `encodings`.

    Args:
        config: What `load_config` returned.
        name: Name of the config's file without its extension; the default `output_dir` is named after it, or after the
            dataset.
        resume: Resume from the last checkpoint, if there is one.
        changed_dataset: Resume with the dataset as it is now, from the beginning of an epoch, where images or captions
            were added, removed or changed.
        stop: A stop request, for a caller that handles signals itself. By default Ctrl-C, SIGTERM and SIGHUP end the
            run after the current step with a checkpoint, in Python's main thread.
        show: Called every `log_every` steps, on the main process.
        step_done: Called before the first step and after each, with (finished steps, `max_steps`), on the main process.
        tell: Called with each further message, on the main process.

    Raises:
        ConfigError: The config is wrong, or the model's family is not supported; another run is active in `output_dir`;
            `output_dir` has checkpoints and `resume` is not set, or they are from another run; the disk is full.
        Interrupted: A signal was received; the exception has the saved checkpoint.
        MissingDependencyError: accelerate, diffusers or peft is not installed.
        RankError: Another rank has ended.
        StoreError: Something is not encoded yet, and on_the_fly is false.
    """
    # Check the options.
    config = Config.parse(config, only=_USED)
    options = config.train or TrainConfig()
    chosen = "output_dir" in options.model_fields_set
    if not chosen:
        options = options.updated(output_dir=default_output(config, name, method=options.method))
    _check_family(config)
    if changed_dataset and not resume:
        raise ConfigError("changed_dataset: has no effect without resume; leave it out, or resume")
    output = Path(options.output_dir).expanduser()
    check_outside(config, output, option="train.output_dir", writes="samples and checkpoints", own=RUN_FOLDERS)
    if resume and not chosen:
        check_old_default(output)
    start = check_start(output, resume=resume)
    if stop is not None:
        stop.checkpoints = output / "checkpoints"
    shown = tell if is_first_rank() else lambda text: None
    for line in (*outline(config, options), *([start] if start else ())):
        shown(line)
    rows = training_rows(config)
    for line in outline_of_rows(rows, config, options) if rows is not None else ():
        shown(line)
    shown("Loading PyTorch and the model's configuration …")

    try:
        from calotype.train.accelerator import compute_dtype
        from calotype.train.checkpoint import Checkpoint, to_resume
        from calotype.train.data import build_loaders, open_training
        from calotype.train.identity import Identity, resume_as
        from calotype.train.loop import make_accelerator, train
        from calotype.train.networks import embeds_guidance
        from calotype.train.plan import expected_memory, plan_lines
        from calotype.train.preflight import check_data, check_model
        from calotype.train.ranks import check_seen_by_all, decided_once, end_together
        from calotype.train.run_ledger import LEDGER_FILE, RunLedger
        from calotype.train.samples import make_sampler
        from calotype.train.start import take_rank
        from calotype.train.trackers import quiet_writers
    except ModuleNotFoundError as error:
        if error.name not in ("accelerate", "safetensors"):
            raise
        raise MissingDependencyError(error.name, extra="train", purpose="to train") from error

    # Join the other ranks.
    options = take_rank(options)
    device = config.loader_device
    accelerator = make_accelerator(options, device=device)
    if device is not None and str(device) not in (accelerator.device.type, str(accelerator.device)):
        raise ConfigError(
            f"loader.device: found {device}, and accelerate trains on {accelerator.device}; leave it out "
            "(CUDA_VISIBLE_DEVICES chooses a GPU)"
        )

    # Check model and data before anything is hashed, loaded or written.
    data = open_training(config, device=str(accelerator.device), rows=rows)
    models = data.models
    network = check_model(models, options)
    check_data(data.training, network, options, models.spec)
    memory = expected_memory(network, models, options, compute_dtype(accelerator))

    with ExitStack() as cleanup:
        stop = stop or cleanup.enter_context(StopRequest.from_signals())
        stop.checkpoints = output / "checkpoints"
        cleanup.enter_context(end_together(accelerator))
        cleanup.enter_context(quiet_writers())

        # Lock the folder, and find the checkpoint to resume from.
        def begin() -> Checkpoint | None:
            cleanup.enter_context(sole_run(output / LOCK, output))
            unused = unused_in_training(config, options, guidance=embeds_guidance(models))
            found = to_resume(output / "checkpoints", options, resume=resume, unused=unused)
            if found is None:
                RunLedger.begin(output / LEDGER_FILE)
            return found

        found = decided_once(accelerator, begin)
        if found is not None:
            check_seen_by_all(accelerator, found)

        # Build the loaders.
        ledger = RunLedger(output / LEDGER_FILE)
        loaders = build_loaders(config, data, ledger=ledger)
        loader, validation = loaders.training, loaders.validation
        cleanup.callback(loader.close)
        if validation is not None:
            cleanup.callback(validation.close)

        for line in plan_lines(loader, memory, accelerator.device) if accelerator.is_main_process else ():
            tell(line)

        # Compare weights and samples with the checkpoint's.
        identity = Identity.of(loader, loaders.encoded, models) if accelerator.is_main_process else None
        if found is not None:
            before = found

            def compared() -> tuple[Checkpoint, list[str]]:
                assert identity is not None  # on the main process
                return resume_as(before, identity, loader, changed_dataset=changed_dataset)

            found, notes = decided_once(accelerator, compared)
            for note in notes if accelerator.is_main_process else ():
                tell(note)

        # Encode the sample prompts: the text encoders are unloaded before the network is loaded.
        def note_failure(entry: LedgerEntry) -> None:
            ledger.append(entry)
            tell(f"note: {entry.reason}")

        sampler = None
        if accelerator.is_main_process:
            if options.sample_prompts:
                tell("Encoding the sample prompts …")
            sampler = make_sampler(models, loaders.encoded, options, note=note_failure)

        report = train(
            accelerator,
            loader,
            models,
            options,
            found=found,
            identity=identity,
            validation=validation,
            sampler=sampler,
            ledger=ledger,
            stop=stop,
            show=show,
            step_done=step_done,
            tell=tell,
        )
        if accelerator.is_main_process:  # all ranks have counted their entries, and append no more
            ledger.settle()
        return report


def _check_family(config: Config) -> None:
    """Refuse a model that is not trained, by its name: before its files are looked for.

    Raises:
        ConfigError: `calotype train` does not train its family.
    """
    model = config.any_model or (config.encodings.model if config.encodings is not None else None)
    if model is None or Path(model).expanduser().is_dir():
        return
    try:
        spec = get_spec(str(model))
    except ConfigError:
        return  # the name of another repository, whose index says what it is
    network_of(spec)
