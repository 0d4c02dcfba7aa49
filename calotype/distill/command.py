"""What `calotype distill` does: a small captioner learns to say what its teacher says, as a config describes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from calotype.config import Config
from calotype.config.distill import DistillConfig
from calotype.config.inputs import check_outside
from calotype.errors import ConfigError, MissingDependencyError
from calotype.ledger import Ledger
from calotype.progress import Track, silent

if TYPE_CHECKING:
    from accelerate import Accelerator

    from calotype.data.dataset import TextToImageDataset
    from calotype.distill.lessons import Lesson, Lessons
    from calotype.distill.report import DistillReport
    from calotype.train.report import Progress

__all__ = ["run"]

_USED: Final = ("dataset", "distill", "model", "tokenizer", "tokenizers")
_HELD_OUT: Final = 0.1
"""Share of the images that scores are of, where the config does not say."""


def run(
    config: Config | Mapping[str, Any],
    *,
    resume: bool = False,
    retry_failed: bool = False,
    show: Callable[[Progress], None] = lambda progress: None,
    tell: Callable[[str], None] = lambda text: None,
    track: Track = silent,
) -> DistillReport:
    """Trains the student of a config's `distill` section on captions of its dataset's images.

    Args:
        config: What `load_config` gave. Of `dataset`, what says which images there are and which are held out
            (`validation`, a tenth by default) is used.
        resume: Go on from the last checkpoint, if there is one.
        retry_failed: Ask the teacher once more where it has failed before.
        show: Called every `log_every` steps, on the main process.
        tell: Likewise with what else there is to say.
        track: Shows the progress of the teacher, and of the student's answers to be scored.

    Raises:
        CaptionError: Teacher or student can't be had.
        ConfigError: The config is wrong, or there is nothing to learn from.
        EditError: The ledger of the teacher's answers can't be written.
        ManifestError: The dataset can't be read.
        MissingDependencyError: accelerate, peft, sacrebleu or transformers is not installed.
    """
    config = Config.parse(config, only=_USED)
    options = config.distill if config.distill is not None else DistillConfig.of({})
    if retry_failed and options.teacher == "dataset":
        raise ConfigError("retry_failed: has no effect with teacher: dataset, which is not asked; leave it out")
    output = Path(options.output_dir).expanduser()
    check_outside(config, output, option="distill.output_dir", writes="the student", own=("checkpoints", "scores"))
    try:
        from calotype.distill.job import distill
        from calotype.distill.train import make_accelerator
        from calotype.train.ranks import decided_once
        from calotype.train.sole_run import sole_run
    except ModuleNotFoundError as error:
        if error.name not in ("accelerate", "safetensors", "transformers"):
            raise
        raise MissingDependencyError(error.name, extra="distill", purpose="to distill a captioner") from error
    accelerator = make_accelerator(options)
    ledger = Ledger()
    if not accelerator.is_main_process:
        track = silent
    with ExitStack() as until_done:
        decided_once(accelerator, lambda: until_done.enter_context(sole_run(output / ".run.lock", output)))
        lessons = _lessons(accelerator, config, options, retry_failed=retry_failed, track=track, ledger=ledger)
        return distill(accelerator, lessons, options, resume=resume, show=show, tell=tell, track=track, ledger=ledger)


def _lessons(
    accelerator: Accelerator,
    config: Config,
    options: DistillConfig,
    *,
    retry_failed: bool,
    track: Track,
    ledger: Ledger,
) -> Lessons:
    """All lessons, on every rank the same ones."""
    from accelerate.utils import gather_object

    from calotype.captioning.backend import open_backend
    from calotype.captioning.ledger import CaptionLedger
    from calotype.captioning.presets import load_preset
    from calotype.captioning.prompts import check_class_word
    from calotype.distill.teacher import from_captioner, from_dataset

    presets = [load_preset(name) for name in options.presets]
    check_class_word(presets, options.class_word)
    sides = _datasets(config)
    if not isinstance(options.teacher, Mapping):
        about: dict[str, Any] = {"backend": "dataset"}

        def taught(dataset: TextToImageDataset) -> list[Lesson]:
            return from_dataset(dataset.manifest, presets, options.class_word, ledger=ledger)

        return _sides(sides, taught, options, about)

    rank, world = accelerator.process_index, accelerator.num_processes
    teacher = dict(options.teacher)
    if teacher["backend"] == "transformers":  # each rank has a teacher of its own, and asks it for its share
        teacher = {"device": str(accelerator.device)} | teacher
    name = teacher.pop("backend")
    with closing(open_backend(name, **teacher)) as backend, closing(CaptionLedger(sides[0].manifest.root)) as answers:
        about = {"backend": name, "model": backend.model, "parameters": dict(backend.parameters), "n": options.n}

        def taught(dataset: TextToImageDataset) -> list[Lesson]:
            with track("asking the teacher") as progress:
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
    from calotype.distill.lessons import Lessons

    training, held_out = datasets
    scored = _picked(taught(held_out), options) if held_out is not None else ()
    return Lessons(training=tuple(taught(training)), held_out=scored, reader=training.reader, teacher=about)


def _datasets(config: Config) -> tuple[TextToImageDataset, TextToImageDataset | None]:
    """Images to learn from, and those held out; with nothing that needs a text-to-image model."""
    from calotype.data.build import build_dataset

    section = config.our_dataset("learnt from")
    usual = {"validation": _HELD_OUT, "missing_captions": "empty", "on_error": "skip"}
    training, held_out = config.with_dataset(**usual | section.given()).without_model().sides()
    return build_dataset(training), None if held_out is None else build_dataset(held_out)


def _picked(lessons: list[Lesson], options: DistillConfig) -> tuple[Lesson, ...]:
    """As many as are scored, evenly from all."""
    count = min(len(lessons), options.validation_images)
    return tuple(lessons[i * len(lessons) // count] for i in range(count))
