"""`SampleSource`: the interface between a `Loader` and the dataset that makes its samples."""

from __future__ import annotations

import abc
import difflib
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch

from calotype.data.collate import FetchedSample
from calotype.data.repeated_epochs import RepeatedEpochs
from calotype.errors import ConfigError
from calotype.ledger import LedgerEntry
from calotype.manifest import Manifest
from calotype.models import Truncation
from calotype.progress import Show
from calotype.transforms import CaptionDraw
from calotype.types import Batch, SampleKey

__all__ = ["BatchSource", "PreparedSample", "SampleSource", "check_source"]


class PreparedSample(dict[str, Any]):
    """A sample before `finish`, as it is copied to the device: name → tensor, number, text or `Readable`."""

    caption: CaptionDraw | None = None
    """How its caption was made, if a tokenizer may truncate it: the loader adds a ledger entry for truncated ones."""


class BatchSource(NamedTuple):
    """Prepares the samples of one batch."""

    prepare: Callable[[SampleKey], Mapping[str, Any]]
    """As `SampleSource.prepare`. Also called for replacements of unreadable samples."""
    only_reads: bool = False
    """Whether `prepare` takes almost no time and returns tensors that are still to be read (`calotype.types.Readable`).
    Each thread then reads several samples per call."""


class SampleSource(torch.utils.data.Dataset[dict[str, Any]], abc.ABC):
    """Base class of the datasets of a `Loader`. Subclass it for samples that calotype does not make itself.

    `__len__` and `prepare` are required; everything else has a default. Creating an object raises a ConfigError if a
    public name is similar to one of the interface (a likely typo), or a method does not accept the loader's arguments.
    The loader pickles the source (cloudpickle) to a process of its own, which prepares the samples; `begin_epoch`,
    `take_notes` and `close` are called in the trainer's process.

    A source also works as a map-style dataset of other loaders, such as torch's DataLoader.
    """

    manifest: Manifest | None = None
    """The rows that samples are made from, with their ids and weights; None if there are none."""
    seed: int = 0
    """Seeds the order and every random transform, unless the loader has a seed."""
    only_reads: bool = False
    """As `BatchSource.only_reads`, for every batch."""
    finishes_in_trainer: bool = False
    """Whether `finish` must run in the trainer's process. If False, it runs there only for a device other than the CPU,
    on whole batches; for the CPU it runs in the loader's threads, on single samples."""

    _repeated_epochs: RepeatedEpochs

    def __new__(cls, *args: Any, **options: Any) -> Self:
        _check_class(cls)
        if (args or options) and cls.__init__ is object.__init__:  # Python skips this check if there is a `__new__`
            raise TypeError(f"{cls.__name__}() takes no arguments")
        source = super().__new__(cls)
        source._repeated_epochs = RepeatedEpochs()
        return source

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abc.abstractmethod
    def prepare(self, key: SampleKey) -> Mapping[str, Any]:
        """Return one sample before `finish`. Must be thread-safe: several threads call it at the same time.

        Args:
            key: The sample's `index`, and everything that its randomness may depend on: `epoch`, `repeat`, `seed` (None
                is the seed of this source) and `size`, the (height, width) of its bucket.

        Returns:
            Name → tensor (CPU), number, text or `calotype.types.Readable`. All samples of a batch have the same names,
            shapes and dtypes. A `PreparedSample` with its `caption`, if a tokenizer may truncate that.

        Raises:
            ImageError: The sample can't be read. With `on_error="replace"`, the loader replaces it by another.
        """

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        """Return one sample after `finish`: the input of the model.

        Raises:
            ImageError: The sample can't be read. (A Loader replaces it; here the caller handles the error.)
            IndexError: There is no such sample.
        """
        return self.finish(self.prepare(self.checked(key)))

    def __getitems__(self, keys: Sequence[int | SampleKey]) -> list[FetchedSample]:
        """Return several samples. torch's DataLoader requests the samples of a batch so."""
        if numbers := [self.checked(key).index for key in keys if not isinstance(key, SampleKey)]:
            self._repeated_epochs.note(numbers, len(self), self.__getitem__)
        return [FetchedSample(self[key], id=_id(self, self.checked(key).index)) for key in keys]

    def checked(self, key: int | SampleKey) -> SampleKey:
        """Return the key of a sample, with an index from 0; for an integer, that of epoch 0.

        Raises:
            IndexError: There is no such sample.
            TypeError: The key is neither an integer nor a `SampleKey`.
        """
        if not isinstance(key, SampleKey):
            try:
                key = SampleKey(operator.index(key))
            except TypeError:
                raise TypeError(_no_index(self, key)) from None
        if not -len(self) <= key.index < len(self):
            raise IndexError(f"sample {key.index} of a dataset of {len(self)}")
        return key._replace(index=key.index % len(self))

    def finish(self, batch: Mapping[str, Any]) -> Batch:
        """Complete a sample or a batch on the device. Both must have the same results, bit for bit."""
        return dict(batch)

    def for_batch(self, keys: Sequence[SampleKey]) -> BatchSource:
        """Return what prepares the samples of one batch. Called some batches ahead, in the order of the batches."""
        return BatchSource(self.prepare, self.only_reads)

    @property
    def starts_in_trainer(self) -> bool:
        """Whether threads of the trainer prepare the first batches, while the loader process starts.

        Only for samples that depend on nothing that is global to a process, such as torch's default dtype.
        """
        return False

    @property
    def lookahead(self) -> int:
        """How many samples `for_batch` is called ahead for, at least: some sources begin to fetch there."""
        return 0

    def ids(self, start: int, stop: int) -> list[str]:
        """Return the ids of samples `start` to `stop - 1`: those of the manifest, else their indices.

        Ledger entries have these ids. A `state_dict` of the loader can be loaded only if they are unchanged.
        """
        if self.manifest is None:
            return [str(index) for index in range(start, stop)]
        ids: list[str] = self.manifest.ids.slice(start, stop - start).to_pylist()
        return ids

    def weights(self) -> npt.NDArray[np.float64] | None:
        """Return the repeats of each sample in an epoch, (N,); None is once each."""
        return None if self.manifest is None else self.manifest.weights()

    @property
    def bucket_sizes(self) -> Sequence[tuple[int, int] | None]:
        """(height, width) of each bucket in pixels; all samples of a batch are of one bucket. `(None,)`: no buckets."""
        return (None,)

    def scan(self, *, progress: Show | None = None) -> tuple[npt.NDArray[np.int32], list[LedgerEntry]]:
        """Assign each sample to a bucket.

        Args:
            progress: Called with (done, total).

        Returns:
            int32 (N,), the index into `bucket_sizes` of each sample, or -1 to leave it out; and ledger entries.
        """
        return np.zeros(len(self), dtype=np.int32), []

    def truncated(self, text: str) -> Mapping[str, Truncation]:
        """Return name → truncation for each tokenizer that truncates a caption; empty if none does."""
        return {}

    def begin_epoch(
        self, *, first: bool = False, whole: bool = False, rank: int = 0, world_size: int = 1
    ) -> list[LedgerEntry]:
        """Prepare for an epoch. Called in the trainer's process before each one.

        Args:
            first: Whether this is the loader's first epoch.
            whole: Whether the previous epoch ran to its end.
            rank: Rank of this process.
            world_size: Number of ranks.

        Returns:
            Entries for the loader's ledger. Return those that are the same on every rank on rank 0 only.
        """
        return []

    def take_notes(self) -> list[LedgerEntry]:
        """Return the ledger entries since the last call. Called in the trainer's process, for each batch."""
        return []

    def with_device_cache(self, device: torch.device) -> Self:
        """Return a source with the same samples, cached on the device: for the loader's `device_cache`.

        Raises:
            ConfigError: The source does not support it.
        """
        raise ConfigError(f"device_cache: {type(self).__name__} has no with_device_cache; leave device_cache out")

    def close(self) -> None:
        """Release resources. Called in the trainer's process when the loader closes; the source stays usable."""


