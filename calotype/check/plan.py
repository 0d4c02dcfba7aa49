"""The epoch as the Loader plans it: buckets, batches, and the effect of each remainder policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from calotype.check.report import Finding, PlanFacts, RemainderFacts, finding
from calotype.data.dataset import TextToImageDataset
from calotype.errors import ConfigError
from calotype.loader.plan import EpochPlan, Plan, Remainder

__all__ = ["plan_facts"]

_POLICIES: tuple[Remainder, ...] = ("short", "repeat", "drop")


def plan_facts(
    dataset: TextToImageDataset,
    sizes: npt.NDArray[np.int32],
    usable: npt.NDArray[np.bool_],
    *,
    batch_size: int = 1,
    world_size: int = 1,
    remainder: Remainder = "short",
    on_upscale: Literal["warn", "skip", "error"] = "warn",
    seed: int | None = None,
    shuffle: bool = True,
) -> tuple[PlanFacts, list[Finding]]:
    """Plan epoch 0 with the Loader's own plan, under each policy.

    Args:
        dataset: Has the buckets, weights and seed.
        sizes: int32 (N, 2), (height, width) from the images' headers, 0 if unreadable.
        usable: bool (N,), False for images that training can't use.
        batch_size: Samples per batch, on each rank.
        world_size: Number of ranks.
        remainder: The config's policy, which the findings are about.
        on_upscale: See `Loader`; `skip` leaves out images that are too small.
        seed: See `Loader`; it selects the samples that are left out or repeated. Default: the dataset's.
        shuffle: See `Loader`.

    Raises:
        ConfigError: An option has an invalid value.
    """
    if on_upscale not in ("warn", "skip", "error"):
        raise ConfigError(f"on_upscale: found {on_upscale!r}, expected 'warn', 'skip' or 'error'")
    # Assign buckets; images that can't be used have none.
    buckets, notes = dataset.scan(headers=sizes)
    buckets = np.where(usable, buckets, -1).astype(np.int32)
    findings = []
    # Images that are too small for their bucket.
    ids = dataset.manifest.ids
    small = {note.id: note.reason for note in notes if note.kind == "upscaled"}
    if small and on_upscale == "error":
        few = ", ".join(list(small)[:3])
        findings.append(
            finding(
                "no_batches",
                "",
                f"on_upscale='error', and {len(small):,} images are too small: {few}{', …' if len(small) > 3 else ''}",
                advice="leave them out, lower resolution, or choose on_upscale='warn' or 'skip'",
                others=tuple(small),
            )
        )
    if small and on_upscale == "skip":
        rows = [row for row, id in enumerate(ids.to_pylist()) if id in small and buckets[row] >= 0]
        buckets[rows] = -1
        advice = "find larger originals, lower resolution, or choose on_upscale='warn'"
        findings += [finding("left_out", id, f"too small: {reason}", advice=advice) for id, reason in small.items()]
    # Epoch 0 under each policy.
    known = dataset.buckets.sizes if dataset.buckets is not None else ()
    plan = Plan(
        buckets=buckets,
        sizes=known or [None],
        batch_size=batch_size,
        seed=seed if seed is not None else dataset.seed,
        world_size=world_size,
        remainder=remainder,
        shuffle=shuffle,
        weights=dataset.manifest.weights(),
    )
    epoch = plan.epoch(0)
    policies = tuple(_policy(replace(plan, remainder=policy)) for policy in _POLICIES)
    chosen = policies[_POLICIES.index(remainder)]
    findings += _findings(dataset, plan, epoch, chosen)
    counts = np.bincount(buckets[buckets >= 0], minlength=len(known))
    order = np.argsort(-counts, kind="stable")
    facts = PlanFacts(
        batch_size=batch_size,
        world_size=world_size,
        remainder=remainder,
        buckets=tuple((*known[place], int(counts[place])) for place in order if counts[place]) if known else (),
        samples=int(epoch.counts.sum()),
        batches=len(epoch),
        policies=policies,
    )
    return facts, findings


def _policy(plan: Plan) -> RemainderFacts:
    epoch = plan.epoch(0)
    kinds = [entry.kind for entry in epoch.remainders()]
    left_out, repeated = kinds.count("remainder"), kinds.count("repeated")
    return RemainderFacts(
        policy=plan.remainder,
        batches=len(epoch),
        samples=int(epoch.counts.sum()) - left_out + repeated,
        left_out=left_out,
        repeated=repeated,
        short_batches=_short(plan, epoch) if plan.remainder == "short" else 0,
    )


def _short(plan: Plan, epoch: EpochPlan) -> int:
    """Count the batches of each rank with fewer samples than `batch_size`: at most one for each bucket."""
    left = epoch.counts % (plan.batch_size * plan.world_size)
    return int(((left > 0) & (-(-left // plan.world_size) < plan.batch_size)).sum())


def _findings(dataset: TextToImageDataset, plan: Plan, epoch: EpochPlan, chosen: RemainderFacts) -> list[Finding]:
    ids = dataset.manifest.ids
    findings = []
    if not chosen.batches:
        whole = plan.batch_size * plan.world_size
        detail = f"no bucket has the {whole:,} samples of a step, and remainder='drop' leaves out what is less"
        if not int(epoch.counts.sum()):
            detail = f"none of the {len(dataset):,} images can be used"
        findings.append(finding("no_batches", "", detail, advice=None if int(epoch.counts.sum()) else "fix the files"))
    entries = epoch.remainders()
    findings += [
        finding("left_out", ids[int(entry.id)].as_py(), entry.reason) for entry in entries if entry.kind == "remainder"
    ]
    repeated = list(dict.fromkeys(ids[int(entry.id)].as_py() for entry in entries if entry.kind == "repeated"))
    if repeated:
        detail = f"{chosen.repeated:,} samples of epoch 0 come twice, so that every step is the same on all ranks"
        if plan.remainder == "repeat":
            detail = f"{chosen.repeated:,} samples of epoch 0 come twice, to fill the last batch of each bucket"
        findings.append(finding("repeated", "", detail, others=tuple(repeated)))
    if chosen.short_batches:
        detail = f"{chosen.short_batches:,} of {chosen.batches:,} batches hold fewer than {plan.batch_size} samples"
        findings.append(finding("short_batches", "", detail))
    return findings
