"""The training loop: LoRA or full fine-tuning of a pipeline's transformer or U-Net over encodings.

Read `train` from top to bottom; it calls diffusers' network, peft's adapters and accelerate's backward pass, and
its batches come from a `Loader`. Noise and times follow from (seed, number of the batch, rank), so a run that was
interrupted and resumed computes what the uninterrupted one would have.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from calotype.config.train import TrainConfig
from calotype.data.dataset import TextToImageDataset
from calotype.encodings.dataset import EncodedDataset
from calotype.encodings.frozen import FrozenModels
from calotype.errors import ConfigError, MissingDependencyError
from calotype.ledger import Ledger, LedgerEntry
from calotype.loader import Loader
from calotype.models import flow
from calotype.train import checkpoint
from calotype.train.average import Average
from calotype.train.guard import MOST_UNSETTLED, Guard, check_weights, guarded_adamw
from calotype.train.identity import Identity
from calotype.train.interrupt import Interrupted, StopRequest
from calotype.train.lora import left_out, make_trainable, publish_result, save_result, trained
from calotype.train.networks import embeds_guidance, load_network, load_objective, network_of
from calotype.train.ranks import AnyRank, decided_once
from calotype.train.report import Clock, Progress, TrainReport
from calotype.train.room import check_run_room, tensor_bytes
from calotype.train.run_ledger import count_notes
from calotype.train.samples import Sampler, fill_prompts
from calotype.train.schedule import adopt_schedule, is_due, make_schedule, saves_left
from calotype.train.skipped import report_skipped
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
    ledger: Ledger | None = None,
    stop: StopRequest | None = None,
    show: Callable[[Progress], None] = lambda progress: None,
    tell: Callable[[str], None] = lambda text: None,
) -> TrainReport:
    """Trains until `options.max_steps`; leaves the LoRA or the whole network in `options.output_dir`.

    Args:
        accelerator: From `make_accelerator`, before the loaders: they take their rank from what it sets up.
        loader: Gives `latents` and the texts of the model's family, on the accelerator's device. Its seed is the run's.
        models: The frozen models: they say which pipeline it is, and make the samples' prompts and images.
        options: How to train.
        found: The checkpoint to go on from.
        identity: What the run is computed from beside its options, for its checkpoints; the main process's.
        validation: Of the held-out side.
        ledger: The loaders', which the report counts.
        stop: Looked at between steps; where it is asked on any rank, all save a checkpoint and end.
        show: Called every `log_every` steps, on the main process.
        tell: Likewise with what else there is to say.

    Raises:
        ConfigError: The model is of a family that is not trained here; an option does not fit it; `found` is of another
            run; the disk has no room.
        Interrupted: `stop` was asked.
        MissingDependencyError: peft or a tracker is not installed.
        NotFiniteError: Losses, gradients or weights are NaN or inf, and stay so.
    """
    stop = stop or StopRequest()
    say = tell if accelerator.is_main_process else lambda text: None
    output, seed = Path(options.output_dir).expanduser(), loader.plan.seed
    network = network_of(models.spec)

    # The texts of the samples come first: then the text encoders have left before the network comes.
    dataset = loader.dataset
    store = dataset.store if isinstance(dataset, EncodedDataset) else None
    pixels = dataset.dataset if isinstance(dataset, EncodedDataset) else dataset
    trigger = pixels.caption_transform.trigger if isinstance(pixels, TextToImageDataset) else None
    wanted = fill_prompts(options.sample_prompts, trigger)

    def failed(entry: LedgerEntry) -> None:
        loader.ledger.append(entry)
        say(f"note: {entry.reason}")

    sampler = Sampler(models, wanted, options, store=store, note=failed) if accelerator.is_main_process else None

    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    weights = load_network(models, dtype)
    start = read_start(options, weights, models.spec)
    make_trainable(weights, models.spec, options, seed=seed, start=start)
    if start is not None and found is None:
        say(start.note)
    if options.method == "lora" and options.lora_targets is None and start is None and (note := left_out(weights)):
        say(note)
    taken = torch.float32 if options.method == "full" else dtype  # of the network's input: its weights' own
    objective = load_objective(models)
    guidance = options.guidance if embeds_guidance(models) else None

    parameters = trained(weights)
    adamw = guarded_adamw(parameters.values(), lr=options.learning_rate, weight_decay=options.weight_decay)
    optimizer: Any = adamw
    schedule = make_schedule("diffusers.optimization", options, optimizer, section="train")
    model = accelerator.prepare_model(weights)
    optimizer = accelerator.prepare_optimizer(optimizer)
    average = Average(parameters.values(), decay=options.ema_decay) if options.ema_decay is not None else None
    parts = {"optimizer": optimizer, "schedule": schedule, "average": average}
    step = 0
    if found is not None:
        found.restore(parameters, **parts)
        if note := adopt_schedule(schedule, options, found.options):
            say(note)
        loader.load_state_dict(found.loader)
        step = found.step
        check_weights(parameters, where=found.folder, advice="delete it to go on from the one before")
        for sentence in found.damaged:
            say(sentence)
        say(f"Resuming from step {step}: {found.folder}")

    def batch_loss(batch: Mapping[str, Any], noise: Tensor, times: Tensor) -> Tensor:
        """The loss of each image (B,)."""
        latents = batch["latents"].float()
        texts = {field.key: batch[field.key].to(taken) for field in models.family.texts}
        texts |= {key: batch[key] for key in network.conditioning}
        x_t = objective.noised(latents, noise, times)
        answer = network.predict(model, x_t.to(taken), objective.told(times), texts, guidance)
        return flow.loss(answer, objective.target(latents, noise, times))

    guard = Guard(adamw, step=step)

    averaged = average.applied if average is not None else nullcontext
    saved: tuple[int, Path] | None = None
    result_bytes = tensor_bytes(parameters)
    decided_once(
        accelerator,
        lambda: check_run_room(
            output,
            trained=result_bytes,
            average=average is not None,
            result=result_bytes,
            in_checkpoint=options.method == "lora",
            saves=saves_left(step, options.max_steps, options.checkpoint_every),
            keep=options.keep_checkpoints,
        ),
    )
    any_rank = AnyRank(accelerator)

    def save() -> None:
        nonlocal saved

        def result(folder: Path) -> None:
            if identity is not None:
                identity.write(folder, models)
            if options.method == "lora":  # a whole network is in the checkpoint already
                with averaged():
                    save_result(weights, models, options, folder)

        check_weights(parameters, where=f"train: step {step}", advice="it was not saved; older checkpoints are kept")
        path = decided_once(
            accelerator,
            lambda: checkpoint.save(
                output / "checkpoints",
                step=step,
                trained=parameters,
                parts=parts,
                loader=loader.state_dict(),
                options=options,
                result=result,
                result_bytes=result_bytes if options.method == "lora" else 0,
            ),
        )
        saved = step, path

    def asked() -> bool:
        return any_rank(stop.asked)

    def end_if_asked() -> None:
        """Saves and ends the run where a signal came to one of the ranks."""
        if asked():
            if saved is None or saved[0] != step:
                save()
            assert saved is not None
            raise Interrupted(stop.number or signal.SIGTERM, step=step, checkpoint=saved[1])

    def validate() -> None:
        assert validation is not None
        with averaged(), torch.no_grad():
            value = validation_loss(accelerator, validation, batch_loss, seed=seed, given_up=asked)
        if value is not None:
            validations.append((step, value))
            trackers.log({"validation_loss": value}, step=step)
            say(f"step {step}  validation loss {value:.4f}")

    def sample() -> list[Path]:
        made: list[Path] = []
        if sampler is not None:
            height, width = options.sample_size or _common_size(loader, models)
            target = output / "samples" / f"step-{step:08d}"
            with averaged():
                made = sampler.make(
                    weights, size=(height, width), seed=seed, target=target, given_up=lambda: stop.asked
                )
            if made:
                say(f"step {step}  samples: {', '.join(map(str, made))}")
        accelerator.wait_for_everyone()
        return made

    trackers = Trackers(accelerator, {k: str(value) for k, value in options.model_dump().items()}, note=failed)
    losses: list[tuple[int, float]] = []
    validations: list[tuple[int, float]] = []
    samples: list[Path] = []
    if validation is not None and step == 0:
        validate()
    batches = _endless(loader)
    batch_size = loader.plan.batch_size
    if note := _short_batches(loader, options):
        say(note)
    clock = Clock()
    summed = torch.zeros(2, device=accelerator.device)  # loss × weight and weight, of the steps since `shown`
    shown = step
    model.train()
    stop.defer()  # before this there is nothing to save
    while step < options.max_steps:
        clock.start()
        of_step = torch.zeros(2, device=accelerator.device)
        for part in range(options.gradient_accumulation_steps):
            since = time.perf_counter()
            batch = next(batches)
            latents = batch["latents"]
            clock.got_batch(since, len(latents) * accelerator.num_processes)
            number = step * options.gradient_accumulation_steps + part
            noise, rng = flow.draw_noise(
                tuple(latents.shape), (seed, number, accelerator.process_index), device=latents.device
            )
            tokens = (latents.shape[-2] // network.patch) * (latents.shape[-1] // network.patch)
            times = objective.draw_times(len(latents), tokens, rng=rng).to(latents.device)
            with accelerator.accumulate(model):
                # A short batch's mean counts by its images, so that each image of an epoch pulls alike.
                weight = len(latents) / batch_size if options.loss_average == "image" else 1.0
                loss = guard.loss(batch_loss(batch, noise, times), loader.given) * weight
                accelerator.backward(loss)
                of_step += torch.stack([loss.detach(), torch.full_like(loss, weight)])
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(parameters.values(), options.max_grad_norm or math.inf)
                    skip = guard.decide(norm)
                    summed += torch.where(skip > 0, 0.0, of_step)
                optimizer.step()
                optimizer.zero_grad()
        schedule.step()
        if average is not None:
            average.step()
        step += 1
        last = step == options.max_steps
        if step % options.log_every == 0 or last:
            mean = accelerator.reduce(summed[0] / summed[1], reduction="mean").item()  # waits for the device
            losses.append((step, mean))
            summed.zero_()
            shown = step
        due = is_due(step, options.checkpoint_every)
        if shown == step or due or guard.unsettled >= MOST_UNSETTLED:
            report_skipped(accelerator, guard, loader, checkpoints=output / "checkpoints", say=say)
        clock.end()
        if shown == step:
            progress = clock.progress(step, options.max_steps, loss=losses[-1][1], lr=schedule.get_last_lr()[0])
            logged = {"loss": progress.loss, "lr": progress.lr, "images_per_second": progress.images_per_second}
            trackers.log(logged | {"data_wait": progress.data_wait}, step=step)
            if accelerator.is_main_process:
                show(progress)
        if last or due:
            save()
        end_if_asked()
        if validation is not None and (last or is_due(step, options.validation_every)):
            validate()
            end_if_asked()
        if options.sample_prompts and (last or is_due(step, options.sample_every)):
            samples = sample()
            end_if_asked()

    def publish() -> Path:
        with averaged():
            return publish_result(weights, models, options, output)

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
    """The run's accelerator; under `torchrun` or `accelerate launch` it joins the other ranks.

    Args:
        options: Mixed precision, accumulation, trackers.
        device: `cpu` stays off a GPU that is there; anything else is accelerate's choice.

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
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    output = Path(options.output_dir).expanduser()
    return Accelerator(
        cpu=on_cpu,
        mixed_precision=options.mixed_precision or ("no" if on_cpu else "bf16"),
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        log_with=list(options.trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(output), logging_dir=str(output / "logs")),
        step_scheduler_with_optimizer=False,
    )


def _short_batches(loader: Loader, options: TrainConfig) -> str | None:
    """What the images of an epoch's short batches count; None where all batches are full."""
    epoch, size = loader.plan.epoch(loader.epoch), loader.plan.batch_size
    count, smallest = epoch.short()
    if not count:
        return None
    found = f"note: {count} of an epoch's {len(epoch)} batches are short, the smallest of {smallest} instead of {size}"
    if options.loss_average == "image":
        return f"{found}: its loss is multiplied by {smallest / size:.2g}, so images count alike (loss_average: image)"
    return f"{found}: its images count {size / smallest:.2g} times as much as others (loss_average: batch)"


def _endless(loader: Loader) -> Iterator[Batch]:
    while True:
        yield from loader


def _common_size(loader: Loader, models: FrozenModels) -> Sequence[int]:
    """(height, width) of the bucket with the most images."""
    buckets = torch.from_numpy(loader.plan.buckets)
    size = loader.plan.sizes[int(torch.bincount(buckets[buckets >= 0]).argmax())]
    return size or (models.spec.resolution,) * 2
