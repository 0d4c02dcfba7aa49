"""`EncodedDataset`: samples of a dataset as outputs of its model's frozen encoders, read from a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from calotype.core.rng import Stream, sample_seed
from calotype.data.dataset import TextToImageDataset
from calotype.data.sample_source import BatchSource, SampleSource
from calotype.encodings.dataset_records import (
    DatasetRecords,
    Fingerprints,
    ImageRecord,
    Outcome,
    SampleRecords,
    Variants,
)
from calotype.encodings.finite import MARK, reason_of
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.keys import not_finite_key, scaling_key, text_key, unreadable_key
from calotype.encodings.missing_records import MissingRecords, find_missing
from calotype.encodings.store import EncodingStore
from calotype.encodings.store.stored_tensor import RecordCache, StoredTensor
from calotype.encodings.truncation import find_cuts
from calotype.errors import NotFiniteError, StoreError
from calotype.ledger import LedgerEntry
from calotype.manifest import Manifest
from calotype.models.family import ModelFamily, sample_moments
from calotype.progress import Show
from calotype.transforms import Buckets
from calotype.types import Batch, SampleKey

__all__ = ["EncodedDataset"]

_K = TypeVar("_K")
_V = TypeVar("_V")

_MOST_KNOWN = 1 << 17
"""Maximum number of images, texts and rows whose parts are cached in memory; about 100 MB when full."""

_HOW_TO_ENCODE = "`calotype encode` with the same config makes them, or encodings.on_the_fly=true does while it trains"

NOISE = "noise_seed"
"""Key of the seed with which `finish` samples the latents. The result of `finish` does not have it."""


class EncodedDataset(SampleSource):
    """The samples of a `TextToImageDataset` after the frozen encoders: a map-style dataset for any loader.

    Discrete augmentations (flips, the choice of a caption, drops) are those of the same sample online; of continuous
    ones (crops, colours, shuffles) it returns one of the encoded variants. Latents are sampled anew each epoch from the
    stored posterior. The models are not loaded.

    A sample, as diffusers' training scripts name its parts:

    * `latents`: float32 (C, h, w), scaled as the transformer takes them;
    * the outputs of the text encoders (`prompt_embeds` (T, D), `pooled_prompt_embeds` (D,), …) in the stored dtype, and
      their masks (T,) if the model has them. Texts stored without padding are padded with zeros to the longest of the
      whole dataset, so that all batches on all ranks have the same shape;
    * further conditioning of the image (SDXL: `original_size`, `crop_top_left`, `target_size`);
    * the dataset's opt-in keys (`id`, `text`, …).

    Args:
        dataset: The dataset that was encoded.
        models: The frozen models; their files are hashed, not loaded.
        store: The store with the records.
        variants: Numbers of variants, as when it was encoded.
        threads: Threads that hash image files whose hashes are not cached.
        progress: Called with (done, total) images while files are hashed.

    Raises:
        StoreError: Records are missing.
        ConfigError: There is a continuous augmentation, and `variants` has no number for it.
    """

    manifest: Manifest

    def __init__(
        self,
        dataset: TextToImageDataset,
        models: FrozenModels,
        store: EncodingStore,
        *,
        variants: Variants | None = None,
        threads: int = 4,
        progress: Show | None = None,
    ) -> None:
        self.dataset = dataset
        self.store = store
        self.family: ModelFamily = models.family
        fingerprints = Fingerprints(models.picture_fingerprint, models.text_fingerprint)
        self._check_store(models, fingerprints)
        self.records = DatasetRecords(dataset, fingerprints, variants or Variants(), threads=threads, progress=progress)
        self.manifest = dataset.manifest
        self.spec = dataset.spec
        self.buckets: Buckets | None = dataset.buckets
        self.seed = dataset.seed
        self.img_transform = dataset.img_transform
        self._tokenizers: FrozenModels | None = models
        self._text_length: int | None = None
        self._scaling: dict[str, torch.Tensor] | None = None
        self._threads = threads
        self.record_cache: RecordCache | None = None
        self._known = _Known()
        self._leave_out()
        self._begin(models)

    def __repr__(self) -> str:
        name = self.spec.name if self.spec is not None else self.family.name
        return f"{type(self).__name__}(encodings of {name} in {self.store.path} of\n    {self.dataset!r})"

    def _check_store(self, models: FrozenModels, fingerprints: Fingerprints) -> None:
        """Refuse a store that was never filled for these models and options, before images are hashed for it.

        Every job encodes the empty caption and, once it has encoded an image, stores the scaling of the latents.
        """
        empty = text_key(fingerprints.text, "")
        needed = {"texts": empty, "images": scaling_key(fingerprints.image)}
        missing = [what for what, key in needed.items() if self.store.find_one(key) < 0]
        if not missing or self.store.find_one(not_finite_key(empty)) >= 0:
            return
        raise StoreError(
            f"{self.store.path}: the {' and '.join(reversed(missing))} of this dataset are not encoded for "
            f"{models.spec.name} with these options; {_HOW_TO_ENCODE}"
        )

    def _begin(self, models: FrozenModels) -> None:
        """Check that no record is missing, and set the length of texts."""
        work = find_missing(self.records, self.store)
        self._leave_out_marked(work)
        if work.images or work.texts:
            raise StoreError(
                f"{self.store.path}: {len(work.images):,} images and {len(work.texts):,} texts of "
                f"{len(work.needed):,} records are not encoded for {models.spec.name} with these options; "
                f"{_HOW_TO_ENCODE}"
            )
        self._text_length = self._longest(work)

    def _longest(self, work: MissingRecords) -> int | None:
        """Return the tokens of the longest text that is stored without padding; None if padding is stored."""
        names = {field.key for field in self.family.texts if field.mask is not None}
        if not names:
            return None
        rows = self.store.find(work.needed)
        layouts, _ = self.store.layouts(rows[rows >= 0])
        return max((f.shape[0] for layout in layouts for f in layout.fields if f.name in names), default=0)

    def _leave_out(self) -> None:
        """Leave out the images that the store marks as unreadable."""
        contents = {index: one for index, one in enumerate(self.records.contents) if one is not None}
        found = self.store.find([unreadable_key(one.digest) for one in contents.values()])
        for index, row in zip(contents, found.tolist(), strict=True):
            if row >= 0 and self._lacks(self.records.images(index)):
                self.records.leave_out(index, reason_of(self.store.get(row)))

    def _leave_out_marked(self, work: MissingRecords) -> None:
        """Leave out the rows with an image or text that has no finite record."""
        marked = {one.key for one in work.marked}
        if not marked:
            return
        if (empty := self.records.text_key("")) in marked:
            raise NotFiniteError(f"the empty caption: {self._why(empty)}; are the text encoders' files whole?")
        for index in self.records.usable.tolist():
            keys = [one.key for one in self.records.images(index)]
            keys += [self.records.text_key(text) for text in self.records.texts(index)]
            if (bad := next((key for key in keys if key in marked), None)) is not None:
                self.records.leave_out(index, self._why(bad), kind=MARK)

    def _why(self, key: bytes) -> str:
        """Return the reason in the mark of a record."""
        return reason_of(self.store.get(self.store.find_one(not_finite_key(key))))

    def _lacks(self, image_records: Sequence[ImageRecord]) -> bool:
        return bool((self.store.find([one.key for one in image_records]) < 0).any())

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def starts_in_trainer(self) -> bool:
        return not self.dataset.caption_transform.custom

    def prepare(self, key: int | SampleKey) -> dict[str, Any]:
        """Return one sample before its latents are sampled; tensors are `calotype.types.Readable`, or cached.

        Raises:
            ImageError: The image could not be read when the dataset was made.
            StoreError: The record is damaged; names the shard.
        """
        return self._kept(self._described(key))

    def with_cache(self, cache: RecordCache | None) -> Self:
        """Return a copy of the dataset that caches its records in `cache`; None reads them each time."""
        copied = object.__new__(type(self))  # copy.copy would use __getstate__, which leaves attributes out
        copied.__dict__.update(self.__dict__)
        copied.record_cache = cache
        return copied

    def with_device_cache(self, device: torch.device) -> Self:
        """Return a copy of the dataset that caches its records on the device."""
        return self.with_cache(RecordCache(device))

    def _kept(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Return a sample with tensors from the record cache, if there is one."""
        if (cache := self.record_cache) is None:
            return sample
        return {name: cache.get(value) if isinstance(value, StoredTensor) else value for name, value in sample.items()}

    def _described(self, key: int | SampleKey, records: SampleRecords | None = None) -> dict[str, Any]:
        """Return a sample whose tensors are not read yet; `records` if they are already computed."""
        key = self.dataset.checked(key)
        known = self._known
        outcome = self.records.outcome(key) if records is None else records.outcome
        text = self._text(key) if records is None else records.text
        image_parts = known.images.get(outcome)
        if image_parts is None:
            image_record = self.records.image_of(outcome) if records is None else records.image
            image_parts = known.store(known.images, outcome, self._image_parts(key, image_record))
        text_parts = known.texts.get(text)
        if text_parts is None:
            record = self.records.text_key(text) if records is None else records.text_key
            text_parts = known.store(known.texts, text, self._text_parts(key, record))
        tensors, conditioning = image_parts
        out = {**tensors, NOISE: self._noise_seed(key), **text_parts, **conditioning}
        if self.dataset.include:
            out |= self.dataset.included(self.manifest[key.index], key.index, text)
        return out

    def _text(self, key: SampleKey) -> str:
        """Return the final caption of a sample."""
        known = self._known.fixed_texts
        text = known.get(key.index)
        if text is None:
            text = self.records.caption(key).text
            if key.index not in known:  # determine only once whether it is random
                fixed = self.dataset.caption_transform.fixed(self.manifest.captions_of(key.index))
                self._known.store(known, key.index, text if fixed else None)
        return text

    def _image_parts(self, key: SampleKey, image_record: ImageRecord) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the tensors of an image's record, and its further conditioning."""
        row = self._row(key, image_record.key, "image")
        tensors = {field.name: StoredTensor(self.store, row, field) for field in self.store.layout(row)}
        return tensors, self.family.conditioning(image_record.geometry)

    def _text_parts(self, key: SampleKey, record: bytes) -> dict[str, Any]:
        """Return the tensors of a text's record, and their masks."""
        row = self._row(key, record, "text")
        fields = {field.name: field for field in self.store.layout(row)}
        out: dict[str, Any] = {}
        for item in self.family.texts:
            length = self._text_length if item.mask is not None else None
            stored = StoredTensor(self.store, row, fields[item.key], length=length)
            out[item.key] = stored
            if item.mask is not None:
                mask = torch.zeros(stored.shape[0], dtype=item.mask_dtype)
                mask[: stored.length] = 1
                out[item.mask] = mask
        return out

    def for_batch(self, keys: Sequence[SampleKey]) -> BatchSource:
        """Return what prepares the samples of one batch. Does all work here except for reading tensors.

        Interleaved with reads of megabytes, which evict the interpreter from the CPU caches, the same code would take
        several times as long.
        """
        return self._batch_source(keys, {})

    def _batch_source(self, keys: Sequence[SampleKey], records: Mapping[SampleKey, SampleRecords]) -> BatchSource:
        """As `for_batch`; `records` has those of samples that are already computed."""
        described: dict[SampleKey, dict[str, Any]] = {}
        for key in keys:
            with suppress(Exception):  # raised again by `prepare`, where the loader handles it
                described[key] = self._described(key, records.get(key))

        def prepare(key: SampleKey) -> dict[str, Any]:
            sample = described.pop(key, None)
            return self.prepare(key) if sample is None else self._kept(sample)

        return BatchSource(prepare, only_reads=self.record_cache is None)

    def finish(self, batch: Mapping[str, Any]) -> Batch:
        """Sample and scale the latents of a sample or a batch, on its device."""
        out = {key: value.load() if isinstance(value, StoredTensor) else value for key, value in batch.items()}
        seeds = out.pop(NOISE)
        single = isinstance(seeds, int)
        seeds = [seeds] if isinstance(seeds, int) else seeds.tolist()
        drawn = "moments" in out
        # Sample the posterior, if the store has its moments, and scale the latents.
        raw = out.pop("moments" if drawn else "latents")
        raw = raw[None] if single else raw  # (B, 2C, …) or (B, C, …)
        if drawn:
            raw = sample_moments(raw, _noise(raw, seeds))  # (B, C, h, w)
        latents = self.family.latents(raw, self.scaling)
        return {"latents": latents[0] if single else latents, **out}

    @property
    def bucket_sizes(self) -> Sequence[tuple[int, int] | None]:
        """(height, width) of each bucket in pixels, as `TextToImageDataset.bucket_sizes`."""
        return self.dataset.bucket_sizes

    def scan(
        self, *, threads: int = 4, progress: Show | None = None
    ) -> tuple[npt.NDArray[np.int32], list[LedgerEntry]]:
        """Return the bucket of each row, int32 (N,), and ledger entries, as `TextToImageDataset.scan`."""
        return self.records.buckets, list(self.records.notes)

    def begin_epoch(
        self, *, first: bool = False, whole: bool = False, rank: int = 0, world_size: int = 1
    ) -> list[LedgerEntry]:
        """Return, before the first epoch, a ledger entry for each row with a caption that a tokenizer truncates.

        Loads the pipeline's tokenizers, but no model. Arguments as for `SampleSource.begin_epoch`.
        """
        if not first or rank != 0 or self._tokenizers is None:
            return []
        return list(find_cuts(self.records, self._tokenizers))

    @property
    def scaling(self) -> dict[str, torch.Tensor]:
        """The tensors that scale stored latents to the model's."""
        if self._scaling is None:
            key = scaling_key(self.records.fingerprints.image)
            row = self.store.find_one(key)
            if row < 0:
                raise StoreError(
                    f"{self.store.path}: holds no scaling of this autoencoder; run `calotype encode` again"
                )
            self._scaling = self.store.get(row)
        return self._scaling

    def _noise_seed(self, key: SampleKey) -> int:
        seed = self.seed if key.seed is None else key.seed
        return sample_seed(seed, key, Stream.LATENT_NOISE)

    def _row(self, key: SampleKey, record: bytes, what: str) -> int:
        row = self.store.find_one(record)
        if row < 0:
            raise StoreError(
                f"{self.store.path}: the {what} of {self.manifest[key.index].id!r} (epoch {key.epoch}) is not "
                "there any more; run `calotype encode` again"
            )
        return row

    def __getstate__(self) -> dict[str, Any]:
        # Rows of an unpickled store differ, and captions are measured in the trainer's process.
        return self.__dict__ | {"_known": _Known(), "_tokenizers": None}


class _Known:
    """Caches parts of samples, so that they are not computed, hashed and looked up again each epoch."""

    def __init__(self) -> None:
        self.images: dict[Outcome, tuple[dict[str, Any], dict[str, Any]]] = {}
        """Outcome of an image → (tensors, further conditioning)."""
        self.texts: dict[str, dict[str, Any]] = {}
        """Text → tensors and masks."""
        self.fixed_texts: dict[int, str | None] = {}
        """Row → caption; None if it is random."""

    def store(self, known: dict[_K, _V], key: _K, value: _V) -> _V:
        """Cache a value unless the cache is full; return it. Nothing is evicted: an epoch uses each entry once."""
        if len(known) < _MOST_KNOWN:
            known[key] = value
        return value


def _noise(moments: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """Return standard normal noise (B, C, …) for moments (B, 2C, …), from each sample's seed, on their device."""
    shape = (len(moments), moments.shape[1] // 2, *moments.shape[2:])
    noise = torch.empty(shape, dtype=torch.float32, device=moments.device)
    for row, seed in zip(noise, seeds, strict=True):
        row.normal_(generator=torch.Generator(moments.device).manual_seed(seed))
    return noise
