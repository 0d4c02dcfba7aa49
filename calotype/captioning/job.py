"""`CaptionJob`: which captions a dataset lacks, and what is written when they are there."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from calotype.captioning.ledger import CaptionLedger, LedgerEntry
from calotype.captioning.modes import Mode, merge_captions
from calotype.captioning.presets import CaptionPreset
from calotype.captioning.prompts import (
    BackendIdentity,
    CaptionVariant,
    ImagePrompts,
    plan_variants,
    prompt_variables,
    render_prompt,
)
from calotype.captioning.report import CaptionFailure, CaptionReport, Example
from calotype.editing import Captions, CaptionState
from calotype.errors import ConfigError, EditError, ImageError
from calotype.images import ImageReader
from calotype.images.scan import scan_contents
from calotype.manifest import Manifest
from calotype.progress import Track, silent

__all__ = ["CaptionJob", "Run"]

_OFTEN: Final = 30.0
"""Seconds after which finished captions are written, so that others see them; at the end all are, in any case."""
_SELDOM: Final = 20.0
"""Writing takes no larger part of the time than one in so many."""


@dataclass(kw_only=True, slots=True)
class CaptionJob:
    """Captions to be made for a dataset.

    Args:
        captions: Where they are read and written.
        manifest: The same rows, rejected ones left out.
        reader: Reads the images.
        presets: What to ask for.
        count: Captions for each image; one of each preset by default.
        mode: See `merge_captions`.
        class_word: For the presets: what kind of thing the subject is.
        seed: Of the first caption of each preset.
        force: Replace captions that a person wrote.
        retry_failed: Ask again for what failed in earlier runs.
        sidecars: Also write `.txt` files beside the images.
        only: Ids of the rows to caption; all by default.
        pixels: The budget that images are made to fit.
    """

    captions: Captions
    manifest: Manifest
    reader: ImageReader
    presets: Sequence[CaptionPreset]
    count: int | None
    mode: Mode
    class_word: str | None
    seed: int
    force: bool
    retry_failed: bool
    sidecars: bool
    only: Collection[str] | None
    pixels: int

    @property
    def draws(self) -> list[CaptionVariant]:
        return plan_variants(self.presets, self.count, self.seed)

    @property
    def root(self) -> Path:
        """The dataset's folder."""
        return self.captions.root

    def plan(self, asker: BackendIdentity, ledger: CaptionLedger, *, track: Track = silent) -> Run:
        """What there is to do. Opens no image but those whose captions may be the ledger's.

        Raises:
            ConfigError: A preset uses a variable that no image has a value for; or a prompt is to be answered more
                than once, and always alike.
        """
        draws, states = self.draws, self.captions.read()
        if len(draws) > len(self.presets) and asker.parameters.get("temperature") == 0:
            raise ConfigError(
                f"n: {len(draws)} captions of {len(self.presets)} presets at temperature 0 would be the same again; "
                "set a temperature such as 0.7, or name more presets"
            )
        if self.seed and asker.parameters.get("temperature") == 0:
            raise ConfigError(
                f"seed: {self.seed} has no effect at temperature 0, where every seed gives the same caption; set a "
                "temperature such as 0.7"
            )
        run = Run(job=self, asker=asker, ledger=ledger, per_picture=len(draws))
        for id in sorted(set(self.only or ()) - states.keys() - set(self.manifest.ids.to_pylist())):
            run.fail(id, "unknown_id", "the dataset has no image of this id", "", again=False)
        chosen = [
            index
            for index, id in enumerate(self.manifest.ids.to_pylist())
            if id in states and (self.only is None or id in self.only)
        ]
        pictures = self._pictures(chosen, states, draws, ledger, track)
        for index in chosen:
            row = self.manifest[index]
            state = states[row.id]
            if state.problem is not None:
                run.fail(row.id, "unreadable_captions", state.problem, "", again=False)
                continue
            row = replace(row, captions=state.captions)  # as they are now
            answered = ledger.captions(pictures[index]) if index in pictures else []
            variables = prompt_variables(row, self.class_word)
            questions = tuple(
                render_prompt(draw, variables, asker, answered=answered, current=state.captions) for draw in draws
            )
            if state.captions and self.mode != "add":
                picture = pictures.get(index, "")
                known = [ledger.get(question.key(picture)) for question in questions]
                texts = [one.text for one in known if one is not None and one.text is not None]
                texts += [question.known for question in questions if question.known is not None]
                made = {answer.text or "" for answer in answered}
                if merge_captions(self.mode, state.captions, texts, made=made, force=self.force) is None:
                    run.kept += self.mode == "replace"
                    continue
            run.tasks.append(ImagePrompts(id=row.id, ref=row.image, questions=questions))
        return run

    def _pictures(
        self,
        indices: Sequence[int],
        states: dict[str, CaptionState],
        draws: Sequence[CaptionVariant],
        ledger: CaptionLedger,
        track: Track,
    ) -> dict[int, str]:
        """Row → hash of its image, where the ledger may know the captions that it has."""
        quotes = any("caption" in draw.preset.variables for draw in draws)
        ids = self.manifest.ids.to_pylist()
        wanted = []
        for index in indices:
            has = len(states[ids[index]].captions)
            if not has or not len(ledger):
                continue
            if quotes or self.mode == "replace" or (self.mode == "fill" and has < len(draws)):
                wanted.append(index)
        if not wanted:
            return {}
        with track("looking for captions that were edited") as show:
            found = scan_contents(self.manifest.refs(wanted), self.reader, progress=show)
        return {
            index: one.digest.hex() for index, one in zip(wanted, found, strict=True) if not isinstance(one, ImageError)
        }


