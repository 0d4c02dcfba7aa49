"""`distill`: score the student, train it, score it again; write `report.json`.

output/
    SmolVLM-500M-Instruct-distilled/   the student, as `save_pretrained` writes it
    report.json                        scores, losses, options, the teacher
    scores/before.json, after.json     the scores with the student's captions
    checkpoints/                       see `calotype.train.checkpoint`
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator

from calotype.config.distill import DistillConfig
from calotype.core.output_files import write_json
from calotype.distill.lessons import Lessons
from calotype.distill.preflight import StudentFacts
from calotype.distill.report import DistillReport
from calotype.distill.scores import HeldOut, score
from calotype.distill.train import train
from calotype.errors import ConfigError
from calotype.ledger import Ledger
from calotype.progress import Track, silent
from calotype.train import checkpoint
from calotype.train.interrupt import StopRequest
from calotype.train.ranks import decided_once
from calotype.train.report import Progress
from calotype.train.run_ledger import count_notes

__all__ = ["distill"]


def distill(
    accelerator: Accelerator,
    lessons: Lessons,
    options: DistillConfig,
    *,
    found: checkpoint.Checkpoint | None,
    facts: StudentFacts,
    stop: StopRequest,
    show: Callable[[Progress], None] = lambda progress: None,
    step_done: Callable[[int, int], None] = lambda step, max_steps: None,
    tell: Callable[[str], None] = lambda text: None,
    track: Track = silent,
    ledger: Ledger,
) -> DistillReport:
    """Train the student until `options.max_steps`; write it into `options.output_dir`, scored before and after.

    Args:
        accelerator: From `make_accelerator`.
        lessons: The teacher's captions.
        options: The `distill` section.
        found: The checkpoint to resume from.
        facts: The student's facts, from `check_student`.
        stop: Checked between steps.
        show: Called every `log_every` steps, on the main process.
        step_done: Called before the first step and after each, with (finished steps, `max_steps`), on the main process.
        tell: Called with each further message, on the main process.
        track: Shows the progress of scoring.
        ledger: Records the images that are left out.

    Raises:
        CaptionError: The student can't be loaded.
        ConfigError: There are no captions to train on; `found` is from another run; the disk is full.
        Interrupted: `stop` was set.
    """
    if not lessons.training:
        raise ConfigError(
            f"distill: there is no caption to learn from (left out: {ledger.counts()}); caption the images first "
            "(`calotype caption`), or name a teacher"
        )
    say = tell if accelerator.is_main_process else lambda text: None
    output = Path(options.output_dir).expanduser()
    result = output / f"{Path(options.student).expanduser().resolve().name}-distilled"
    for sentence in found.damaged if found is not None else ():
        say(sentence)

    # Score the student as it is, train it, score it again.
    before = HeldOut.load(output / "scores" / "before.json") if found is not None else None
    if lessons.held_out and before is None:
        before = score(accelerator, options.student, lessons, options, track=track, ledger=ledger)
        _save_once(accelerator, before, output / "scores" / "before.json")
    if before is not None:
        say(f"before: {before.scores}")
    made = train(
        accelerator,
        lessons,
        options,
        found=found,
        facts=facts,
        result=result,
        stop=stop,
        show=show,
        step_done=step_done,
        tell=say,
        ledger=ledger,
    )
    after = None
    if lessons.held_out:
        after = score(accelerator, result, lessons, options, track=track, ledger=ledger)
        _save_once(accelerator, after, output / "scores" / "after.json")
        say(f"after:  {after.scores}")
    report = DistillReport(
        result=str(result),
        student=facts.identity,
        teacher=lessons.teacher,
        presets=options.presets,
        examples=made.examples,
        held_out=len(lessons.held_out),
        left_out=count_notes(ledger),  # each epoch records the same images again
        steps=options.max_steps,
        losses=made.losses,
        validation=made.validation,
        before=before.scores if before is not None else None,
        after=after.scores if after is not None else None,
        images_per_second=made.clock.images_per_second,
        data_wait=made.clock.data_wait,
        seconds=made.clock.seconds,
        options=options.model_dump(mode="json"),
    )
    decided_once(accelerator, lambda: write_json(output / "report.json", report.to_json()))
    accelerator.end_training()
    return report


def _save_once(accelerator: Accelerator, scores: HeldOut, path: Path) -> None:
    decided_once(accelerator, lambda: scores.save(path))
