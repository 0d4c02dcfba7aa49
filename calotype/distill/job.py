"""`distill`: the student is scored, learns, and is scored again; `report.json` says what came of it.

output/
    SmolVLM-500M-Instruct-distilled/   the student, as `save_pretrained` writes it
    report.json                        scores, losses, options, whose words they are
    scores/before.json, after.json     the scores with the answers that they are of
    checkpoints/                       see `calotype.train.checkpoint`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from calotype.config.distill import DistillConfig
from calotype.core.output_files import write_json
from calotype.distill.lessons import Lessons
from calotype.distill.report import DistillReport
from calotype.distill.scores import HeldOut, score
from calotype.distill.train import train
from calotype.errors import ConfigError
from calotype.ledger import Ledger
from calotype.progress import Track, silent
from calotype.train import checkpoint
from calotype.train.ranks import decided_once
from calotype.train.report import Progress

__all__ = ["distill"]


def distill(
    accelerator: Accelerator,
    lessons: Lessons,
    options: DistillConfig,
    *,
    resume: bool = False,
    show: Callable[[Progress], None] = lambda progress: None,
    tell: Callable[[str], None] = lambda text: None,
    track: Track = silent,
    ledger: Ledger,
) -> DistillReport:
    """Trains the student until `options.max_steps`; leaves it in `options.output_dir`, scored before and after.

    Args:
        accelerator: From `make_accelerator`.
        lessons: What the teacher says.
        options: Who learns, and how.
        resume: Go on from the last checkpoint of `output_dir`, if there is one.
        show: Called every `log_every` steps, on the main process.
        tell: Likewise with what else there is to say.
        track: Shows the progress of answers to be scored.
        ledger: Notes what is left out.

    Raises:
        CaptionError: The student can't be had, or has no chat template.
        ConfigError: The student is of a kind that is not trained here; an option does not fit it; there is nothing to
            learn from; `output_dir` has checkpoints and `resume` is not set, or they are of another run.
        MissingDependencyError: peft or sacrebleu is not installed.
    """
    if not lessons.training:
        raise ConfigError(
            f"distill: there is no caption to learn from (left out: {ledger.counts()}); caption the images first "
            "(`calotype caption`), or name a teacher"
        )
    say = tell if accelerator.is_main_process else lambda text: None
    output = Path(options.output_dir).expanduser()
    result = output / f"{Path(options.student).expanduser().resolve().name}-distilled"
    found = decided_once(accelerator, lambda: checkpoint.to_resume(output / "checkpoints", options, resume=resume))
    if found is not None:
        for sentence in found.damaged:
            say(sentence)

    before = HeldOut.load(output / "scores" / "before.json") if found is not None else None
    if lessons.held_out and before is None:
        before = score(accelerator, options.student, lessons, options, track=track, ledger=ledger)
        if accelerator.is_main_process:
            before.save(output / "scores" / "before.json")
    if before is not None:
        say(f"before: {before.scores}")
    made = train(accelerator, lessons, options, found=found, result=result, show=show, tell=say, ledger=ledger)
    after = None
    if lessons.held_out:
        after = score(accelerator, result, lessons, options, track=track, ledger=ledger)
        if accelerator.is_main_process:
            after.save(output / "scores" / "after.json")
        say(f"after:  {after.scores}")
    noted = gather_object([(entry.kind, entry.id) for entry in ledger])  # each epoch notes the same images again
    report = DistillReport(
        result=str(result),
        student=made.student,
        teacher=lessons.teacher,
        presets=options.presets,
        examples=made.examples,
        held_out=len(lessons.held_out),
        left_out=dict(Counter(kind for kind, _ in set(noted))),
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
    if accelerator.is_main_process:
        write_json(output / "report.json", report.to_json())
    accelerator.end_training()
    return report
