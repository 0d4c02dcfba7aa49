"""Finds images that are not samples: masks, control images, regularisation sets, outputs of training runs and caches.

A name alone is weak evidence (`pose.jpg` may be a photo), so it is compared with other names: a mask has the name of an
image beside it, a folder of control images has the names of the images around it, samples of a training run follow
their trainer's naming or are beside its checkpoints.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from calotype.manifest.file_kinds import WEIGHTS, stem_of, suffix_of

__all__ = ["READ_AS_SAMPLES", "Companions", "find_companions"]

READ_AS_SAMPLES: Final = "is read as samples"
"""Words in each sentence of `Companions.doubts`."""

_ONETRAINERS: Final = "masklabel|condlabel"
"""OneTrainer's endings, which are unambiguous."""
_CERTAIN: Final = "masks?|control|conditioning|cond|canny|openpose|depth_?map|lineart|trimap|matte"
"""Endings for which a single such file beside its image is enough evidence."""
_LIKELY: Final = (
    "depth|normals?|normal_?map|pose|seg|segmentation|alpha|edges?|scribble|softedge|hed|mlsd|inpaint|thumb|thumbnail"
)
"""Words that also occur in names of photos: half of the folder's images must have one."""
_NUMBER: Final = r"(?:[-_ ]?\d{1,3})?"
_NAMED: Final = re.compile(
    rf"(.+?)[-_. ](?:(?P<onetrainer>{_ONETRAINERS})|(?P<certain>{_CERTAIN})|(?P<likely>{_LIKELY})){_NUMBER}",
    re.IGNORECASE,
)
_ENDING: Final = re.compile(rf"[-_. ](?:{_ONETRAINERS}|{_CERTAIN}|{_LIKELY}){_NUMBER}\.\w+$", re.IGNORECASE)
_ANY_ENDING: Final = re.compile(rf"[-_. ](?:{_ONETRAINERS}|{_CERTAIN}|{_LIKELY})")
_BEGINNING: Final = re.compile(r"(?:mask|control|cond|depth|pose|canny)[-_. ](?=.)", re.IGNORECASE)
_ANY_BEGINNING: Final = re.compile(r"(?m)(?:^|/)(?:mask|control|cond|depth|pose|canny)[-_. ]")

_MIRRORS: Final = re.compile(
    r"_?(?:(?:images?|imgs?|train(?:ing)?)[-_ ]?)?"
    rf"(?:(?P<certain>{_ONETRAINERS}|masks?|controls?|controlnet|conditioning|cond|canny|openpose|lineart|trimaps?|"
    r"mattes?)|(?P<likely>depth|normals?|poses?|seg|segmentation|alphas?|edges?|scribbles?|softedge|hed|mlsd|thumbs?|thumbnails?|"
    r"previews?|references?|refs?|sources?|inputs?|before))"
    rf"(?:[-_ ]?(?:images?|data|dir|maps?|files|labels?))?{_NUMBER}",
    re.IGNORECASE,
)
_REGULARISATION: Final = re.compile(
    r"(?:reg|regs|regulari[sz]ation)(?:[-_ ]?(?:images?|imgs?|data|set|dir))?|class[-_ ](?:images?|data|dir)",
    re.IGNORECASE,
)
_SAMPLES: Final = re.compile(
    r"samples?|(?:training|validation|output|test)[-_ ]?(?:samples?|images)|sample[-_ ]images|outputs?", re.IGNORECASE
)
_RUN_FOLDERS: Final = re.compile(r"checkpoint-\d+|checkpoints?|step-\d{8}|tensorboard", re.IGNORECASE)
_RUN_FILES: Final = frozenset({".safetensors", ".ckpt", ".pt", ".pth"})
_OF_A_RUN: Final = {
    "calotype": re.compile(r"(?:.*/)?samples/step-\d{8}-\d+"),
    "kohya's scripts": re.compile(r".*_(?:e\d{6}|\d{6})_\d{2}_\d{14}(?:_\d+)?"),
    "ai-toolkit": re.compile(r"(?:.*/)?\d{13}__\d{9}_\d+"),
    "OneTrainer": re.compile(r".*\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-training-sample-\d+-\d+-\d+"),
    "SimpleTuner": re.compile(r"(?:.*/)?validation_images/step_\d+_.+"),
}
"""Trainer → names of its samples, without the suffix."""
_ANY_RUN: Final = ("-training-sample-", "__0", "/step-", "/step_", "_00_20", "_01_20")
"""Parts of names, for a fast search: each name in `_OF_A_RUN` contains one of them."""
_CACHE: Final = re.compile(r"[._]?(?:.*[-_ ])?cached?s?", re.IGNORECASE)