@dataclass(kw_only=True, slots=True)
class Run:
    """A job under way: takes answers in, and writes captions out."""

    job: CaptionJob
    asker: BackendIdentity
    ledger: CaptionLedger
    per_picture: int
    tasks: list[ImagePrompts] = field(default_factory=list)
    kept: int = 0
    asked: int = 0
    reused: int = 0
    done: int = 0
    """Questions that have an answer."""
    written: set[str] = field(default_factory=set)
    failures: list[CaptionFailure] = field(default_factory=list)
    backup: Path | None = None
    _backed_up: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """Answers come from other threads than those that write."""
    _answers: dict[str, dict[int, LedgerEntry]] = field(default_factory=dict)
    _finished: list[str] = field(default_factory=list)
    _started: float = field(default_factory=time.perf_counter)
    _wrote_at: float = field(default_factory=time.perf_counter)
    _write_took: float = 0.0

    @property
    def total(self) -> int:
        """Questions in all."""
        return len(self.tasks) * self.per_picture

    def fail(self, id: str, kind: str, reason: str, preset: str, *, again: bool) -> None:
        self.failures.append(CaptionFailure(id=id, kind=kind, reason=reason, preset=preset, again=again))

    def take(self, task: ImagePrompts, place: int, answer: LedgerEntry, new: bool) -> None:
        """An answer to one of the questions about an image."""
        if new:
            self.ledger.learn(answer)
        with self._lock:
            self.done += 1
            self.asked += new
            if answer.text is not None:
                self.reused += not new
            else:
                remembered = not new and answer.at > 0
                self.fail(task.id, answer.kind or "failed", answer.error or "", answer.preset, again=remembered)
            answers = self._answers.setdefault(task.id, {})
            answers[place] = answer
            if len(answers) == len(task.questions):
                self._finished.append(task.id)

    def examples(self) -> Iterator[Example]:
        """What a dry run shows."""
        states = self.job.captions.read([task.id for task in self.tasks])
        for task in self.tasks:
            texts = tuple(dict.fromkeys(_texts(self._answers.get(task.id, {}))))
            if texts:
                yield Example(id=task.id, captions=texts, now=states[task.id].captions)

    def write_now_and_then(self) -> None:
        """Writes what is finished, if the last time is long enough ago."""
        since = time.perf_counter() - self._wrote_at
        if self._finished and since > max(_OFTEN, _SELDOM * self._write_took):
            self.write()

    def write(self, *, unfinished: bool = False) -> None:
        """Writes captions to where they belong: whole, and only over what nobody has changed meanwhile.

        Args:
            unfinished: Also those of images of which some captions are still to come.

        Raises:
            EditError: They can't be written there. The answers are in the ledger all the same.
        """
        start = time.perf_counter()
        with self._lock:
            ids, self._finished = self._finished, []
            if unfinished:
                ids = list(self._answers)
        places = {task.id: place for place, task in enumerate(self.tasks)}
        ids.sort(key=places.__getitem__)
        while ids:  # what somebody else has changed meanwhile is looked at anew
            ids = self._write(ids)
        self._wrote_at = time.perf_counter()
        self._write_took = self._wrote_at - start

    def _write(self, ids: Sequence[str]) -> list[str]:
        states = self.job.captions.read(ids)
        with self._lock:
            answers = {id: dict(self._answers[id]) for id in ids}
        changes: dict[str, tuple[str, ...]] = {}
        for id, state in states.items():
            texts = _texts(answers[id])
            pictures = {answer.picture for answer in answers[id].values()}
            made = {answer.text or "" for picture in pictures for answer in self.ledger.captions(picture)}
            wanted = merge_captions(self.job.mode, state.captions, texts, made=made, force=self.job.force)
            if texts and wanted is not None and wanted != state.captions and state.problem is None:
                changes[id] = wanted
        return self._put(changes, {id: states[id].version for id in changes}) if changes else []

    def _put(self, changes: Mapping[str, Sequence[str]], versions: Mapping[str, str]) -> list[str]:
        """Writes captions, and gives back the rows that somebody has changed meanwhile."""
        try:
            written = self.job.captions.write(
                changes,
                expect={id: versions[id] for id in changes},
                backup=not self._backed_up,
                sidecars=self.job.sidecars,
            )
        except EditError as error:
            if isinstance(error.__cause__, OSError):
                raise
            ids = list(changes)  # the data can't hold one of them: that one must not cost the others theirs
            if len(ids) == 1:
                self.fail(ids[0], "not_written", str(error), "", again=False)
                return []
            halves = ids[: len(ids) // 2], ids[len(ids) // 2 :]
            return [id for half in halves for id in self._put({one: changes[one] for one in half}, versions)]
        self._backed_up = True
        self.backup = self.backup or written.backup
        self.written.update(written.states)
        return [id for id, state in written.conflicts.items() if state is not None]

    def write_sidecars(self) -> None:
        """Sees to it that every captioned image has its captions beside it, those of earlier runs too."""
        states = self.job.captions.read()
        captioned = {id: state.captions for id, state in states.items() if state.captions and state.problem is None}
        if captioned:
            versions = {id: states[id].version for id in captioned}
            self.job.captions.write(captioned, expect=versions, backup=not self._backed_up, sidecars=True)

    def report(self, *, examples: Sequence[Example] = ()) -> CaptionReport:
        """What came of it."""
        return CaptionReport(
            backend=self.asker.backend,
            model=self.asker.model,
            images=len(self.job.manifest),
            asked=self.asked,
            reused=self.reused,
            written=len(self.written),
            kept=self.kept,
            failures=tuple(self.failures),
            seconds=time.perf_counter() - self._started,
            backup=self.backup,
            examples=tuple(examples),
        )


def _texts(answers: Mapping[int, LedgerEntry]) -> list[str]:
    return [text for place in sorted(answers) if (text := answers[place].text) is not None]
