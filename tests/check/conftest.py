"""Shared by the tests of check."""

from pathlib import Path

import pytest


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    """A cache folder of the test's own, without facts of other tests' images."""
    folder = tmp_path / "own-cache"
    monkeypatch.setenv("CALOTYPE_CACHE", str(folder))
    return folder
