"""The real tokenizers as fixtures; `real_tokenizers` says where they come from."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import real_tokenizers


@pytest.fixture(scope="session")
def folder() -> Callable[[str], Path]:
    """The folder of one real tokenizer by its name (`clip_l`, `t5`, …); a test is skipped where it can't be had."""
    return real_tokenizers.tokenizer


@pytest.fixture(scope="session")
def pipelines(folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's tokenizers laid out as a saved pipeline has them: `tokenizer`, `tokenizer_2`, …"""
    families = {
        "flux.1": ("clip_l", "t5"),
        "sdxl": ("sdxl_clip_l", "sdxl_clip_g"),
        "sd3": ("sd3_clip_l", "sd3_clip_g", "sd3_t5"),
        "sd-1": ("sd15_clip_l",),
    }

    def lay_out(family: str) -> Path:
        pipeline = tmp_path_factory.mktemp(family)
        for number, name in enumerate(families[family], start=1):
            (pipeline / ("tokenizer" if number == 1 else f"tokenizer_{number}")).symlink_to(folder(name))
        return pipeline

    return lay_out
