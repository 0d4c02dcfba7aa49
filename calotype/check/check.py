"""`check`: a report on a dataset before any GPU work, made with the code that training runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from calotype.check.captions import caption_findings
from calotype.check.cost import cost_facts
from calotype.check.duplicates import duplicate_findings
from calotype.check.facts import Facts, scan_facts
from calotype.check.files import file_findings
from calotype.check.kinds import KINDS, LEVELS
from calotype.check.pixels import pixel_findings
from calotype.check.plan import plan_facts
from calotype.check.report import Finding, Report, finding
from calotype.check.tokens import token_facts
from calotype.data.dataset import TextToImageDataset
from calotype.images import ImageReader, scan_sizes
from calotype.loader.plan import Remainder
from calotype.manifest import Manifest
from calotype.manifest.exclude import EXCLUDE_NOTHING, Exclude
from calotype.models.registry import broken_packages
from calotype.models.spec import EncodingSpec
from calotype.progress import Track, silent
from calotype.types import ImageRef

__all__ = ["check"]

_SHALLOW: Final = 1_000_000_000
"""Total pixels up to which every image is decoded by default: about ten seconds on two cores."""

_SECTIONS: Final = ("files", "pixels", "duplicates", "captions", "plan")
_KIND_ORDER: Final = {kind: number for number, kind in enumerate(KINDS)}


def check(
    dataset: TextToImageDataset,
    *,
    held_out: Manifest | None = None,
    source: str | None = None,
    folders: Sequence[Path] = (),
    missing_captions: str | None = None,
    caption_lines: str | None = None,
    caption_suffix: str | Sequence[str] | None = None,
    exclude: Exclude = EXCLUDE_NOTHING,
    batch_size: int = 1,
    world_size: int = 1,
    remainder: Remainder = "short",
    on_upscale: Literal["warn", "skip", "error"] = "warn",
    seed: int | None = None,
    shuffle: bool = True,
    deep: bool | None = None,
    threads: int | None = None,
    encodings: EncodingSpec | None = None,
    track: Track | None = None,
    refetch: bool = False,
) -> Report:
    """Check everything that can be known before training.

    Args:
        dataset: Load it with `on_error="skip"` and `missing_captions="empty"`, so that errors are reported instead
            of raised.
        held_out: The validation images; none of them may be in the dataset.
        source: Name of the dataset in the report; its root by default.
        folders: The folders of the option `path`; they are searched for files that are not read, and for images or
            captions without a counterpart.
        missing_captions: The config's option; None if not set: training would then stop at images without a caption,
            unless a trigger or template makes each text.
        caption_lines: The config's option; None if not set.
        caption_suffix: The config's suffixes of caption files.
        exclude: The config's patterns of files to leave out.
        batch_size: See `Loader`.
        world_size: Number of ranks to plan for.
        remainder: See `Loader`.
        on_upscale: See `Loader`.
        seed: See `Loader`.
        shuffle: See `Loader`.
        deep: Whether to decode every image, which finds damage inside files, equal pixels in different files, and near
            duplicates. None: if the images have at most 10⁹ pixels in all.
        threads: Number of images to read at once; the number of cores by default.
        encodings: Sizes and costs of a local pipeline's own encoders; None for those of the dataset's model.
        track: Shows the progress of a named step.
        refetch: Fetch images by URL also if an earlier check has fetched them.

    Raises:
        MissingDependencyError: An image needs an extra that is not installed.
    """
    threads = threads or os.cpu_count() or 1
    track = track or silent
    # Facts of all images: headers, and with `deep` pixels.
    manifest = dataset.manifest
    ids = manifest.ids.to_pylist()
    refs = [*manifest.refs(), *(held_out.refs() if held_out is not None else ())]
    listed = np.concatenate([each.sizes() for each in (manifest, held_out) if each is not None])
    every, decoded = _facts(refs, dataset.reader, deep, threads, track, listed=listed, refetch=refetch)
    facts, other = every[: len(manifest)], every[len(manifest) :]
    sizes = np.array([one.header.size if one.header else (0, 0) for one in facts], np.int32).reshape(-1, 2)
    usable = np.array([one.problem is None for one in facts])
    # Files, pixels and duplicates.
    transform = dataset.caption_transform
    in_files, uncaptioned = file_findings(
        manifest,
        facts,
        folders=folders,
        missing_captions=missing_captions,
        implied="template" if transform.template else "trigger" if transform.trigger else None,
        caption_lines=caption_lines,
        caption_suffix=caption_suffix,
        exclude=exclude,
    )
    findings = [*in_files, *pixel_findings(dataset, facts, sizes)]
    with track("looking for duplicates"):
        findings += duplicate_findings(
            ids, facts, held_out_ids=held_out.ids.to_pylist() if held_out is not None else (), held_out=other
        )
    # Captions and tokens.
    with track("reading captions"):
        captions, in_captions = caption_findings(dataset, skip=uncaptioned)
        tokens, in_tokens = token_facts(dataset)
    findings += [*in_captions, *in_tokens]
    # The epoch, and the cost of caches.
    with track("planning an epoch"):
        plan, in_plan = plan_facts(
            dataset,
            sizes,
            usable,
            batch_size=batch_size,
            world_size=world_size,
            remainder=remainder,
            on_upscale=on_upscale,
            seed=seed,
            shuffle=shuffle,
        )
    findings += [*in_plan, *(finding("broken_package", "", reason) for reason in broken_packages())]
    with track("measuring what caches cost"):
        cost = cost_facts(dataset, facts, sizes, batch_size=batch_size, threads=threads, encodings=encodings)
    return Report(
        source=source or str(manifest.root),
        root=str(manifest.root),
        model=dataset.spec.name if dataset.spec is not None else None,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        images=len(manifest),
        held_out=len(held_out) if held_out is not None else 0,
        deep=decoded,
        findings=tuple(sorted(findings, key=_sort_key)),
        captions=captions,
        tokens=tokens,
        plan=plan,
        cost=cost,
        not_checked=tuple(_not_checked(dataset, held_out, decoded, refetch)),
    )


def _facts(
    refs: Sequence[ImageRef],
    reader: ImageReader,
    deep: bool | None,
    threads: int,
    track: Track,
    *,
    listed: npt.NDArray[np.int32] | None = None,
    refetch: bool = False,
) -> tuple[list[Facts], bool]:
    """Return the facts of all images, scanned in one call to compare the two sets; and whether the scan was deep.

    `listed` are the (H, W) of the data file, 0 where it has none.
    """
    facts: list[Facts] = []
    if deep is None and any(ref.url is not None for ref in refs):  # sizes decide, so that a URL is fetched whole once
        sizes = np.zeros((len(refs), 2), np.int64) if listed is None else listed.astype(np.int64)
        unknown = np.flatnonzero((sizes <= 0).any(axis=1))
        with track("reading image sizes") as show:
            sizes[unknown], _ = scan_sizes(
                [refs[place] for place in unknown.tolist()], reader, threads=threads, progress=show
            )
        deep = int(sizes.prod(axis=1).sum()) <= _SHALLOW
    if not deep:
        with track("reading headers") as show:
            facts = scan_facts(refs, reader, deep=False, threads=threads, progress=show, refetch=refetch)
    if deep is None:
        deep = sum(one.header.size[0] * one.header.size[1] for one in facts if one.header) <= _SHALLOW
    if deep:
        with track("decoding") as show:
            facts = scan_facts(refs, reader, deep=True, threads=threads, progress=show, refetch=refetch)
    return facts, deep


def _sort_key(found: Finding) -> tuple[int, int, int]:
    """Return the sort key of a finding: errors first, then by section in the order of the data flow, then by kind."""
    return LEVELS.index(found.level), _SECTIONS.index(KINDS[found.kind].section), _KIND_ORDER[found.kind]


def _not_checked(dataset: TextToImageDataset, held_out: Manifest | None, decoded: bool, refetch: bool) -> Iterator[str]:
    if not decoded:
        yield "damage inside files, equal pixels and near duplicates: --deep decodes every image"
    if dataset.manifest.has_urls and not refetch:
        yield "images by URL that an earlier check fetched: --fresh fetches them again"
    if dataset.spec is None and not dataset.tokenises:
        yield "caption lengths in tokens, and the cost of encodings: --model says for which model"
    elif dataset.spec is not None and not dataset.spec.tokenizers:
        yield f"caption lengths in tokens: calotype has no token transform for {dataset.spec.name}"
    elif not dataset.tokenises:
        yield "caption lengths in tokens: the model's tokenizers are not here; --tokenizers names their folder"
    if held_out is None:
        yield "images shared with a validation set: the config has none (validation=0.05 holds some out)"
