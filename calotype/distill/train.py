"""The distillation loop: train a vision-language model on its teacher's captions.

Read `train` from top to bottom. It calls transformers' model, peft's adapters and accelerate's backward pass. A step
follows from (seed, number of the batch, rank), so a resumed run computes the same steps as an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from calotype.config.distill import DistillConfig
from calotype.distill.chat import IGNORED, loss_sum
from calotype.distill.lessons import Batches, Lessons
from calotype.distill.preflight import STUDENT, StudentFacts
from calotype.distill.scores import held_out_loss
from calotype.distill.student import end_tokens, load_student, make_trainable, save_student
from calotype.errors import ConfigError
from calotype.ledger import Ledger
from calotype.train import checkpoint
from calotype.train.accelerator import compute_dtype, new_accelerator
from calotype.train.ending import Ending
from calotype.train.guard import MOST_UNSETTLED, Guard, check_weights, end_after_several, guarded_adamw
from calotype.train.interrupt import StopRequest
from calotype.train.lora import trained
from calotype.train.publish import publish_result
from calotype.train.ranks import decided_once
from calotype.train.report import Clock, Progress
from calotype.train.schedule import adopt_schedule, is_due, make_schedule

__all__ = ["Trained", "make_accelerator", "train"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """The result of the loop."""

    examples: int
    """Number of captions of an epoch."""
    losses: tuple[tuple[int, float], ...]
    """(step, mean loss of the steps since the report before)."""
    validation: tuple[tuple[int, float], ...]
    """(step, loss on held-out images), during training."""
    clock: Clock


def train(
    accelerator: Accelerator,
    lessons: Lessons,
    options: DistillConfig,
    *,
    found: checkpoint.Checkpoint | None,
    facts: StudentFacts,
    result: Path,
    stop: StopRequest,
    show: Callable[[Progress], None],
    step_done: Callable[[int, int], None],
    tell: Callable[[str], None],
    ledger: Ledger,
) -> Trained:
    """Train the student until `options.max_steps`, and save it.

    Args:
        accelerator: From `make_accelerator`.
        lessons: The examples; those held out are for the validation loss during training.
        options: The `distill` section.
        found: The checkpoint to resume from.
        facts: The student's facts, from `check_student`.
        result: The folder that the student is saved to.
        stop: Checked between steps; when it is set on any rank, all ranks save a checkpoint and end.
        show: Called every `log_every` steps, on the main process.
        step_done: Called before the first step and after each, with (finished steps, `max_steps`), on the main process.
        tell: Called with each further message, on the main process.
        ledger: Records the images that are left out.

    Raises:
        CaptionError, ConfigError, MissingDependencyError: As for `distill`.
        Interrupted: `stop` was set.
    """
    device, world = accelerator.device, accelerator.num_processes
    dtype = compute_dtype(accelerator)

    # Load the student, and tokenize the captions.
    tell("Loading the student …")
    processor, student = load_student(options, dtype=dtype, device=device)
    batches, validation = (
        Batches(
            side,
            processor,
            ends=end_tokens(processor, student),
            reader=lessons.reader,
            options=options,
            accelerator=accelerator,
            ledger=ledger,
        )
        for side in (lessons.training, lessons.held_out)
    )
    if not batches.examples:
        raise ConfigError(f"distill.max_tokens: every caption has more than {options.max_tokens} tokens; allow more")

    # Make it trainable; make the optimizer and its schedule.
    student = make_trainable(student, options, device=device)
    parameters = trained(student)
    adamw = guarded_adamw(parameters.values(), lr=options.learning_rate, weight_decay=options.weight_decay)
    optimizer: Any = adamw
    schedule = make_schedule("transformers", options, optimizer, section="distill")
    model = accelerator.prepare_model(student)
    optimizer = accelerator.prepare_optimizer(optimizer)
    parts = {"optimizer": optimizer, "schedule": schedule}

    # Resume.
    step = 0
    if found is not None:
        batches.load_state_dict({name: value for name, value in found.loader.items() if name != STUDENT})
        found.restore(parameters, **parts)
        if note := adopt_schedule(schedule, options, found.options):
            tell(note)
        step = found.step
        check_weights(parameters, where=found.folder, advice="delete it to resume from the one before")
        tell(f"Resuming from step {step}: {found.folder}")

    def save() -> Path:
        advice = "it was not saved; older checkpoints are kept"
        check_weights(parameters, where=f"distill: step {step}", advice=advice)
        return decided_once(
            accelerator,
            lambda: checkpoint.save(
                checkpoints,
                step=step,
                trained=parameters,
                parts=parts,
                loader={**batches.state_dict(), STUDENT: facts.identity},
                options=options,
                result=lambda folder: None,
            ),
        )

    ending = Ending(accelerator, stop, save)

    losses: list[tuple[int, float]] = []
    validations: list[tuple[int, float]] = []
    clock = Clock()
    guard = Guard(adamw, step=step)
    checkpoints = Path(options.output_dir).expanduser() / "checkpoints"
    since_log = torch.zeros(2, device=device)  # loss, count: of the steps that were not skipped
    together = options.gradient_accumulation_steps

    if step < options.max_steps:
        tell(f"Training from step {step + 1} of {options.max_steps} …")
        if accelerator.is_main_process:
            step_done(step, options.max_steps)

    # The loop. From here on a signal is recorded, and the run ends between two steps.
    model.train()
    with (
        stop.deferred(),
        closing(batches.endless(step * together)) as coming,
        torch.random.fork_rng(_devices(device)),
    ):
        while step < options.max_steps:
            # Get the step's batches.
            clock.start()
            asked = time.perf_counter()
            parts_of_step = [next(coming) for _ in range(together)]
            clock.got_batch(asked, together * options.batch_size * world)
            of_step = torch.zeros((), device=device)

            # Forward and backward. The mean is over all tokens of the step, on all ranks: tokens of batches with short
            # captions do not have a larger weight.
            count = torch.tensor(sum(int((batch["labels"] != IGNORED).sum()) for batch in parts_of_step), device=device)
            tokens = int(accelerator.reduce(count, reduction="sum"))
            for number, batch in enumerate(parts_of_step):
                torch.manual_seed(_seed(options.seed, step * together + number, accelerator.process_index))  # dropout's
                batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
                with nullcontext() if number == together - 1 else accelerator.no_sync(model):
                    loss = guard.loss(loss_sum(model, batch).view(1), number) / tokens
                    accelerator.backward(loss * world)  # DDP averages the ranks' gradients; this sums them
                of_step += loss.detach()

            # Clip, and update the weights; the guard skips the update where the gradient is not finite.
            norm = accelerator.clip_grad_norm_(parameters.values(), options.max_grad_norm or math.inf)
            skip = guard.decide(norm)
            since_log += torch.where(skip > 0, 0.0, torch.stack([of_step, torch.ones_like(of_step)]))
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            step += 1
            last = step == options.max_steps
            logs, saves = last or is_due(step, options.log_every), last or is_due(step, options.checkpoint_every)

            # Reduce the loss (this waits for the device), and report skipped steps.
            if logs:
                losses.append((step, accelerator.reduce(since_log[0] / since_log[1], reduction="sum").item()))
                since_log.zero_()
            if logs or saves or guard.unsettled >= MOST_UNSETTLED:
                for one in guard.settle():
                    tell(f"note: step {one.step} was skipped, no weight changed: loss or gradient is NaN or inf")
                end_after_several(guard, checkpoints=checkpoints, samples=[])
            clock.end()
            if accelerator.is_main_process:
                step_done(step, options.max_steps)

            # Log, save and validate; end after any of them if a signal was received.
            if logs and accelerator.is_main_process:
                progress = clock.progress(step, options.max_steps, loss=losses[-1][1], lr=schedule.get_last_lr()[0])
                show(progress)
            if saves:
                ending.save(step)
            ending.end_if_asked(step)
            if validation.examples and not last and is_due(step, options.validation_every):
                model.eval()
                value = held_out_loss(accelerator, model, validation, given_up=ending.asked)
                model.train()
                if value is not None:
                    validations.append((step, value))
                    tell(f"step {step}  held-out loss {value:.4f}")
                ending.end_if_asked(step)

    # Write the student.
    def write(folder: Path) -> Path:
        bare = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        save_student(bare, processor, folder / result.name, dtype=dtype)
        return folder / result.name

    decided_once(accelerator, lambda: str(publish_result(result.parent, write, size=facts.result_bytes)))
    accelerator.free_memory()
    accelerator.wait_for_everyone()
    return Trained(
        examples=batches.examples,
        losses=tuple(losses),
        validation=tuple(validations),
        clock=clock,
    )


def make_accelerator(options: DistillConfig) -> Accelerator:
    """Make the run's accelerator; under `torchrun` or `accelerate launch` it joins the other ranks."""
    return new_accelerator(
        device=options.device,
        mixed_precision=options.mixed_precision,
        # A vision tower may have layers with adapters that captioning does not use.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def _devices(device: torch.device) -> list[torch.device]:
    """Return the devices whose random state is restored, besides the CPU's."""
    return [device] if device.type == "cuda" else []


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
