"""`CaptionJob`: the options of a captioning run, and the prompts that are left to run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from calotype.captioning.ledger import CaptionLedger
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
from calotype.captioning.writer import CaptionWriter
from calotype.editing import Captions, CaptionState
from calotype.errors import ConfigError, ImageError
from calotype.images import ImageReader
from calotype.images.scan import scan_contents
from calotype.manifest import Manifest
from calotype.progress import Track, silent

__all__ = ["CaptionJob"]


@dataclass(kw_only=True, slots=True)
class CaptionJob:
    """The options of a captioning run over one dataset.

    Args:
        captions: Reads and writes the dataset's captions.
        manifest: The rows of the dataset without rejected ones.
        reader: Reads the images.
        presets: The prompts.
        count: Captions per image. Default: one per preset.
        mode: See `merge_captions`.
        class_word: Class of the subject, for presets with `{class_word}`.
        seed: Seed of the first caption of each preset.
        force: Replace captions that a person wrote.
        retry_failed: Retry what failed in earlier runs.
        sidecars: Also write `.txt` files beside the images.
        only: Ids of the rows to caption. Default: all.
        pixels: Larger images are downscaled to this number of pixels.
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
    def variants(self) -> list[CaptionVariant]:
        """The captions that each image gets."""
        return plan_variants(self.presets, self.count, self.seed)

    @property
    def root(self) -> Path:
        """The dataset's folder."""
        return self.captions.root

    def plan(self, identity: BackendIdentity, ledger: CaptionLedger, *, track: Track = silent) -> CaptionWriter:
        """Return a writer with the prompts to run.

        Opens only images whose captions may come from the ledger.

        Raises:
            ConfigError: A preset uses a variable that has no value for any image; or a prompt would run more than once
                with the same result.
        """
        variants, states = self.variants, self.captions.read()
        self._check_sampling(identity, variants)
        writer = CaptionWriter(job=self, identity=identity, ledger=ledger, per_image=len(variants))
        ids = self.manifest.ids.to_pylist()
        for id in sorted(set(self.only or ()) - states.keys() - set(ids)):
            writer.fail(id, "unknown_id", "the dataset has no image of this id", "", again=False)
        selected = [index for index, id in enumerate(ids) if id in states and (self.only is None or id in self.only)]
        hashes = self._image_hashes(selected, states, variants, ledger, track)
        for index in selected:
            row = self.manifest[index]
            state = states[row.id]
            if state.problem is not None:
                writer.fail(row.id, "unreadable_captions", state.problem, "", again=False)
                continue
            row = replace(row, captions=state.captions)  # the manifest may be older than the file
            image_hash = hashes.get(index, "")
            entries = ledger.captions(image_hash) if image_hash else []
            variables = prompt_variables(row, self.class_word)
            prompts = tuple(
                render_prompt(variant, variables, identity, entries=entries, current=state.captions)
                for variant in variants
            )
            if state.captions and self.mode != "add":
                known = [ledger.get(prompt.key(image_hash)) for prompt in prompts]
                texts = [entry.text for entry in known if entry is not None and entry.text is not None]
                texts += [prompt.known for prompt in prompts if prompt.known is not None]
                generated = {entry.text or "" for entry in entries}
                if merge_captions(self.mode, state.captions, texts, generated=generated, force=self.force) is None:
                    writer.kept += self.mode == "replace"
                    continue
            writer.tasks.append(ImagePrompts(id=row.id, ref=row.image, prompts=prompts))
        return writer

    def _check_sampling(self, identity: BackendIdentity, variants: Sequence[CaptionVariant]) -> None:
        """Check that number and seed have an effect: at temperature 0 every seed gives the same caption."""
        if identity.parameters.get("temperature") != 0:
            return
        if len(variants) > len(self.presets):
            raise ConfigError(
                f"n: {len(variants)} captions of {len(self.presets)} presets at temperature 0 would be the same again; "
                "set a temperature such as 0.7, or list more presets"
            )
        if self.seed:
            raise ConfigError(
                f"seed: {self.seed} has no effect at temperature 0, where every seed gives the same caption; set a "
                "temperature such as 0.7"
            )

    def _image_hashes(
        self,
        indices: Sequence[int],
        states: Mapping[str, CaptionState],
        variants: Sequence[CaptionVariant],
        ledger: CaptionLedger,
        track: Track,
    ) -> dict[int, str]:
        """Return row → hash of its image, for rows whose captions may be in the ledger."""
        refines = any("caption" in variant.preset.variables for variant in variants)
        ids = self.manifest.ids.to_pylist()
        needed = []
        for index in indices:
            captions = len(states[ids[index]].captions)
            if not captions or not len(ledger):
                continue
            if refines or self.mode == "replace" or (self.mode == "fill" and captions < len(variants)):
                needed.append(index)
        if not needed:
            return {}
        with track("checking for edited captions") as show:
            contents = scan_contents(self.manifest.refs(needed), self.reader, progress=show)
        return {
            index: content.digest.hex()
            for index, content in zip(needed, contents, strict=True)
            if not isinstance(content, ImageError)
        }
