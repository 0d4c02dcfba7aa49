"""SampleSource: everything that a Loader may ask of what gives its samples."""

from __future__ import annotations

import abc
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch

from calotype.errors import ConfigError
from calotype.ledger import LedgerEntry
from calotype.manifest import Manifest
from calotype.models import Truncation
from calotype.progress import Show
from calotype.transforms import CaptionDraw
from calotype.types import Batch, SampleKey

__all__ = ["BatchSource", "PreparedSample", "SampleSource", "check_source"]


class PreparedSample(dict[str, Any]):
    """A sample as it travels to the device: name → tensor, number, text or `Readable`."""

    caption: CaptionDraw | None = None
    """How its caption was drawn, where a tokenizer may cut it: the loader notes what is lost."""


class BatchSource(NamedTuple):
    """What prepares the samples of one batch."""

    prepare: Callable[[SampleKey], Mapping[str, Any]]
    """As `SampleSource.prepare`. It is also called for the samples that stand in for unreadable ones."""
    only_reads: bool = False
    """Whether `prepare` takes next to no time, and what is left is to read its tensors (`calotype.types.Readable`):
    each thread then reads its share of the batch at once."""


class SampleSource(torch.utils.data.Dataset[dict[str, Any]], abc.ABC):
    """Gives the samples of a `Loader`: subclass it for samples that calotype does not make itself.

    `__len__` and `prepare` are required; everything else has a default. A public method whose name is near to one of
    these, or that can't be called as the loader calls it, is an error when an object is made. The loader prepares
    samples in a process of its own, to which the source is pickled (cloudpickle); `begin_epoch`, `take_notes` and
    `close` are called in the trainer's process.

    A source is a map-style dataset for any other loader, too.
    """

    manifest: Manifest | None = None
    """The rows that the samples are made of, where there are some: their ids and weights."""
    seed: int = 0
    """Of the order and of every draw, where the loader is given none."""
    only_reads: bool = False
    """As `BatchSource.only_reads`, for every batch."""
    finishes_in_trainer: bool = False
    """Whether `finish` has to run in the trainer's process. By default it runs there on a GPU, on whole batches, and in
    the loader's threads where the device is the CPU."""

    def __new__(cls, *args: Any, **options: Any) -> Self:
        _check_class(cls)
        if (args or options) and cls.__init__ is object.__init__:  # Python no longer checks it beside a `__new__`
            raise TypeError(f"{cls.__name__}() takes no arguments")
        return super().__new__(cls)

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many samples there are."""

    @abc.abstractmethod
    def prepare(self, key: SampleKey) -> Mapping[str, Any]:
        """Make one sample, as it travels to the device. Called from several threads at once.

        Args:
            key: Which sample (`index`), and all that its random draws may depend on: `epoch`, `repeat`, `seed` (None
                for this source's own) and `size`, the (height, width) of its bucket.

        Returns:
            Name → tensor (CPU), number, text or `calotype.types.Readable`. The samples of a batch agree in names,
            shapes and dtypes. Where a tokenizer may cut the caption, a `PreparedSample` with its draw.

        Raises:
            ImageError: This sample can't be read. Under `on_error="replace"` another one takes its place.
        """

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        """One whole sample, as the model takes it.

        Raises:
            ImageError: It can't be read. (A Loader goes on without it; here it is yours to handle.)
        """
        return self.finish(self.prepare(self.checked(key)))

    def checked(self, key: int | SampleKey) -> SampleKey:
        """The key that a number or a negative index stands for.

        Raises:
            IndexError: There is no such sample.
        """
        key = key if isinstance(key, SampleKey) else SampleKey(int(key))
        if not -len(self) <= key.index < len(self):
            raise IndexError(f"sample {key.index} of a dataset of {len(self)}")
        return key._replace(index=key.index % len(self))

    def finish(self, batch: Mapping[str, Any]) -> Batch:
        """Do what is left to do on the device, for a sample or a whole batch. The bits must be the same for both."""
        return dict(batch)

    def for_batch(self, keys: Sequence[SampleKey]) -> BatchSource:
        """What prepares the samples of one batch; called some batches ahead, in their order."""
        return BatchSource(self.prepare, self.only_reads)

    def ids(self, start: int, stop: int) -> list[str]:
        """The ids of samples `start` to `stop - 1`, by which the ledger names them: the manifest's, else numbers.

        A saved position belongs to these ids.
        """
        if self.manifest is None:
            return [str(index) for index in range(start, stop)]
        ids: list[str] = self.manifest.ids.slice(start, stop - start).to_pylist()
        return ids

    def weights(self) -> npt.NDArray[np.float64] | None:
        """(N,): how many times an epoch shows each sample; None for once each."""
        return None if self.manifest is None else self.manifest.weights()

    @property
    def bucket_sizes(self) -> Sequence[tuple[int, int] | None]:
        """The (height, width) of each bucket: the samples of a batch are of one bucket. One `None`: there is one."""
        return (None,)

    def scan(self, *, progress: Show | None = None) -> tuple[npt.NDArray[np.int32], list[LedgerEntry]]:
        """The bucket of every sample, and what there is to note of them.

        Args:
            progress: Called with (done, total).

        Returns:
            int32 (N,) with the index into `bucket_sizes` of each sample, -1 for those to leave out; and ledger entries.
        """
        return np.zeros(len(self), dtype=np.int32), []

    def truncated(self, text: str) -> Mapping[str, Truncation]:
        """The tokenizers that can't take the whole of a caption, and what they cut; empty when it fits."""
        return {}

    def begin_epoch(
        self, *, first: bool = False, whole: bool = False, rank: int = 0, world_size: int = 1
    ) -> list[LedgerEntry]:
        """Called in the trainer's process before each epoch.

        Args:
            first: Whether it is the loader's first epoch.
            whole: Whether the epoch before went to its end.
            rank: Of this process.
            world_size: How many there are.

        Returns:
            What there is to note of the dataset. What is the same on every rank is noted by rank 0 alone.
        """
        return []

    def take_notes(self) -> list[LedgerEntry]:
        """What there is to note since the last call; called in the trainer's process after each `finish`."""
        return []

    def with_device_cache(self, device: torch.device) -> Self:
        """The same source, which keeps its samples on the device: the loader's `device_cache`.

        Raises:
            ConfigError: It can't.
        """
        raise ConfigError(f"device_cache: {type(self).__name__} has no with_device_cache; leave device_cache out")

    def close(self) -> None:
        """Called in the trainer's process when the loader closes. The source stays usable."""


_CONTRACT = {
    name: value
    for name, value in vars(SampleSource).items()
    if name in ("__len__", "__getitem__") or not (name.startswith("_") or name == "checked")
}
_NEAR = 0.76
"""How alike a name is, at least, that is taken for a misspelt one."""


def check_source(found: Any) -> None:
    """Refuse what is not a whole `SampleSource`.

    Raises:
        ConfigError: Says what it lacks.
    """
    if not isinstance(found, SampleSource):
        raise ConfigError(
            f"dataset: found a {type(found).__name__}, expected a calotype.SampleSource, such as TextToImageDataset; "
            "docs/trainers.md shows how to write one of your own"
        )
    for name, value in vars(found).items():
        if inspect.isfunction(_CONTRACT.get(name)) and not callable(value):
            raise ConfigError(
                f"{type(found).__name__}: self.{name} is a {type(value).__name__} and hides the method "
                f"{name}{_signature(name)}; give it another name"
            )


@cache
def _check_class(cls: type[SampleSource]) -> None:
    """Refuse a class that misses a part of the contract, by what stands in it."""
    own = {
        name: value
        for base in reversed(cls.__mro__)
        if issubclass(base, SampleSource) and base is not SampleSource
        for name, value in vars(base).items()
    }
    for name in sorted(cls.__abstractmethods__):
        methods = sorted(other for other, value in own.items() if other not in _CONTRACT and _is_method(value))
        near = difflib.get_close_matches(name, methods, n=1, cutoff=0.7)
        hint = f"; did you mean {name} where it has {near[0]}?" if near else ""
        raise ConfigError(f"{cls.__name__}: has no {name}{_signature(name)}, which a SampleSource needs{hint}")
    absent = sorted(name for name in _CONTRACT if name not in own)
    for name, value in own.items():
        where = f"{cls.__name__}.{name}"
        if name in _CONTRACT:
            _check_kind(where, name, value)
            _check_call(where, name, cls)
            continue
        near = [] if name.startswith("_") else difflib.get_close_matches(name, absent, n=1, cutoff=_NEAR)
        if near and (_is_method(value) or not inspect.isfunction(_CONTRACT[near[0]])):
            raise ConfigError(
                f"{where}: a SampleSource has no {name}; did you mean {near[0]}? (Names that begin with _ are not "
                "compared)"
            )


def _check_kind(where: str, name: str, value: Any) -> None:
    """Refuse a method in the place of a value, and the other way about."""
    wanted = inspect.isfunction(_CONTRACT[name])
    if wanted and not _is_method(value):
        raise ConfigError(f"{where}: found a {type(value).__name__}, expected a method {name}{_signature(name)}")
    if not wanted and _is_method(value):
        raise ConfigError(f"{where}: found a method, expected a value or a property")


def _is_method(value: Any) -> bool:
    return callable(value) or isinstance(value, staticmethod | classmethod)


def _check_call(where: str, name: str, cls: type[SampleSource]) -> None:
    """Refuse a method that can't be called as the loader calls it."""
    wanted = _CONTRACT[name]
    if not inspect.isfunction(wanted):
        return
    _, *parameters = inspect.signature(wanted).parameters.values()
    positional = [one.name for one in parameters if one.kind is not one.KEYWORD_ONLY]
    named = {one.name: None for one in parameters if one.kind is one.KEYWORD_ONLY}
    bound = isinstance(inspect.getattr_static(cls, name), staticmethod | classmethod)
    found = inspect.signature(getattr(cls, name))
    try:
        found.bind(*([] if bound else [cls]), *positional, **named)
    except TypeError as error:
        raise ConfigError(
            f"{where}{found.replace(return_annotation=found.empty)}: can't be called as the loader does ({error}); "
            f"expected {name}{_signature(name)}"
        ) from None


def _signature(name: str) -> str:
    """A method's parameters without their types."""
    signature = inspect.signature(_CONTRACT[name])
    bare = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))
