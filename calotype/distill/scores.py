"""`Scores`: the similarity of a student's captions to its teacher's, on held-out images."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from PIL import Image

from calotype.captioning.prepare_image import prepare_image
from calotype.captioning.transformers_backend import TransformersBackend
from calotype.config.distill import DistillConfig
from calotype.core.output_files import write_json
from calotype.distill.chat import IGNORED, loss_sum
from calotype.distill.lessons import Batches, Lesson, Lessons
from calotype.distill.student import check_kind, end_tokens
from calotype.errors import ImageError, MissingDependencyError
from calotype.images import ImageReader
from calotype.ledger import Ledger
from calotype.progress import Show, Track, counter
from calotype.train.accelerator import compute_dtype

__all__ = ["HeldOut", "Scores", "held_out_loss", "score"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Scores of one student on the held-out images, with all of the teacher's captions as references."""

    bleu: float
    """Corpus BLEU (Papineni et al., 2002), 0 to 100: matching runs of one to four words."""
    chrf: float
    """Corpus chrF (Popović, 2015), 0 to 100: matching runs of characters; also for languages without spaces."""
    loss: float
    """Mean cross-entropy of the teacher's tokens, in nats."""
    answers: int
    """Number of requested captions."""
    without: int
    """Number of requests without a caption: it was empty or truncated."""
    signatures: tuple[str, str]
    """Sacrebleu's signatures of BLEU and chrF: scores are comparable only if they are equal."""

    def __str__(self) -> str:
        missing = f", {self.without} of {self.answers} without a caption" if self.without else ""
        return f"BLEU {self.bleu:.1f}  chrF {self.chrf:.1f}  loss {self.loss:.3f}{missing}"


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """Scores, with the captions they were computed from."""

    scores: Scores
    answers: tuple[Mapping[str, Any], ...]
    """For each lesson `id`, `prompt`, `teacher` (its captions) and `student` (its caption)."""

    def save(self, path: Path) -> None:
        """Write JSON; a loss that is not finite becomes null."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read a file written by `save`; None if it is missing or damaged."""
        try:
            found = json.loads(path.read_bytes())
            scores = found["scores"] | {"signatures": tuple(found["scores"]["signatures"])}
            if scores["loss"] is None:  # JSON has no NaN
                scores["loss"] = math.nan
            return cls(scores=Scores(**scores), answers=tuple(found["answers"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def score(
    accelerator: Accelerator,
    model: str | Path,
    lessons: Lessons,
    options: DistillConfig,
    *,
    track: Track,
    ledger: Ledger,
) -> HeldOut:
    """Score a model, loaded as `calotype caption --backend transformers` loads it; the same on every rank.

    Args:
        accelerator: The run's accelerator. Each rank loads the model, and captions its share of the lessons.
        model: A folder or a name on the hub.
        lessons: The lessons, of which those held out are captioned. An image that can't be read has no caption.
        options: The `distill` section.
        track: Shows the progress.
        ledger: Records the images that are left out.

    Raises:
        CaptionError: The model can't be loaded.
        MissingDependencyError: sacrebleu is not installed.
    """
    metrics = _sacrebleu()  # fails before the work
    backend = TransformersBackend(
        model=model,
        revision=options.revision if model == options.student else None,
        device=str(accelerator.device),
        dtype=str(compute_dtype(accelerator)).removeprefix("torch."),
        max_tokens=options.max_tokens,
    )
    with closing(backend):
        processor, student = backend.loaded
        check_kind(model, student.config)
        batches = Batches(
            lessons.held_out,
            processor,
            ends=end_tokens(processor, student),
            reader=lessons.reader,
            options=options,
            accelerator=accelerator,
            ledger=ledger,
        )
        loss = held_out_loss(accelerator, student, batches)
        assert loss is not None  # it is not given up here
        mine = range(accelerator.process_index, len(lessons.held_out), accelerator.num_processes)
        with track("captioning held-out images") as show:
            images = {index: lessons.held_out[index] for index in mine}
            captions = _caption(backend, images, lessons.reader, options, show)
    found = dict(gather_object(list(captions.items())))
    answers = [found.get(index) for index in range(len(lessons.held_out))]
    return _compared(metrics, lessons.held_out, answers, loss)


def held_out_loss(
    accelerator: Accelerator, model: Any, batches: Batches, *, given_up: Callable[[], bool] = lambda: False
) -> float | None:
    """Return the mean loss over all of the teacher's tokens, the same on every rank; None if it was stopped.

    Args:
        accelerator: The run's accelerator.
        model: The student.
        batches: Batches of the held-out images.
        given_up: Called before each batch; returns whether to stop, the same on every rank.
    """
    total = torch.zeros(2, dtype=torch.float64, device=accelerator.device)  # (sum of losses, number of tokens)
    with torch.no_grad(), accelerator.autocast():
        for batch in batches.once():
            if given_up():
                return None
            if batch is None:
                continue
            batch = {name: value.to(accelerator.device) for name, value in batch.items()}
            total[0] += loss_sum(model, batch)
            total[1] += (batch["labels"] != IGNORED).sum()
    loss, tokens = accelerator.reduce(total, reduction="sum").tolist()
    return float(loss / tokens) if tokens else float("nan")


def _caption(
    backend: TransformersBackend,
    lessons: Mapping[int, Lesson],
    reader: ImageReader,
    options: DistillConfig,
    show: Show,
) -> dict[int, str | None]:
    """Caption held-out images as `calotype caption` does; those that can't be read are missing from the result."""

    def prepared(index: int) -> Image.Image | None:
        try:
            return prepare_image(lessons[index].image, pixels=options.pixels, reader=reader)
        except ImageError:
            return None

    more, indices = counter(show, len(lessons)), list(lessons)
    captions: dict[int, str | None] = {}
    with ThreadPoolExecutor() as readers:
        for first in range(0, len(indices), backend.batch_size):
            some = indices[first : first + backend.batch_size]
            read = zip(some, readers.map(prepared, some), strict=True)
            images = {index: image for index, image in read if image is not None}
            answers = backend.caption([lessons[index].request(image) for index, image in images.items()])
            captions |= {index: answer.text for index, answer in zip(images, answers, strict=True)}
            more(len(some))
    return captions


def _compared(metrics: Any, lessons: Sequence[Lesson], answers: Sequence[str | None], loss: float) -> HeldOut:
    """Compute the scores of the student's captions."""
    captions = [answer or "" for answer in answers]  # a missing caption counts as an empty one
    # Sacrebleu takes a list of first references, one of second references, …; None where an image has fewer.
    most = max(len(lesson.captions) for lesson in lessons)
    references = [[lesson.captions[i] if i < len(lesson.captions) else None for lesson in lessons] for i in range(most)]
    bleu, chrf = metrics.BLEU(), metrics.CHRF()
    scores = Scores(
        bleu=bleu.corpus_score(captions, references).score,
        chrf=chrf.corpus_score(captions, references).score,
        loss=loss,
        answers=len(answers),
        without=sum(answer is None for answer in answers),
        signatures=(str(bleu.get_signature()), str(chrf.get_signature())),
    )
    rows = [
        {"id": lesson.id, "prompt": lesson.prompt, "teacher": list(lesson.captions), "student": answer}
        for lesson, answer in zip(lessons, answers, strict=True)
    ]
    return HeldOut(scores=scores, answers=tuple(rows))


def _sacrebleu() -> Any:
    try:
        return importlib.import_module("sacrebleu.metrics")
    except ModuleNotFoundError as error:
        raise MissingDependencyError("sacrebleu", extra="distill", purpose="to compare captions") from error