def _id(source: SampleSource, index: int) -> str:
    return source.ids(index, index + 1)[0]


_CONTRACT = {
    name: value
    for name, value in vars(SampleSource).items()
    if name in ("__len__", "__getitem__") or not (name.startswith("_") or name == "checked")
}
_NEAR = 0.76
"""Minimum similarity (`difflib`, 0 to 1) of a name that counts as a typo."""


_INSTEAD: Final = {
    "Subset": (
        "dataset.select(indices) makes one of some rows; validation=0.25 and split='train' or 'validation' of "
        "text_to_image_dataset hold some out"
    ),
    "ConcatDataset": "text_to_image_dataset(path=[a, b]) makes one of several",
}
"""What serves in place of torch's wrappers, whose samples have no key of an epoch."""


def check_source(found: Any) -> None:
    """Check that an object is a `SampleSource`, and that no attribute hides one of its methods.

    Raises:
        ConfigError: It is not, or one does.
    """
    if not isinstance(found, SampleSource):
        instead = _INSTEAD.get(type(found).__name__, "docs/trainers.md shows how to write one of your own")
        raise ConfigError(
            f"dataset: found a {type(found).__name__}, expected a calotype.SampleSource, such as TextToImageDataset; "
            f"{instead}"
        )
    for name, value in vars(found).items():
        if inspect.isfunction(_CONTRACT.get(name)) and not callable(value):
            raise ConfigError(
                f"{type(found).__name__}: self.{name} is a {type(value).__name__} and hides the method "
                f"{name}{_signature(name)}; give it another name"
            )


