"""The training loop: LoRA or full fine-tuning of a pipeline's transformer or U-Net on encodings.

Read `train` from top to bottom. It calls diffusers' network, peft's adapters and accelerate's backward pass; batches
come from a `Loader`. Noise and times follow from (seed, number of the batch, rank), so a resumed run computes what the
uninterrupted run would have.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from calotype.config.train import TrainConfig
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.on_the_fly import OnTheFlyDataset
from calotype.errors import ConfigError, MissingDependencyError
from calotype.ledger import Ledger, LedgerEntry
from calotype.loader import Loader
from calotype.models import flow
from calotype.train import checkpoint
from calotype.train.accelerator import compute_dtype, new_accelerator
from calotype.train.average import Average
from calotype.train.ending import Ending
from calotype.train.guard import MOST_UNSETTLED, Guard, check_weights, guarded_adamw, report_skipped
from calotype.train.identity import Identity
from calotype.train.interrupt import StopRequest
from calotype.train.lora import left_out, make_trainable, save_result, trained
from calotype.train.networks import embeds_guidance, load_network, load_objective, network_of
from calotype.train.publish import publish_result
from calotype.train.ranks import decided_once
from calotype.train.report import Clock, Progress, TrainReport
from calotype.train.room import check_run_room, tensor_bytes
from calotype.train.run_ledger import count_notes
from calotype.train.samples import Sampler
from calotype.train.schedule import adopt_schedule, is_due, make_schedule, saves_left
from calotype.train.start import read_start
from calotype.train.trackers import Trackers
from calotype.train.validation import validation_loss
from calotype.types import Batch

__all__ = ["make_accelerator", "train"]


def train(
    accelerator: Accelerator,
    loader: Loader,
    models: FrozenModels,
    options: TrainConfig,
    *,
    found: checkpoint.Checkpoint | None = None,
    identity: Identity | None = None,
    validation: Loader | None = None,
    sampler: Sampler | None = None,
    ledger: Ledger | None = None,
    stop: StopRequest | None = None,
    show: Callable[[Progress], None] = lambda progress: None,
    step_done: Callable[[int, int], None] = lambda step, max_steps: None,
    tell: Callable[[str], None] = lambda text: None,
) -> TrainReport:
    """Train until `options.max_steps`; write the LoRA or the whole network into `options.output_dir`.

    Args:
        accelerator: From `make_accelerator`; create it before the loaders, which take their rank from it.
        loader: Yields `latents` and the text embeddings of the model's family, on the accelerator's device. Its seed
            is the seed of the run.
        models: The frozen models of the pipeline.
        options: The `train` section.
        found: The checkpoint to resume from.
        identity: The inputs of the run besides its options, for its checkpoints; on the main process.
        validation: Loader of the held-out side.
        sampler: Makes sample images; on the main process.
        ledger: The loaders' ledger, whose entries are counted in the report.
        stop: Checked between steps; when it is set on any rank, all ranks save a checkpoint and end.
        show: Called every `log_every` steps, on the main process.
        step_done: Called before the first step and after each, with (finished steps, `max_steps`), on the main process.
        tell: Called with each further message, on the main process.

    Raises:
        ConfigError: The model's family is not trained here; an option does not fit it; `found` is of another run; the
            disk has no room.
        Interrupted: `stop` was set.
        MissingDependencyError: peft or a tracker is not installed.
        NotFiniteError: Losses, gradients or weights are NaN or inf in several steps in a row.
    """
    stop = stop or StopRequest()
    say = tell if accelerator.is_main_process else lambda text: None
    output, seed = Path(options.output_dir).expanduser(), loader.plan.seed
    network = network_of(models.spec)

    # Load the network; add adapters, or make all of it trainable.
    dtype = compute_dtype(accelerator)
    say(f"Loading the {network.component.replace('unet', 'U-Net')} …")
    weights = load_network(models, dtype)
    start = read_start(options, weights, models.spec)
    make_trainable(weights, models.spec, options, seed=seed, start=start)
    parameters = trained(weights)
    if start is not None and found is None:
        say(start.note)
    if options.method == "lora" and options.lora_targets is None and start is None and (note := left_out(weights)):
        say(note)
    input_dtype = torch.float32 if options.method == "full" else dtype  # the dtype of the network's weights
    objective = load_objective(models)
    guidance = options.guidance if embeds_guidance(models) else None

    # Make the optimizer, its schedule and the moving average.
    adamw = guarded_adamw(parameters.values(), lr=options.learning_rate, weight_decay=options.weight_decay)
    schedule = make_schedule("diffusers.optimization", options, adamw, section="train")
    model = accelerator.prepare_model(weights)
    optimizer: Any = accelerator.prepare_optimizer(adamw)
    average = Average(parameters.values(), decay=options.ema_decay) if options.ema_decay is not None else None
    averaged = average.applied if average is not None else nullcontext
    parts = {"optimizer": optimizer, "schedule": schedule, "average": average}

    # Resume.
    step = 0
    if found is not None:
        found.restore(parameters, **parts)
        check_weights(parameters, where=found.folder, advice="delete it to resume from the one before")
        loader.load_state_dict(found.loader)
        step = found.step
        for note in (adopt_schedule(schedule, options, found.options), *found.damaged):
            if note:
                say(note)
        say(f"Resuming from step {step}: {found.folder}")
    guard = Guard(adamw, step=step)

    # Check the free disk space for all that the run will write.
    result_size = tensor_bytes(parameters)
    decided_once(
        accelerator,
        lambda: check_run_room(
            output,
            trained=result_size,
            average=average is not None,
            result=result_size,
            in_checkpoint=options.method == "lora",
            saves=saves_left(step, options.max_steps, options.checkpoint_every),
            keep=options.keep_checkpoints,
        ),
    )

    def batch_loss(batch: Mapping[str, Any], noise: Tensor, times: Tensor) -> Tensor:
        """Return the loss of each image (B,), for noise (B, C, h, w) and times (B,)."""
        latents = batch["latents"].float()  # (B, C, h, w)
        texts = {field.key: batch[field.key].to(input_dtype) for field in models.family.texts}
        texts |= {key: batch[key] for key in network.conditioning}
        x_t = objective.add_noise(latents, noise, times).to(input_dtype)
        prediction = network.predict(model, x_t, objective.timesteps(times), texts, guidance)  # (B, C, h, w)
        return flow.loss(prediction, objective.target(latents, noise, times))

    def save() -> Path:

        def write_more(folder: Path) -> None:
            if identity is not None:
                identity.write(folder, models)
            if options.method == "lora":  # a checkpoint of a full fine-tune has the whole network already
                with averaged():
                    save_result(weights, models, options, folder)

        check_weights(parameters, where=f"train: step {step}", advice="it was not saved; older checkpoints are kept")
        return decided_once(
            accelerator,
            lambda: checkpoint.save(
                output / "checkpoints",
                step=step,
                trained=parameters,
                parts=parts,
                loader=loader.state_dict(),
                options=options,
                result=write_more,
                result_bytes=result_size if options.method == "lora" else 0,
            ),
        )

    ending = Ending(accelerator, stop, save)

    def validate() -> None:
        assert validation is not None
        with averaged(), torch.no_grad():
            value = validation_loss(accelerator, validation, batch_loss, seed=seed, given_up=ending.asked)
        if value is not None:
            validations.append((step, value))
            trackers.log({"validation_loss": value}, step=step)
            say(f"step {step}  validation loss {value:.4f}")

    def sample() -> None:
        if sampler is not None:
            size = options.sample_size or _common_size(loader, models)
            target = output / "samples" / f"step-{step:08d}"
            with averaged():
                made = sampler.make(
                    weights, size=(size[0], size[1]), seed=seed, target=target, given_up=lambda: stop.asked
                )
            if made:
                say(f"step {step}  samples: {', '.join(map(str, made))}")
            samples[:] = made
        accelerator.wait_for_everyone()

    def note_failure(entry: LedgerEntry) -> None:
        loader.ledger.append(entry)
        say(f"note: {entry.reason}")

    trackers = Trackers(accelerator, {k: str(value) for k, value in options.model_dump().items()}, note=note_failure)
    losses: list[tuple[int, float]] = []
    validations: list[tuple[int, float]] = []
    samples: list[Path] = []
    if validation is not None and step == 0:
        validate()
    if note := _short_batches(loader, options):
        say(note)

    if step < options.max_steps:
        say(f"Training from step {step + 1} of {options.max_steps} …")
        if accelerator.is_main_process:
            step_done(step, options.max_steps)

    # The loop. From here on a signal is recorded, and the run ends between two steps.
    batches, batch_size = _endless(loader), loader.plan.batch_size
    source = loader.dataset
    clock = Clock(source.encoding_time if isinstance(source, OnTheFlyDataset) else None)
    since_log = torch.zeros(2, device=accelerator.device)  # loss * weight, weight: of the steps that were not skipped
    model.train()
    with stop.deferred():
        while step < options.max_steps:
            clock.start()
            of_step = torch.zeros(2, device=accelerator.device)
            for part in range(options.gradient_accumulation_steps):
                # Get a batch.
                asked = time.perf_counter()
                batch = next(batches)
                latents = batch["latents"]  # (B, C, h, w)
                clock.got_batch(asked, len(latents) * accelerator.num_processes)

                # Sample noise and times.
                number = step * options.gradient_accumulation_steps + part
                key = (seed, number, accelerator.process_index)
                noise, rng = flow.sample_noise(tuple(latents.shape), key, device=latents.device)  # (B, C, h, w)
                tokens = (latents.shape[-2] // network.patch) * (latents.shape[-1] // network.patch)
                times = objective.sample_times(len(latents), tokens, rng=rng).to(latents.device)  # (B,)

                with accelerator.accumulate(model):
                    # Forward and backward. The mean of a short batch is weighted by its number of images, so that all
                    # images of an epoch have the same weight.
                    weight = len(latents) / batch_size if options.loss_average == "image" else 1.0
                    loss = guard.loss(batch_loss(batch, noise, times), loader.given) * weight
                    accelerator.backward(loss)
                    of_step += torch.stack([loss.detach(), torch.full_like(loss, weight)])

                    # Clip, and update the weights; the guard skips the update where the gradient is not finite.
                    if accelerator.sync_gradients:
                        norm = accelerator.clip_grad_norm_(parameters.values(), options.max_grad_norm or math.inf)
                        skip = guard.decide(norm)
                        since_log += torch.where(skip > 0, 0.0, of_step)
                    optimizer.step()
                    optimizer.zero_grad()
            schedule.step()
            if average is not None:
                average.step()
            step += 1
            last = step == options.max_steps
            logs, saves = last or is_due(step, options.log_every), last or is_due(step, options.checkpoint_every)

            # Reduce the loss (this waits for the device), and name the samples of skipped steps.
            if logs:
                loss_sum, weight_sum = since_log
                losses.append((step, accelerator.reduce(loss_sum / weight_sum, reduction="mean").item()))
                since_log.zero_()
            if logs or saves or guard.unsettled >= MOST_UNSETTLED:
                report_skipped(accelerator, guard, loader, checkpoints=output / "checkpoints", say=say)
            clock.end()
            if accelerator.is_main_process:
                step_done(step, options.max_steps)

            # Log, save, validate, sample; end after any of them if a signal was received.
            if logs:
                progress = clock.progress(step, options.max_steps, loss=losses[-1][1], lr=schedule.get_last_lr()[0])
                trackers.log(progress.numbers(), step=step)
                if accelerator.is_main_process:
                    show(progress)
            if saves:
                ending.save(step)
            ending.end_if_asked(step)
            if validation is not None and (last or is_due(step, options.validation_every)):
                validate()
                ending.end_if_asked(step)
            if options.sample_prompts and (last or is_due(step, options.sample_every)):
                sample()
                ending.end_if_asked(step)

    # Write the result.
    def publish() -> Path:
        with averaged():
            return publish_result(
                output, lambda folder: save_result(weights, models, options, folder), size=result_size
            )

    published = decided_once(accelerator, publish)
    trackers.finish()
    noted = count_notes(ledger) if ledger is not None else {}
    accelerator.end_training()
    return TrainReport(
        steps=step,
        skipped=guard.skipped,
        first_loss=losses[0][1] if losses else None,
        last_loss=losses[-1][1] if losses else None,
        losses=tuple(losses),
        validation=tuple(validations),
        images_per_second=clock.images_per_second,
        data_wait=clock.data_wait,
        seconds=clock.seconds,
        result=str(published),
        samples=tuple(map(str, samples)),
        ledger=noted,
        ledger_file=str(ledger.path) if ledger is not None and ledger.path is not None else None,
    )


def make_accelerator(options: TrainConfig, *, device: str | None = None) -> Accelerator:
    """Make the run's accelerator; under `torchrun` or `accelerate launch` it joins the other ranks.

    Args:
        options: The `train` section, for mixed precision, accumulation and trackers.
        device: `cpu` uses no GPU; otherwise accelerate chooses the device.

    Raises:
        ConfigError: There is no such tracker.
        MissingDependencyError: A tracker's package is not installed.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import ProjectConfiguration

    for name in options.trackers:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ConfigError(
                f"train.trackers: found {name!r}, expected names of accelerate's: {', '.join(LOGGER_TYPE_TO_CLASS)}"
            )
        if name not in map(str, get_available_trackers()):
            raise MissingDependencyError(name, extra="train", purpose=f"to log to {name} (or set train.trackers: [])")
    output = Path(options.output_dir).expanduser()
    return new_accelerator(
        device=device,
        mixed_precision=options.mixed_precision,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        log_with=list(options.trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(output), logging_dir=str(output / "logs")),
    )


def _short_batches(loader: Loader, options: TrainConfig) -> str | None:
    """Return a message on the weights of an epoch's short batches; None if all batches are full."""
    epoch, size = loader.plan.epoch(loader.epoch), loader.plan.batch_size
    count, smallest = epoch.short()
    if not count:
        return None
    found = f"note: {count} of an epoch's {len(epoch)} batches are short, the smallest of {smallest} instead of {size}"
    if options.loss_average == "image":
        factor = f"{smallest / size:.2g}"
        return f"{found}: its loss is multiplied by {factor}, so all images weigh alike (loss_average: image)"
    return f"{found}: its images weigh {size / smallest:.2g} times as much as others (loss_average: batch)"


def _endless(loader: Loader) -> Iterator[Batch]:
    while True:
        yield from loader


def _common_size(loader: Loader, models: FrozenModels) -> Sequence[int]:
    """Return the (height, width) of the bucket with the most images."""
    buckets = torch.from_numpy(loader.plan.buckets)
    size = loader.plan.sizes[int(torch.bincount(buckets[buckets >= 0]).argmax())]
    return size or (models.spec.resolution,) * 2
