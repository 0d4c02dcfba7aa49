"""The sources of lessons: the captions of a dataset, or a captioner, which is called once for each caption."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from calotype.captioning.backend import CaptionBackend
from calotype.captioning.ledger import CaptionLedger, LedgerEntry
from calotype.captioning.pipeline import CaptionPipeline
from calotype.captioning.presets import CaptionPreset
from calotype.captioning.prompts import BackendIdentity, ImagePrompts, plan_variants, prompt_variables, render_prompt
from calotype.distill.lessons import Lesson
from calotype.errors import ConfigError
from calotype.images import ImageReader
from calotype.ledger import Ledger
from calotype.progress import Show
from calotype.types import Row

__all__ = ["from_captioner", "from_dataset"]


def from_dataset(
    rows: Sequence[Row], presets: Sequence[CaptionPreset], class_word: str | None, *, ledger: Ledger
) -> list[Lesson]:
    """Make lessons from a dataset's captions, each as an answer to the prompt of every preset.

    Args:
        rows: Images with captions.
        presets: The presets, for their prompts.
        class_word: Value of the class word, for presets that use it.
        ledger: Records the rows without a caption.

    Raises:
        ConfigError: A preset uses a variable that has no value.
    """
    asker = BackendIdentity(backend="dataset", model="dataset", parameters={}, pixels=0)
    lessons = []
    for row in rows:
        captions = tuple(caption for caption in row.captions if caption.strip())
        if not captions:
            ledger.add("no_caption", row.id, "it has no caption to learn from")
            continue
        variables = prompt_variables(row, class_word) | {"caption": None}  # the prompt must not contain the target
        for draw in plan_variants(presets, None, 0):
            question = render_prompt(draw, variables, asker, entries=(), current=())
            if question.error is not None:
                ledger.add("no_value", row.id, question.error)
                continue
            lessons.append(
                Lesson(id=row.id, image=row.image, prompt=question.text, system=question.system, captions=captions)
            )
    return lessons


def from_captioner(
    rows: Sequence[Row],
    presets: Sequence[CaptionPreset],
    class_word: str | None,
    *,
    backend: CaptionBackend,
    answers: CaptionLedger,
    n: int | None,
    pixels: int,
    reader: ImageReader,
    retry_failed: bool,
    show: Show,
    ledger: Ledger,
) -> list[Lesson]:
    """Make lessons from a captioner's captions; only those missing from its ledger are generated.

    Args:
        rows: Images, with captions or without.
        presets: The presets, for their prompts.
        class_word: Value of the class word, for presets that use it.
        backend: The teacher.
        answers: Ledger of the teacher's captions; new ones are appended at once, so a killed run loses none.
        n: Number of captions of each image; None is one for each preset.
        pixels: Maximum number of pixels of an image; larger images are downscaled.
        reader: Reads the images.
        retry_failed: Whether to generate captions again that failed before.
        show: Called with the progress.
        ledger: Records the images without a caption.

    Raises:
        CaptionError: Raised by the backend.
        ConfigError: There are more presets than requested captions, or captions of one image would be the same.
        EditError: The ledger of captions can't be written.
    """
    # Plan the prompts of each image.
    asker = BackendIdentity.of(backend, pixels)
    draws = plan_variants(presets, n, 0)
    if len(draws) > len(presets) and backend.parameters.get("temperature") == 0:
        raise ConfigError(
            f"distill.n: {len(draws)} captions of {len(presets)} presets at temperature 0 would be the same again; set "
            "teacher.temperature to 0.7, say, or name more presets"
        )
    tasks = []
    for row in rows:
        variables = prompt_variables(row, class_word)
        questions = [render_prompt(draw, variables, asker, entries=(), current=row.captions) for draw in draws]
        tasks.append(ImagePrompts(id=row.id, ref=row.image, prompts=tuple(questions)))

    # Generate the missing captions.
    given: dict[str, dict[int, str]] = defaultdict(dict)
    total, done = len(tasks) * len(draws), 0

    def answered(task: ImagePrompts, index: int, answer: LedgerEntry, new: bool) -> None:
        nonlocal done
        done += 1
        if answer.text is None:
            ledger.add(answer.kind or "failed", task.id, answer.error or "the teacher gave no caption")
        else:
            given[task.id][index] = answer.text
        show(done, total)

    CaptionPipeline(backend, reader, answers, pixels=pixels, retry_failed=retry_failed).run(tasks, answered)

    # Make a lesson of each prompt, with its distinct captions.
    lessons = []
    for task in tasks:
        alike: dict[tuple[str, str | None], list[str]] = defaultdict(list)  # captions of one prompt make one lesson
        for index, text in sorted(given[task.id].items()):
            alike[task.prompts[index].text, task.prompts[index].system].append(text)
        for (prompt, system), texts in alike.items():
            captions = tuple(dict.fromkeys(texts))
            lessons.append(Lesson(id=task.id, image=task.ref, prompt=prompt, system=system, captions=captions))
    return lessons