def _no_index(source: SampleSource, key: object) -> str:
    """Return what is wrong with a key that is no integer."""
    expected = f"index: found a {type(key).__name__}, expected an integer from 0 to {len(source) - 1}, or a SampleKey"
    match key:
        case [SampleKey(), *_]:
            return f"{expected}; pass a BatchSampler as DataLoader(…, batch_sampler=…)"
        case slice() | list() | tuple() | np.ndarray() | torch.Tensor():
            return f"{expected}: one sample each; TextToImageDataset.select(indices) returns a part of the dataset"
        case _:
            return expected


@cache
def _check_class(cls: type[SampleSource]) -> None:
    """Check that a class implements `SampleSource`: required methods, spelling, signatures.

    Raises:
        ConfigError: It does not.
    """
    # Everything that the class and its bases define, except for SampleSource itself.
    own = {
        name: value
        for base in reversed(cls.__mro__)
        if issubclass(base, SampleSource) and base is not SampleSource
        for name, value in vars(base).items()
    }
    # Required methods that are missing: suggest the method with the most similar name.
    for name in sorted(cls.__abstractmethods__):
        methods = sorted(other for other, value in own.items() if other not in _CONTRACT and _is_method(value))
        near = difflib.get_close_matches(name, methods, n=1, cutoff=0.7)
        hint = f"; did you mean {name} where it has {near[0]}?" if near else ""
        raise ConfigError(f"{cls.__name__}: has no {name}{_signature(name)}, which a SampleSource needs{hint}")
    # Everything defined: the right kind and signature, or no typo of an optional name.
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
    """Refuse a method where a value is expected, and the reverse."""
    wanted = inspect.isfunction(_CONTRACT[name])
    if wanted and not _is_method(value):
        raise ConfigError(f"{where}: found a {type(value).__name__}, expected a method {name}{_signature(name)}")
    if not wanted and _is_method(value):
        raise ConfigError(f"{where}: found a method, expected a value or a property")


def _is_method(value: Any) -> bool:
    return callable(value) or isinstance(value, staticmethod | classmethod)


def _check_call(where: str, name: str, cls: type[SampleSource]) -> None:
    """Refuse a method that does not accept the arguments the loader calls it with."""
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
    """Return the signature of a method of `SampleSource`, without types: `(self, key)`."""
    signature = inspect.signature(_CONTRACT[name])
    bare = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))
