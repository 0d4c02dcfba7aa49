"""The photos every contestant reads: two sets of distinct JPEGs cropped from real photographs, made once and cached."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOS = 64
"""In each set: eight batches of eight, which two workers share evenly."""

SHARDS = 8
QUALITY = 92
PACKAGE = "mate-backgrounds"
"""Debian's package of desktop backgrounds; its `nature` folder and its elephants are photographs."""

SIZES = {"large": (3000, 2000), "small": (1280, 960)}
"""(width, height) of each set: 6 and 1.2 megapixels."""

MAX_ENLARGEMENT = 1.25
"""A photo may grow by this much at most: a 4-megapixel one becomes a 6-megapixel one that is about as soft as the
demosaiced output of a camera, and not softer."""

_RECIPE = 2
"""Raise it when the sets would come out differently, so that kept ones are made anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoSet:
    """One set: the same images as a folder of JPEGs and as tar shards."""

    name: str
    folder: Path
    shards: Path
    megapixels: float
    megabytes: float
    """Of one JPEG, on average."""

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.jpg"))


def photo_sets(cache: Path, photos: Path | None, names: list[str]) -> list[PhotoSet]:
    """Both sets, made under `cache` unless they are there already.

    Args:
        cache: Where downloads and sets are kept between runs.
        photos: A folder of photographs to cut the sets from; None takes Debian's package.
        names: Of the sets wanted: `large`, `small`.
    """
    sources = _sources(cache, photos)
    key = hashlib.sha256(repr((_RECIPE, [(p.name, p.stat().st_size) for p in sources])).encode()).hexdigest()[:12]
    return [_photo_set(cache / key / name, name, sources) for name in names]


def _sources(cache: Path, photos: Path | None) -> list[Path]:
    folder = photos if photos is not None else _backgrounds(cache)
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png", ".tif", ".tiff"})
    if not found:
        raise SystemExit(f"no photographs (.jpg, .png, .tif) under {folder}")
    return found


def _backgrounds(cache: Path) -> Path:
    """Debian's package, downloaded and unpacked without installing it."""
    unpacked = cache / PACKAGE
    photos = unpacked / "photos"
    if photos.is_dir():
        return photos
    unpacked.mkdir(parents=True, exist_ok=True)
    if not list(unpacked.glob("*.deb")):
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise SystemExit(f"apt-get and dpkg-deb are needed to fetch {PACKAGE}: give photographs with --photos DIR")
        subprocess.run(["apt-get", "download", PACKAGE], cwd=unpacked, check=True)
    package = next(iter(unpacked.glob("*.deb")))
    subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True)
    mate = unpacked / "usr/share/backgrounds/mate"
    chosen = [*(mate / "nature").glob("*.jpg"), mate / "abstract/Elephants_5640x3172.jpg"]
    partial = unpacked / "photos.partial"
    partial.mkdir(exist_ok=True)
    for file in chosen:
        shutil.copy(file, partial / file.name)
    partial.rename(photos)
    return photos


def _photo_set(target: Path, name: str, sources: list[Path]) -> PhotoSet:
    if not (target / "set.json").is_file():
        shutil.rmtree(target, ignore_errors=True)
        (target / "photos").mkdir(parents=True)
        (target / "shards").mkdir()
        _cut(target / "photos", SIZES[name], sources)
        _pack(sorted((target / "photos").glob("*.jpg")), target / "shards")
        width, height = SIZES[name]
        sizes = [p.stat().st_size for p in (target / "photos").glob("*.jpg")]
        facts = {"megapixels": width * height / 1e6, "megabytes": sum(sizes) / len(sizes) / 1e6}
        (target / "set.json").write_text(json.dumps(facts))
    facts = json.loads((target / "set.json").read_text())
    return PhotoSet(name=name, folder=target / "photos", shards=target / "shards", **facts)


def _cut(folder: Path, size: tuple[int, int], sources: list[Path]) -> None:
    """Distinct windows of the photographs, each scaled to `size` and saved as a JPEG."""
    width, height = size
    fitting, pixels = [], []
    for source in sources:
        with Image.open(source) as opened:
            if min(opened.width / width, opened.height / height) >= 1 / MAX_ENLARGEMENT:
                fitting.append(source)
                pixels.append(opened.width * opened.height)
    if not fitting:
        raise SystemExit(f"no photograph is large enough to make {width}x{height} ones of it")
    draw = np.random.default_rng(0)
    # A photograph with more pixels gives more windows. (Desktop backgrounds are softer than most photos, and their
    # JPEGs smaller; without this the sets would be cheaper to decode than what people train on.)
    for number, source in enumerate(draw.choice(len(fitting), size=PHOTOS, p=np.array(pixels) / sum(pixels))):
        with Image.open(fitting[source]) as opened:
            image = opened.convert("RGB")
        widest = min(image.width / width, image.height / height)
        scale = draw.uniform(max(1 / MAX_ENLARGEMENT, 0.7 * widest), widest)
        box_width, box_height = width * scale, height * scale
        left = draw.uniform(0, image.width - box_width)
        top = draw.uniform(0, image.height - box_height)
        window = image.resize(size, Image.Resampling.LANCZOS, box=(left, top, left + box_width, top + box_height))
        if number % 2:
            window = window.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        window.save(folder / f"{number:03d}.jpg", quality=QUALITY)


def _pack(files: list[Path], folder: Path) -> None:
    """The same JPEGs, byte for byte, as WebDataset shards: the same number in each."""
    per_shard = len(files) // SHARDS
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:02d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for file in files[shard * per_shard : (shard + 1) * per_shard]:
                tar.add(file, arcname=file.name)
