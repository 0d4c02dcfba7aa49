"""The table of captioners, and which of them `auto` picks."""

from pathlib import Path

import pytest
import torch

from calotype.captioning.captioners import CAPTIONERS, default_device, free_memory, pick_captioner
from calotype.errors import CaptionError

GIB = 1 << 30


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (3, "HuggingFaceTB/SmolVLM-500M-Instruct"),
        (8, "Qwen/Qwen3-VL-2B-Instruct"),
        (12, "Qwen/Qwen3-VL-4B-Instruct"),
        (24, "Qwen/Qwen3-VL-8B-Instruct"),
        (79, "Qwen/Qwen3-VL-32B-Instruct"),
        (1000, "Qwen/Qwen3-VL-32B-Instruct"),
    ],
)
def test_the_largest_that_fits(free, expected):
    picked = pick_captioner("cuda", free=free * GIB)
    assert picked.captioner.hub == expected
    assert expected in picked.why and f"cuda has {free}.0 GiB free" in picked.why
    assert ("the next larger" in picked.why) == (free < 79)


def test_a_cpu_gets_what_it_can_run():
    picked = pick_captioner("cpu", free=64 * GIB)
    assert picked.captioner.hub == "HuggingFaceTB/SmolVLM-500M-Instruct"
    assert "take minutes per image on a CPU" in picked.why
    assert pick_captioner("cpu", free=3 * GIB).captioner.hub == "HuggingFaceTB/SmolVLM-256M-Instruct"


def test_nothing_fits():
    with pytest.raises(
        CaptionError, match=r"cuda has 1.0 GiB of free memory, and the smallest captioner needs 2.0 GiB"
    ):
        pick_captioner("cuda", free=GIB)


def test_the_table_goes_from_small_to_large():
    sizes = [row.parameters for row in CAPTIONERS]
    assert sizes == sorted(sizes)
    assert len({row.hub for row in CAPTIONERS}) == len(CAPTIONERS)
    for row in CAPTIONERS:
        assert row.needs(torch.device("cuda")) > row.weights == 2 * row.parameters


def test_free_memory_of_this_machine():
    assert 0 < free_memory(torch.device("cpu")) < 1 << 50
    assert pick_captioner(default_device()).why


def test_the_docs_have_the_same_table():
    page = (Path(__file__).parents[2] / "docs" / "captioners.md").read_text(encoding="utf-8")
    for row in CAPTIONERS:
        needs = row.needs(torch.device("cuda")) / GIB
        assert f"| `{row.hub}` | {row.parameters / 1e9:g} | {needs:.1f} | {'✓ ' if row.auto else ''}|" in page
    assert page.count("| `") >= len(CAPTIONERS)
