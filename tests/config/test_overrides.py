"""Overrides: where a key goes that has no section, in any order, and which keys were set."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from calotype.config.overrides import distilling_first, override


@pytest.mark.parametrize(
    ("config", "seeds", "keys"),
    [
        ({"dataset": {"seed": 1}, "loader": {"seed": 2}}, (7, 7), ["dataset.seed", "loader.seed", "dataset.seed"]),
        ({"dataset": {}, "loader": {"seed": 2}}, (7, 7), ["loader.seed", "dataset.seed"]),
        ({"dataset": {"seed": 1}, "loader": {}}, (7, None), ["dataset.seed", "dataset.seed"]),
        ({"dataset": {}}, (7, None), ["dataset.seed"]),
    ],
)
def test_one_seed_goes_wherever_the_file_has_one(config, seeds, keys):
    config = OmegaConf.create(config)
    assert override(config, "seed=7") == keys
    assert tuple(OmegaConf.select(config, f"{name}.seed") for name in ("dataset", "loader")) == seeds


def test_a_seed_with_its_section_goes_there_alone():
    config = OmegaConf.create({"dataset": {"seed": 1}, "loader": {"seed": 2}})
    assert override(config, "loader.seed=7") == ["loader.seed"]
    assert config == {"dataset": {"seed": 1}, "loader": {"seed": 7}}


@pytest.mark.parametrize("first", ["distill.student=x", "student=x"])
def test_what_makes_a_config_one_that_distills_comes_first_wherever_it_stands(first):
    given = ["dataset.path=a", "max_steps=3", first, "batch_size=2"]
    assert distilling_first(given) == [first, *(one for one in given if one != first)]


def test_a_mapping_is_merged_into_one_that_is_there_and_set_where_there_is_none():
    config = OmegaConf.create({"loader": {"seed": 2}, "dataset": {"buckets": True}})
    assert override(config, "loader={batch_size: 3}") == ["loader.batch_size"]
    assert override(config, "dataset.buckets={max_ratio: 2}") == ["dataset.buckets"]
    assert override(config, "train={max_steps: 3}") == ["train"]
    assert config == {
        "loader": {"seed": 2, "batch_size": 3},
        "dataset": {"buckets": {"max_ratio": 2}},
        "train": {"max_steps": 3},
    }
