"""The loop that distils: a vision-language model learns to say what its teacher says.

Read `train` from top to bottom; it calls transformers' model, peft's adapters and accelerate's backward pass. What a
step computes follows from (seed, number of the batch, rank), so a run that was interrupted and resumed computes what
the uninterrupted one would have.
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

from calotype.captioning.transformers_backend import captioner_identity
from calotype.config.distill import DistillConfig
from calotype.distill.chat import IGNORED, loss_sum
from calotype.distill.lessons import Batches, Lessons
from calotype.distill.scores import held_out_loss
from calotype.distill.student import end_tokens, load_student, make_trainable, save_student, trained
from calotype.errors import ConfigError
from calotype.ledger import Ledger
from calotype.train import checkpoint
from calotype.train.guard import MOST_UNSETTLED, Guard, check_weights, guarded_adamw
from calotype.train.report import Clock, Progress
from calotype.train.schedule import adopt_schedule, is_due, make_schedule
from calotype.train.skipped import end_after_several

__all__ = ["Trained", "make_accelerator", "train"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What came of the loop."""

    student: str
    """What was loaded: a name with a revision or fingerprint."""
    examples: int
    """Captions of an epoch."""
    losses: tuple[tuple[int, float], ...]
    """(step, mean loss of the steps up to it since the one before)."""
    validation: tuple[tuple[int, float], ...]
    """(step, loss on held-out images), on the way."""
    clock: Clock


def train(
    accelerator: Accelerator,
    lessons: Lessons,
    options: DistillConfig,
    *,
    found: checkpoint.Checkpoint | None,
    result: Path,
    show: Callable[[Progress], None],
    tell: Callable[[str], None],
    ledger: Ledger,
) -> Trained:
    """Trains the student until `options.max_steps`, and saves it.

    Args:
        accelerator: From `make_accelerator`.
        lessons: To learn from; those held out are for the loss on the way.
        options: Who learns, and how.
        found: What to go on from.
        result: The folder to save it in.
        show: Called every `log_every` steps, on the main process.
        tell: Likewise with what else there is to say.
        ledger: Notes what is left out.

    Raises:
        CaptionError, ConfigError, MissingDependencyError: As `distill`.
    """
    device, world = accelerator.device, accelerator.num_processes
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    processor, student = load_student(options, dtype=dtype, device=device)
    identity = captioner_identity(options.student, student)
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
    student = make_trainable(student, options, device=device)
    parameters = trained(student)
    adamw = guarded_adamw(parameters.values(), lr=options.learning_rate, weight_decay=options.weight_decay)
    optimizer: Any = adamw
    schedule = make_schedule("transformers", options, optimizer, section="distill")
    model = accelerator.prepare_model(student)
    optimizer = accelerator.prepare_optimizer(optimizer)
    parts = {"optimizer": optimizer, "schedule": schedule}
    step = 0
    if found is not None:
        batches.load_state_dict(found.loader)
        found.restore(parameters, **parts)
        if note := adopt_schedule(schedule, options, found.options):
            tell(note)
        step = found.step
        check_weights(parameters, where=found.folder, advice="delete it to go on from the one before")
        tell(f"Resuming from step {step}: {found.folder}")

    losses: list[tuple[int, float]] = []
    validations: list[tuple[int, float]] = []
    clock = Clock()
    guard = Guard(adamw, step=step)
    checkpoints = Path(options.output_dir).expanduser() / "checkpoints"
    summed = torch.zeros(2, device=device)  # loss and number of the steps since `shown` that were not skipped
    shown = step
    together = options.gradient_accumulation_steps
    model.train()
    with closing(batches.endless(step * together)) as coming, torch.random.fork_rng(_devices(device)):
        while step < options.max_steps:
            clock.start()
            asked = time.perf_counter()
            parts_of_step = [next(coming) for _ in range(together)]
            clock.got_batch(asked, together * options.batch_size * world)
            of_step = torch.zeros((), device=device)
            # The mean is over all tokens of the step, wherever they are: no token counts for more because its batch
            # has short captions.
            count = torch.tensor(sum(int((batch["labels"] != IGNORED).sum()) for batch in parts_of_step), device=device)
            tokens = int(accelerator.reduce(count, reduction="sum"))
            for number, batch in enumerate(parts_of_step):
                torch.manual_seed(_seed(options.seed, step * together + number, accelerator.process_index))  # dropout's
                batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
                with nullcontext() if number == together - 1 else accelerator.no_sync(model):
                    loss = guard.loss(loss_sum(model, batch).view(1), number) / tokens
                    accelerator.backward(loss * world)  # the ranks' gradients are averaged, and are to be summed
                of_step += loss.detach()
            norm = accelerator.clip_grad_norm_(parameters.values(), options.max_grad_norm or math.inf)
            skip = guard.decide(norm)
            summed += torch.where(skip > 0, 0.0, torch.stack([of_step, torch.ones_like(of_step)]))
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            step += 1
            last = step == options.max_steps
            if step % options.log_every == 0 or last:
                mean = accelerator.reduce(summed[0] / summed[1], reduction="sum").item()  # waits for the device
                losses.append((step, mean))
                summed.zero_()
                shown = step
            due = last or is_due(step, options.checkpoint_every)
            if shown == step or due or guard.unsettled >= MOST_UNSETTLED:
                for one in guard.settle():
                    tell(f"note: step {one.step} was skipped, no weight changed: loss or gradient is NaN or inf")
                end_after_several(guard, checkpoints=checkpoints, samples=[])
            clock.end()
            if shown == step and accelerator.is_main_process:
                progress = clock.progress(step, options.max_steps, loss=losses[-1][1], lr=schedule.get_last_lr()[0])
                show(progress)
            if due:
                advice = "it was not saved; older checkpoints are kept"
                check_weights(parameters, where=f"distill: step {step}", advice=advice)
            if due and accelerator.is_main_process:
                checkpoint.save(
                    checkpoints,
                    step=step,
                    trained=parameters,
                    parts=parts,
                    loader=batches.state_dict(),
                    options=options,
                    result=lambda folder: None,
                )
            if validation.examples and not last and is_due(step, options.validation_every):
                model.eval()
                validations.append((step, held_out_loss(accelerator, model, validation)))
                model.train()
                tell(f"step {step}  held-out loss {validations[-1][1]:.4f}")

    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        save_student(accelerator.unwrap_model(model, keep_fp32_wrapper=False), processor, result, dtype=dtype)
    accelerator.free_memory()
    accelerator.wait_for_everyone()
    return Trained(
        student=identity,
        examples=batches.examples,
        losses=tuple(losses),
        validation=tuple(validations),
        clock=clock,
    )


def make_accelerator(options: DistillConfig) -> Accelerator:
    """The run's accelerator; under `torchrun` or `accelerate launch` it joins the other ranks."""
    on_cpu = options.device == "cpu" or not torch.cuda.is_available()
    return Accelerator(
        cpu=on_cpu,
        mixed_precision=options.mixed_precision or ("no" if on_cpu else "bf16"),
        step_scheduler_with_optimizer=False,
        # A vision tower may have layers, and adapters with them, that captioning makes no use of.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def _devices(device: torch.device) -> list[torch.device]:
    """Those whose random state is to be put back, beside the CPU's."""
    return [device] if device.type == "cuda" else []


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