@dataclass(slots=True)
class Companions:
    """The result of `find_companions`: images that are not samples."""

    images: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Image that is not a sample → (kind in the ledger, reason)."""
    doubts: list[str] = field(default_factory=list)
    """Sentences on images that are read as samples though they have names of companions."""


def find_companions(images: Sequence[str], captions: Iterable[str], others: Sequence[str]) -> Companions:
    """Find the images of a folder that are not samples.

    Args:
        images: Paths relative to the folder, with forward slashes.
        captions: Caption files in the folder. An image with its own caption file is a sample, unless its name is
            unambiguous.
        others: Other files in the folder, except data files.
    """
    search = _Search(images, captions, others)
    search.regularisation()
    search.runs()
    search.caches()
    search.beside()
    search.mirrors()
    return search.found


class _Search:
    """Each method finds one kind among the images that are still samples."""

    def __init__(self, images: Sequence[str], captions: Iterable[str], others: Sequence[str]) -> None:
        self._images, self._captions, self._others = images, captions, others
        self._text = "\n".join(images).lower()  # one search in it decides whether to search each name
        self._by_folder: dict[str, list[str]] = defaultdict(list)
        for name in images:
            self._by_folder[name.rpartition("/")[0]].append(name)
        self.found = Companions()

    def regularisation(self) -> None:
        for folder in self._folders(_REGULARISATION):
            self._leave_out(
                self._below(folder),
                f"in {folder}/, a folder of regularisation images, which show the class and not the subject; to "
                "train on it, pass it as a path of its own",
                kind="regularisation",
            )

    def runs(self) -> None:
        """Find samples of training runs: by their names, or in a folder beside other outputs of a run."""
        for name in self._images if any(part in self._text for part in _ANY_RUN) else ():
            trainer = next((trainer for trainer, regex in _OF_A_RUN.items() if regex.fullmatch(stem_of(name))), None)
            if trainer is not None:
                self._judge([name], f"{name} has the name of a sample of a training run by {trainer}")
        for folder in self._folders(_SAMPLES, inner=True):
            if evidence := self._of_a_run(posixpath.dirname(folder)):
                self._judge(self._below(folder), f"{folder}/ lies beside {evidence}: samples of a training run")
            elif evidence := self._of_a_run(folder):
                self._judge(self._below(folder), f"{folder}/ holds {evidence}: samples of a training run")

    def caches(self) -> None:
        """Find images in folders that are caches by their name and the other files in them."""
        for folder in self._folders(_CACHE):
            if any(name.startswith(f"{folder}/") and suffix_of(name) in WEIGHTS for name in self._others):
                self._judge(self._below(folder), f"{folder}/ is a cache of another program")

    def beside(self) -> None:
        """Find files such as `a-masklabel.png` and `a.mask.png` beside `a.jpg`."""
        likely: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name in filter(_ENDING.search, self._images) if _ANY_ENDING.search(self._text) else ():
            match = _NAMED.fullmatch(stem_of(name))
            if match is None or name in self.found.images:
                continue
            if match["onetrainer"]:
                self._leave_out([name], "a mask or a condition image of OneTrainer")
            elif match[1] in self._stems and match["certain"]:
                self._judge([name], f"{name} has the name of a {match['certain'].lower()} of {match[1]}")
            elif match[1] in self._stems:
                likely[name.rpartition("/")[0], match["likely"].lower()].append(name)
        for name in self._images if _ANY_BEGINNING.search(self._text) else ():
            folder, slash, base = name.rpartition("/")
            if (match := _BEGINNING.match(base)) and folder + slash + stem_of(base[match.end() :]) in self._stems:
                likely[folder, match[0][:-1].lower()].append(name)
        for (folder, what), names in likely.items():
            if len(names) > 1 and 2 * len(names) >= len(self._by_folder[folder]) - len(names):
                self._judge(names, f"{folder}/*{what}* have the names of {what} images of those beside them")

    def mirrors(self) -> None:
        """Find folders such as `masks/` and `control/` whose images have the names of those around them."""
        folders = self._folders(_MIRRORS)
        inside = {name for folder in folders for name in self._below(folder)}
        for folder, match in folders.items():
            names = self._below(folder)
            around = {_bare(name) for name in self._below(posixpath.dirname(folder)) if name not in inside}
            mirrored = sum(_bare(name) in around for name in names)
            if names and mirrored >= len(names) * (0.5 if match["certain"] else 0.8):
                self._judge(names, f"{mirrored} of {len(names)} images of {folder}/ have names of images around it")
            elif names and match["certain"]:
                self.found.doubts.append(
                    f"{folder}/ has the name of a folder of masks or control images, and {READ_AS_SAMPLES}, "
                    f"because the names of its {len(names)} images are not those around it; exclude='/{folder}/' "
                    "leaves it out"
                )

    def _judge(self, names: list[str], what: str) -> None:
        """Leave images out, unless most of them have their own captions."""
        if 2 * sum(map(self._is_captioned, names)) <= len(names):
            self._leave_out(names, f"{what}; rename it to read it as samples")
        else:
            self.found.doubts.append(f"{what}, and {READ_AS_SAMPLES}, because it has captions; exclude leaves it out")

    def _leave_out(self, names: Iterable[str], reason: str, *, kind: str = "companion") -> None:
        for name in names:
            self.found.images.setdefault(name, (kind, reason))

    def _folders(self, pattern: re.Pattern[str], *, inner: bool = False) -> dict[str, re.Match[str]]:
        """Return the outermost folders with images whose names match, and the match; with `inner` those inside, too."""
        found: dict[str, re.Match[str]] = {}
        for folder in self._by_folder:
            parts = folder.split("/") if folder else []
            for depth, part in enumerate(parts):
                if match := pattern.fullmatch(part):
                    found["/".join(parts[: depth + 1])] = match
                    if not inner:
                        break
        return found

    def _below(self, folder: str) -> list[str]:
        """Return the images in a folder and below it that are still samples."""
        lead = f"{folder}/" if folder else ""
        inside = [names for each, names in self._by_folder.items() if f"{each}/".startswith(lead)]
        return [name for names in inside for name in names if name not in self.found.images]

    def _of_a_run(self, folder: str) -> str | None:
        """Return the file or folder that shows that a training run writes into a folder."""
        lead = f"{folder}/" if folder else ""
        stems = {stem_of(name)[len(lead) :] for name in self._by_folder.get(folder, ())}
        for name in self._others:
            if not name.startswith(lead):
                continue
            first, slash, _ = name[len(lead) :].partition("/")
            if slash and _RUN_FOLDERS.fullmatch(first):
                return f"{first}/"
            # A cache of an image begins with its name: a_1024x1024_flux.safetensors.
            is_cache = any(first[:at] in stems for at, letter in enumerate(first) if letter in "_-. ")
            if not slash and suffix_of(first) in _RUN_FILES and not is_cache:
                return first
        return None

    @cached_property
    def _stems(self) -> set[str]:
        return {stem_of(name) for name in self._images} | set(self._images)

    @cached_property
    def _captioned(self) -> set[str]:
        return {stem_of(name) for name in self._captions}

    def _is_captioned(self, image: str) -> bool:
        return image in self._captioned or stem_of(image) in self._captioned


def _bare(name: str) -> str:
    """Return the name that a companion shares with its image: without folder, suffix and words such as `mask`."""
    stem = stem_of(posixpath.basename(name)).lower()
    match = _NAMED.fullmatch(stem)
    return _BEGINNING.sub("", match[1] if match else stem, count=1)
