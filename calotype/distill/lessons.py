"""`Lesson`: an image, what is asked about it, what the teacher says; and `Batches`, each made from its number."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import xxhash
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from calotype.captioning.backend import CaptionRequest
from calotype.captioning.prepare_image import prepare_image
from calotype.config.distill import DistillConfig
from calotype.distill.chat import answer_tokens, collate
from calotype.errors import ConfigError, ImageError
from calotype.images import ImageReader
from calotype.ledger import Ledger
from calotype.loader.permutation import Permutation
from calotype.types import ImageRef

__all__ = ["Batches", "Lesson", "Lessons"]

_AHEAD: Final = 2
"""Batches that are begun while one is in use."""
_THREADS: Final = 8
"""That read images."""
_COLLATING: Final = threading.Lock()
"""A tokenizer serves one thread at a time, and one side's batches are begun while the other's are in use."""

_Read = tuple[CaptionRequest, list[int]]
"""An example with its image: what is asked, and the answer's tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """One image with one question."""

    id: str
    """The row's."""
    image: ImageRef
    prompt: str
    system: str | None
    captions: tuple[str, ...]
    """What the teacher says: each is a right answer."""

    def request(self, image: Image.Image) -> CaptionRequest:
        """The question, as a backend takes it."""
        return CaptionRequest(image=image, prompt=self.prompt, system=self.system)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lessons:
    """All there is to learn from."""

    training: tuple[Lesson, ...]
    held_out: tuple[Lesson, ...]
    """Never trained on: the scores are of these."""
    reader: ImageReader
    """Reads their images."""
    teacher: Mapping[str, Any]
    """Whose words they are, in plain values: `dataset`, or backend, model and parameters."""


class Batches:
    """What is trained on, for one rank: batch n is a function of n alone, so a resumed run needs to remember nothing.

    Each caption of each lesson is an example of its own; an epoch goes once through all, in an order drawn from
    (seed, epoch). An image that can't be read is noted, and the next example takes its place.

    Args:
        lessons: From them all ranks take their shares.
        processor: The student's.
        ends: The tokens at which the student stops.
        reader: Reads the images.
        options: Sizes, and the seed of the order.
        accelerator: Knows the ranks.
        ledger: Where what is left out is noted.
    """

    def __init__(
        self,
        lessons: Iterable[Lesson],
        processor: Any,
        *,
        ends: frozenset[int],
        reader: ImageReader,
        options: DistillConfig,
        accelerator: Accelerator,
        ledger: Ledger,
    ) -> None:
        self._processor, self._reader = processor, reader
        self._batch_size, self._pixels, self._seed = options.batch_size, options.pixels, options.seed
        self._rank, self._world, self._ledger = accelerator.process_index, accelerator.num_processes, ledger
        self._order = lru_cache(maxsize=2)(self._new_order)
        self._examples: list[tuple[Lesson, list[int]]] = []
        hashed = xxhash.xxh3_128()
        for lesson in lessons:
            for caption in lesson.captions:
                answer = answer_tokens(self._processor, ends, caption)
                if len(answer) > options.max_tokens:
                    ledger.add("too_long", lesson.id, f"{len(answer)} tokens, and max_tokens is {options.max_tokens}")
                    continue
                self._examples.append((lesson, answer))
                for part in (lesson.id, lesson.prompt, lesson.system or "", caption):
                    hashed.update(f"{len(part)}:{part}".encode())
        self._fingerprint = hashed.hexdigest()

    @property
    def examples(self) -> int:
        """Captions of an epoch, those of all ranks."""
        return len(self._examples)

    def batch(self, number: int) -> dict[str, Tensor]:
        """Batch `number` of the endless row of epochs, always full."""
        first = (number * self._world + self._rank) * self._batch_size
        places = [self._at(position) for position in range(first, first + self._batch_size)]
        return self._made(self._read(places, replace=True))

    def endless(self, number: int) -> Generator[dict[str, Tensor]]:
        """The batches from `number` on, some of them begun ahead in a thread."""
        with ThreadPoolExecutor(1) as thread:
            ahead = deque(thread.submit(self.batch, number + i) for i in range(_AHEAD))
            while True:
                made = ahead.popleft().result()
                number += 1
                ahead.append(thread.submit(self.batch, number + _AHEAD - 1))
                yield made

    def once(self) -> Iterator[dict[str, Tensor]]:
        """The rank's share of a single pass in the lessons' order, without those that can't be read."""
        mine = range(self._rank, len(self._examples), self._world)
        for first in range(0, len(mine), self._batch_size):
            if read := self._read(mine[first : first + self._batch_size], replace=False):
                yield self._made(read)

    def state_dict(self) -> dict[str, Any]:
        """What the batches follow from, beside the options."""
        return {"examples": self._fingerprint, "world": self._world}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Refuses another run's.

        Raises:
            ConfigError: Captions, images or the number of ranks have changed since.
        """
        now = self.state_dict()
        if dict(state) != now:
            what = "captions" if state.get("examples") != now["examples"] else "number of processes"
            raise ConfigError(
                f"distill: the {what} changed since the checkpoint was written, so its run can't be gone on with; "
                "begin anew in another output_dir"
            )

    def _at(self, position: int) -> int:
        """Which example stands there in the endless row of epochs."""
        epoch, place = divmod(position, len(self._examples))
        return int(self._order(epoch)(place))

    def _new_order(self, epoch: int) -> Permutation:
        return Permutation(len(self._examples), self._seed, epoch)

    def _made(self, examples: Sequence[_Read]) -> dict[str, Tensor]:
        with _COLLATING:
            return collate(self._processor, [request for request, _ in examples], [answer for _, answer in examples])

    def _read(self, places: Sequence[int], *, replace: bool) -> list[_Read]:
        """The examples with their images; without those that can't be read, or with others in their place."""
        with ThreadPoolExecutor(_THREADS) as readers:
            found = list(readers.map(lambda place: self._read_one(place, replace=replace), places))
        return [read for read in found if read is not None]

    def _read_one(self, place: int, *, replace: bool) -> _Read | None:
        for step in range(len(self._examples) if replace else 1):
            lesson, answer = self._examples[(place + step) % len(self._examples)]
            try:
                image = prepare_image(lesson.image, pixels=self._pixels, reader=self._reader)
                return lesson.request(image), answer
            except ImageError as error:
                self._ledger.add(error.kind, lesson.id, error.reason)
        if replace:
            raise ConfigError("distill: none of the images can be read; `calotype check` says why")
        return None
