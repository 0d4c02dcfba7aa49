"""A DataLoader that requests samples by number shows the same augmentation in each epoch: it is said, once."""

import logging

import pytest
from torch.utils.data import ConcatDataset, DataLoader, Subset, random_split

import calotype
from calotype.errors import ConfigError

SAID = "DataLoader requests samples by number"


@pytest.fixture
def said(tmp_path):
    """Number of warnings so far, in this process and its workers."""
    handler = logging.FileHandler(tmp_path / "log.txt")
    logging.getLogger("calotype").addHandler(handler)
    yield lambda: (tmp_path / "log.txt").read_text().count(SAID)
    logging.getLogger("calotype").removeHandler(handler)
    handler.close()


def load(photos, **options):
    return calotype.text_to_image_dataset(path=photos, resolution=64, buckets=False, **options)


def run(loader, epochs):
    for _ in range(epochs):
        for _ in loader:
            pass


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}])
def test_once_in_the_second_epoch(photos, said, options):
    loader = DataLoader(load(photos, img_transform={"horizontal_flip": 0.5}), 4, shuffle=True, **options)
    run(loader, 1)
    assert said() == 0
    run(loader, 3)
    assert said() == 1


class Random(calotype.SampleSource):
    """Samples that differ from epoch to epoch."""

    def __len__(self):
        return 8

    def prepare(self, key):
        return {"epoch": key.epoch}


def test_in_workers_that_are_spawned(capfd):
    run(DataLoader(Random(), 4, num_workers=1, multiprocessing_context="spawn"), 3)
    assert capfd.readouterr().err.count(SAID) == 1


def test_not_where_nothing_changes_or_keys_have_the_epoch(photos, said):
    run(DataLoader(load(photos), 4), 3)
    flips = load(photos, img_transform={"horizontal_flip": 0.5})
    run(DataLoader(flips, batch_sampler=calotype.BatchSampler(flips, 4)), 3)
    run(DataLoader(Subset(flips, range(6)), 3), 2)  # as many as one epoch
    half = flips.select(range(6))
    run(DataLoader(half, 3), 1)
    assert said() == 0
    run(DataLoader(Subset(flips, range(6)), 3), 2)
    assert said() == 1


def test_torch_s_parts_are_noticed_and_the_sampler_names_what_serves(photos, said):
    flips = load(photos, img_transform={"horizontal_flip": 0.5})
    part, _ = random_split(flips, [0.5, 0.5])
    run(DataLoader(part, 3), 5)
    assert said() == 1
    with pytest.raises(ConfigError, match=r"found a Subset, .*; dataset.select\(indices\) makes one of some rows"):
        calotype.BatchSampler(part, 2)
    with pytest.raises(ConfigError, match=r"found a ConcatDataset, .*\(path=\[a, b\]\) makes one of several"):
        calotype.BatchSampler(ConcatDataset([flips, flips]), 2)
