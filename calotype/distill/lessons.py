"""`Lesson`: an image, a prompt and the teacher's captions; `Batches`: batches that are functions of their number."""

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
"""Number of batches prepared ahead."""
_THREADS: Final = 8
"""Threads that read images."""
_COLLATING: Final = threading.Lock()
"""A tokenizer is not thread-safe, and batches of both sides may be prepared at once."""

_Read = tuple[CaptionRequest, list[int]]
"""An example with its image: the request, and the caption's tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """One image with one prompt."""

    id: str
    """Id of the row."""
    image: ImageRef
    prompt: str
    system: str | None
    captions: tuple[str, ...]
    """The teacher's captions; each is an example."""

    def request(self, image: Image.Image) -> CaptionRequest:
        """Return the request for a captioning backend."""
        return CaptionRequest(image=image, prompt=self.prompt, system=self.system)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lessons:
    """The examples of both sides."""

    training: tuple[Lesson, ...]
    held_out: tuple[Lesson, ...]
    """Lessons for scores; never trained on."""
    reader: ImageReader
    """Reads the images of both."""
    teacher: Mapping[str, Any]
    """The source of the captions, in plain values: `dataset`, or backend, model and parameters."""


class Batches:
    """The batches of one rank: batch n is a function of n only, so a resume needs no state.

    Each caption of each lesson is an example. An epoch has each example once, in a random order that follows from
    (seed, epoch). An image that can't be read is appended to the ledger, and replaced by the next example.

    Args:
        lessons: The lessons of all ranks.
        processor: The student's processor.
        ends: Ids of the tokens at which the student stops.
        reader: Reads the images.
        options: The `distill` section, for sizes and the seed of the order.
        accelerator: The run's accelerator, for rank and number of ranks.
        ledger: Records the images that are left out.
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
        """Number of captions of an epoch, on all ranks."""
        return len(self._examples)

    def batch(self, number: int) -> dict[str, Tensor]:
        """Return batch `number` of the infinite sequence of epochs; it is always full."""
        first = (number * self._world + self._rank) * self._batch_size
        indices = [self._at(position) for position in range(first, first + self._batch_size)]
        return self._made(self._read(indices, replace=True))

    def endless(self, number: int) -> Generator[dict[str, Tensor]]:
        """Yield the batches from `number` on; a thread prepares `_AHEAD` of them in advance."""
        with ThreadPoolExecutor(1) as thread:
            ahead = deque(thread.submit(self.batch, number + i) for i in range(_AHEAD))
            while True:
                made = ahead.popleft().result()
                number += 1
                ahead.append(thread.submit(self.batch, number + _AHEAD - 1))
                yield made

    def once(self) -> Iterator[dict[str, Tensor] | None]:
        """Yield the rank's share of a single pass in the lessons' order, without images that can't be read.

        Every rank yields equally often: None where it has no example left.
        """
        mine = range(self._rank, len(self._examples), self._world)
        most = -(-len(self._examples) // self._world)
        for first in range(0, most, self._batch_size):
            read = self._read(mine[first : first + self._batch_size], replace=False)
            yield self._made(read) if read else None

    def state_dict(self) -> dict[str, Any]:
        """Return the inputs of the batches besides the options: a hash of the examples, the number of ranks."""
        return {"examples": self._fingerprint, "world": self._world}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Refuse the state of another run.

        Raises:
            ConfigError: Captions, images or the number of ranks have changed.
        """
        now = self.state_dict()
        if dict(state) != now:
            what = "captions" if state.get("examples") != now["examples"] else "number of processes"
            raise ConfigError(
                f"distill: the {what} changed since the checkpoint was written, so its run can't be resumed; begin "
                "anew in another output_dir"
            )

    def _at(self, position: int) -> int:
        """Return the index of the example at a position in the infinite sequence of epochs."""
        epoch, index = divmod(position, len(self._examples))
        return int(self._order(epoch)(index))

    def _new_order(self, epoch: int) -> Permutation:
        return Permutation(len(self._examples), self._seed, epoch)

    def _made(self, examples: Sequence[_Read]) -> dict[str, Tensor]:
        with _COLLATING:
            return collate(self._processor, [request for request, _ in examples], [answer for _, answer in examples])

    def _read(self, indices: Sequence[int], *, replace: bool) -> list[_Read]:
        """Read the images of examples; those that can't be read are left out, or replaced by the next examples."""
        with ThreadPoolExecutor(_THREADS) as readers:
            found = list(readers.map(lambda index: self._read_one(index, replace=replace), indices))
        return [read for read in found if read is not None]

    def _read_one(self, index: int, *, replace: bool) -> _Read | None:
        for step in range(len(self._examples) if replace else 1):
            lesson, answer = self._examples[(index + step) % len(self._examples)]
            try:
                image = prepare_image(lesson.image, pixels=self._pixels, reader=self._reader)
                return lesson.request(image), answer
            except ImageError as error:
                self._ledger.add(error.kind, lesson.id, error.reason)
        if replace:
            raise ConfigError("distill: none of the images can be read; `calotype check` says why")
        return None
