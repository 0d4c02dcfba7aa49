"""Datasets of encodings are tested in the loader process."""

import pytest

from calotype.loader.source import ProcessSource


@pytest.fixture(autouse=True)
def process_from_the_first_batch(monkeypatch):
    """Tests of a loader process get every batch from it, also those that threads make while it starts."""
    monkeypatch.setattr("calotype.loader.loader.StartingSource", ProcessSource)
