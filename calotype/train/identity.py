"""The inputs of a run besides its options: weights, encodings, transforms, order and samples.

A checkpoint stores them in two files, and `--resume` compares these with the current run.

    identity.json           one line for each fact: `"loader.batch_size": 4`
    samples.safetensors     `ids` and `contents`, uint64 (N,): hashes of each row's id, and of its content
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash
from safetensors.numpy import load_file, save_file

from calotype.encodings.dataset import EncodedDataset
from calotype.encodings.fingerprint import combine, component_fingerprint
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.step_identity import step_identity
from calotype.errors import ConfigError
from calotype.loader import Loader
from calotype.train.checkpoint import Checkpoint
from calotype.train.networks import network_of
from calotype.transforms import CaptionTransform, ImageTransform

__all__ = ["Identity", "check_facts", "resume_as"]

_FACTS: Final = "identity.json"
_SAMPLES: Final = "samples.safetensors"
_FILES: Final = "files of "
"""Prefix of the facts that are hashes of a component's files."""
_MOST_NAMED: Final = 3

_Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The inputs of a run besides its options."""

    facts: Mapping[str, Any]
    """Plain values, by their key in the config where there is one."""
    ids: _Hashes
    """(N,): hash of each row's id."""
    contents: _Hashes
    """(N,): hash of each row's image, captions, bucket and repeats."""

    @classmethod
    def of(cls, loader: Loader, encoded: EncodedDataset, models: FrozenModels) -> Identity:
        """Compute the identity of a run. The pipeline's files are hashed; hashes of unchanged files are cached.

        Args:
            loader: The loader of the run.
            encoded: The encoded dataset of the loader.
            models: The frozen models of the trained network's pipeline.
        """
        dataset, plan, variants = encoded.dataset, loader.plan, encoded.records.variants
        facts: dict[str, Any] = {
            "model": models.spec.name,
            **_files(models),
            "encodings.dtype": str(models.dtype).removeprefix("torch."),
            "encodings.latents": models.latents,
            "encodings.max_sequence_length": models.max_sequence_length,
            "encodings.image_variants": variants.image,
            "encodings.caption_variants": variants.caption,
            "dataset.decode": dataset.reader.decode,
            "dataset.background": list(dataset.reader.background),
            "dataset.buckets": None if dataset.buckets is None else repr(dataset.buckets),
            "loader.batch_size": plan.batch_size,
            "loader.remainder": plan.remainder,
            "loader.shuffle": plan.shuffle,
            "seed": plan.seed,
        }
        facts |= _options("dataset.img_transform", dataset.img_transform)
        facts |= _options("dataset.caption_transform", dataset.caption_transform)
        facts = json.loads(json.dumps(facts))
        return cls(facts=facts, ids=_ids(encoded), contents=_contents(encoded, loader))

    def write(self, folder: Path, models: FrozenModels) -> None:
        """Write it into a checkpoint, with hashes of pipeline files that were downloaded with the network."""
        facts = {**_files(models), **self.facts}
        (folder / _FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        save_file({"ids": self.ids, "contents": self.contents}, folder / _SAMPLES)

    @classmethod
    def read(cls, folder: Path) -> Identity | None:
        """Read the identity of a checkpoint; None if an earlier version wrote it."""
        if not (folder / _FACTS).is_file():
            return None
        samples = load_file(folder / _SAMPLES)
        facts = json.loads((folder / _FACTS).read_bytes())
        return cls(facts=facts, ids=samples["ids"], contents=samples["contents"])


def resume_as(
    found: Checkpoint, now: Identity, loader: Loader, *, changed_dataset: bool
) -> tuple[Checkpoint, list[str]]:
    """Compare a run with its checkpoint; return the checkpoint to resume from, and messages.

    Args:
        found: The checkpoint.
        now: The identity of this run.
        loader: The loader of this run, at its beginning.
        changed_dataset: Whether to continue with changed samples, at the beginning of an epoch.

    Raises:
        ConfigError: Inputs differ; the message has both values and what to do.
    """
    # Compare weights, encodings, transforms and order.
    was, state = Identity.read(found.folder), loader.state_dict()
    facts = {"loader.batch_size": found.loader["batch_size"], "seed": found.loader["seed"]}
    facts |= dict(was.facts) if was is not None else {}
    check_facts(found.folder, facts, now.facts, otherwise=" (lora_weights starts from a LoRA)")
    notes = []

    # Report what is not compared, and a changed number of ranks.
    if was is None:
        notes.append(
            "note: this checkpoint was written by an earlier version, without a record of weights, captions and "
            "transforms; they are not compared"
        )
    if (ranks := found.loader["world_size"]) != state["world_size"]:
        notes.append(
            f"note: the number of ranks was {ranks}, is {state['world_size']}: the rest of the epoch is divided anew, "
            "and a step has as many more or fewer images"
        )

    # Compare the samples.
    changes = None if found.loader["order"] == state["order"] else "it has other samples"
    if was is not None:
        changes = _changes(was, now, loader)
    if changes is None:
        if changed_dataset:
            notes.append("note: the dataset is unchanged: --changed-dataset has no effect")
        return found, notes
    if not changed_dataset:
        raise ConfigError(
            f"{found.folder}: the dataset has changed: {changes}. Restore it, or --resume --changed-dataset continues "
            "with the dataset as it is now, from the beginning of an epoch"
        )
    epoch = int(found.loader["epoch"]) + bool(found.loader["step"] or found.loader["history"])
    notes.append(f"note: the dataset has changed: {changes}; it continues at the beginning of epoch {epoch}")
    return replace(found, loader={"epoch": epoch}), notes


def check_facts(folder: Path, was: Mapping[str, Any], now: Mapping[str, Any], *, otherwise: str = "") -> None:
    """Refuse to resume if a fact differs; facts of only one side are not compared.

    Args:
        folder: The checkpoint, for errors.
        was: The facts of the run that wrote it.
        now: The facts of this run.
        otherwise: Further advice at the end of the error.

    Raises:
        ConfigError: A fact differs; the message has both values.
    """
    other = [name for name, value in was.items() if name in now and now[name] != value]
    if other:
        differences = "; ".join(_difference(name, was[name], now[name]) for name in other)
        raise ConfigError(
            f"{folder}: was written with other data or weights: {differences}. Resume with what they were, or begin "
            f"anew in another output_dir{otherwise}"
        )


def _changes(was: Identity, now: Identity, loader: Loader) -> str | None:
    """Describe the difference of the samples; None if there is none."""
    if np.array_equal(was.ids, now.ids) and np.array_equal(was.contents, now.contents):
        return None
    added = np.flatnonzero(~np.isin(now.ids, was.ids))
    removed = int((~np.isin(was.ids, now.ids)).sum())
    _, before, after = np.intersect1d(was.ids, now.ids, return_indices=True)
    changed = np.sort(after[was.contents[before] != now.contents[after]])
    counts = []
    for rows, what in ((added, "added"), (changed, "changed (image, captions, bucket or repeats)")):
        if len(rows):
            counts.append(f"{len(rows)} {what}: {_named(rows, loader)}")
    if removed:
        counts.append(f"{removed} removed")
    return "; ".join(counts) or "its samples are in another order"


def _named(rows: npt.NDArray[np.intp], loader: Loader) -> str:
    names = [loader.dataset.ids(row, row + 1)[0] for row in rows[:_MOST_NAMED].tolist()]
    return ", ".join(names) + (", …" if len(rows) > _MOST_NAMED else "")


def _difference(name: str, was: Any, now: Any) -> str:
    if name.startswith(_FILES):
        return f"the {name} differ (hash {was[:8]}, now {now[:8]})"
    return f"{name} was {was!r}, is {now!r}"


def _files(models: FrozenModels) -> dict[str, str]:
    """Hash the files of the network, scheduler, autoencoder and text components, those that exist in the folder."""
    trained = (network_of(models.spec).component, "scheduler")
    found = {}
    for name in (*trained, "vae", *models.text_components):
        if (models.folder / name).is_dir():
            variant = None if name in trained else models.variant
            found[f"{_FILES}{name}"] = component_fingerprint(models.folder / name, variant=variant).hex()
    return found


def _options(where: str, transform: ImageTransform | CaptionTransform) -> dict[str, Any]:
    """Return a transform's options, by name."""
    found: dict[str, Any] = {}
    for name, value in vars(transform).items():
        if name.startswith("_"):
            continue
        if name == "custom":
            value = _custom(value)
            if value is None:
                continue
        elif name == "color_jitter":
            value = value.ranges
        found[f"{where}.{name}"] = value
    return found


def _custom(steps: Any) -> str | None:
    """Hash the callables; None if one can't be identified."""
    try:
        return combine(step_identity(getattr(step, "function", step)) for step in steps).hex()[:8] if steps else ""
    except ConfigError:
        return None


def _ids(encoded: EncodedDataset) -> _Hashes:
    """Hash each row's id."""
    chunks = encoded.manifest.ids.chunks
    return np.fromiter(
        (xxhash.xxh3_64_intdigest(one.encode()) for chunk in chunks for one in chunk.to_pylist()),
        np.uint64,
        count=len(encoded),
    )


def _contents(encoded: EncodedDataset, loader: Loader) -> _Hashes:
    """Hash each row's file, captions, bucket size and weight."""
    plan, contents, manifest = loader.plan, encoded.records.contents, encoded.manifest
    weights = manifest.weights()
    found = np.empty(len(encoded), np.uint64)
    for row, content in enumerate(contents):
        bucket = int(plan.buckets[row])
        parts: list[str | bytes] = [
            b"" if content is None else content.digest,
            repr(None if bucket < 0 else plan.sizes[bucket]),
            repr(float(weights[row])),
            *manifest.captions_of(row),
        ]
        found[row] = int.from_bytes(combine(parts)[:8], "little")
    return found
