"""`run`: the implementation of `calotype distill`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from calotype.config import Config
from calotype.config.distill import DistillConfig
from calotype.config.effects import DISTILL, unused_options
from calotype.config.inputs import check_outside
from calotype.errors import ConfigError, MissingDependencyError
from calotype.ledger import Ledger
from calotype.progress import Track, is_first_rank, silent
from calotype.terminal import visible
from calotype.train.interrupt import StopRequest
from calotype.train.run_folder import LOCK, check_start, sole_run

if TYPE_CHECKING:
    from accelerate import Accelerator

    from calotype.captioning.presets import CaptionPreset
    from calotype.data.dataset import TextToImageDataset
    from calotype.distill.lessons import Lesson, Lessons
    from calotype.distill.report import DistillReport
    from calotype.train.report import Progress

__all__ = ["run"]

_USED: Final = ("dataset", "distill", "model", "tokenizer", "tokenizers")
_HELD_OUT: Final = 0.1
"""Default share of the images that are held out for scores."""


def run(
    config: Config | Mapping[str, Any],
    *,
    resume: bool = False,
    retry_failed: bool = False,
    stop: StopRequest | None = None,
    show: Callable[[Progress], None] = lambda progress: None,
    step_done: Callable[[int, int], None] = lambda step, max_steps: None,
    tell: Callable[[str], None] = lambda text: None,
    track: Track = silent,
) -> DistillReport:
    """Train the student of a config's `distill` section on captions of its dataset's images.

    Args:
        config: What `load_config` returned. Of `dataset`, the options that select images and the held-out side
            (`validation`, a tenth by default) are used.
        resume: Resume from the last checkpoint, if there is one.
        retry_failed: Whether to retry captions that the teacher failed to generate before.
        stop: A stop request, for a caller that handles signals itself. By default Ctrl-C, SIGTERM and SIGHUP end the
            training after the current step with a checkpoint, in Python's main thread.
        show: Called every `log_every` steps, on the main process.
        step_done: Called before the first step and after each, with (finished steps, `max_steps`), on the main process.
        tell: Called with each further message, on the main process.
        track: Shows the progress of the teacher, and of scoring.

    Raises:
        CaptionError: Teacher or student can't be found.
        ConfigError: The config is wrong; there are no captions to train on; `output_dir` has checkpoints and `resume`
            is not set, or they are from another run; the disk is full.
        EditError: The ledger of the teacher's captions can't be written.
        Interrupted: A signal was received; the exception has the saved checkpoint.
        ManifestError: The dataset can't be read.
        MissingDependencyError: accelerate, peft, sacrebleu or transformers is not installed.
        RankError: Another rank has ended.
    """
    # Check the options.
    config = Config.parse(config, only=_USED)
    options = config.distill if config.distill is not None else DistillConfig.of({})
    output = Path(options.output_dir).expanduser()
    if retry_failed and options.teacher == "dataset":
        raise ConfigError("retry_failed: has no effect with teacher: dataset, which makes no captions; leave it out")
    check_outside(config, output, option="distill.output_dir", writes="the student", own=("checkpoints", "scores"))
    say = tell if is_first_rank() else lambda text: None
    start = check_start(output, resume=resume)
    made = "the dataset's captions" if options.teacher == "dataset" else f"captions by {_name(options.teacher)}"
    say(f"Training {visible(options.student, 64)} on {made}")
    say(f"  result    {visible(options.output_dir, 64)}")
    if start:
        say(start)
    say("Loading PyTorch and the student's configuration …")
    try:
        from calotype.captioning.presets import load_preset
        from calotype.captioning.prompts import check_class_word
        from calotype.distill.job import distill
        from calotype.distill.preflight import STUDENT, check_student
        from calotype.distill.train import make_accelerator
        from calotype.train.accelerator import compute_dtype
        from calotype.train.checkpoint import Checkpoint, to_resume
        from calotype.train.identity import check_facts
        from calotype.train.ranks import check_seen_by_all, decided_once, end_together
        from calotype.train.room import check_run_room
        from calotype.train.schedule import saves_left
    except ModuleNotFoundError as error:
        if error.name not in ("accelerate", "safetensors", "transformers"):
            raise
        raise MissingDependencyError(error.name, extra="distill", purpose="to distill a captioner") from error

    # Check presets, images and student before the teacher is called.
    presets = [load_preset(name) for name in options.presets]
    check_class_word(presets, options.class_word)
    sides = _datasets(config)
    if sides[1] is None and (unused := {"validation_every", "validation_images"} & options.model_fields_set):
        raise ConfigError(
            f"distill.{min(unused)}: has no effect with dataset.validation: 0, which holds no images out; leave it out"
        )
    accelerator = make_accelerator(options)
    facts = check_student(options, scored=sides[1] is not None, dtype=compute_dtype(accelerator))
    ledger = Ledger()
    if not accelerator.is_main_process:
        track = silent
    with ExitStack() as cleanup:
        stop = stop or cleanup.enter_context(StopRequest.from_signals())
        stop.checkpoints = output / "checkpoints"
        cleanup.enter_context(end_together(accelerator))

        # Lock the folder, find the checkpoint to resume from, check the free disk space.
        def begin() -> Checkpoint | None:
            cleanup.enter_context(sole_run(output / LOCK, output))
            unused = unused_options(options, DISTILL)
            found = to_resume(output / "checkpoints", options, resume=resume, unused=unused)
            if found is not None:
                check_facts(found.folder, found.loader, {STUDENT: facts.identity})
            check_run_room(
                output,
                trained=facts.trained_bytes,
                average=False,
                result=facts.result_bytes,
                in_checkpoint=False,
                saves=saves_left(found.step if found else 0, options.max_steps, options.checkpoint_every),
                keep=options.keep_checkpoints,
            )
            return found

        found = decided_once(accelerator, begin)
        if found is not None:
            check_seen_by_all(accelerator, found)

        # Collect the captions, and train.
        lessons = _lessons(accelerator, sides, presets, options, retry_failed=retry_failed, track=track, ledger=ledger)
        say(f"  prompts   {len(lessons.training):,} to learn from, {len(lessons.held_out):,} held out for scores")
        return distill(
            accelerator,
            lessons,
            options,
            found=found,
            facts=facts,
            stop=stop,
            show=show,
            step_done=step_done,
            tell=tell,
            track=track,
            ledger=ledger,
        )


def _name(teacher: Mapping[str, Any]) -> str:
    return visible(teacher.get("model") or teacher["backend"], 64)


def _lessons(
    accelerator: Accelerator,
    sides: tuple[TextToImageDataset, TextToImageDataset | None],
    presets: Sequence[CaptionPreset],
    options: DistillConfig,
    *,
    retry_failed: bool,
    track: Track,
    ledger: Ledger,
) -> Lessons:
    """Make the lessons of both sides; the same on every rank."""
    from accelerate.utils import gather_object

    from calotype.captioning.backend import open_backend
    from calotype.captioning.ledger import CaptionLedger
    from calotype.distill.teacher import from_captioner, from_dataset

    if not isinstance(options.teacher, Mapping):
        about: dict[str, Any] = {"backend": "dataset"}

        def taught(dataset: TextToImageDataset) -> list[Lesson]:
            return from_dataset(dataset.manifest, presets, options.class_word, ledger=ledger)

        return _sides(sides, taught, options, about)

    rank, world = accelerator.process_index, accelerator.num_processes
    teacher = dict(options.teacher)
    if teacher["backend"] == "transformers":  # each rank loads the teacher, and captions its share
        teacher = {"device": str(accelerator.device)} | teacher
    name = teacher.pop("backend")
    with closing(open_backend(name, **teacher)) as backend, closing(CaptionLedger(sides[0].manifest.root)) as answers:
        about = {"backend": name, "model": backend.model, "parameters": dict(backend.parameters), "n": options.n}

        def taught(dataset: TextToImageDataset) -> list[Lesson]:
            with track("calling the teacher") as progress:
                share = from_captioner(
                    dataset.manifest[rank::world],
                    presets,
                    options.class_word,
                    backend=backend,
                    answers=answers,
                    n=options.n,
                    pixels=options.pixels,
                    reader=dataset.reader,
                    retry_failed=retry_failed,
                    show=progress,
                    ledger=ledger,
                )
            return sorted(gather_object(share), key=lambda lesson: lesson.id)

        return _sides(sides, taught, options, about)


def _sides(
    datasets: tuple[TextToImageDataset, TextToImageDataset | None],
    taught: Callable[[TextToImageDataset], list[Lesson]],
    options: DistillConfig,
    about: Mapping[str, Any],
) -> Lessons:
    """Make the lessons of both sides with `taught`; those held out are limited to `validation_images`."""
    from calotype.distill.lessons import Lessons

    training, held_out = datasets
    scored = _picked(taught(held_out), options) if held_out is not None else ()
    return Lessons(training=tuple(taught(training)), held_out=scored, reader=training.reader, teacher=about)


def _datasets(config: Config) -> tuple[TextToImageDataset, TextToImageDataset | None]:
    """Open the datasets of both sides, without a text-to-image model."""
    from calotype.data.build import build_dataset

    section = config.our_dataset("learnt from")
    defaults = {"validation": _HELD_OUT, "missing_captions": "empty", "on_error": "skip"}
    training, held_out = config.with_dataset(**defaults | section.given()).without_model().sides()
    return build_dataset(training), None if held_out is None else build_dataset(held_out)


def _picked(lessons: list[Lesson], options: DistillConfig) -> tuple[Lesson, ...]:
    """Select the lessons to score, evenly spaced."""
    count = min(len(lessons), options.validation_images)
    return tuple(lessons[i * len(lessons) // count] for i in range(count))
