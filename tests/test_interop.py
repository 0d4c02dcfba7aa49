"""The dataset under other people's loaders: torch's DataLoader, torchdata's, accelerate, Grain."""

from collections import Counter

import pytest
import torch
from real_tokenizers import flux_tokenizers

import calotype
from calotype.data.collate import collate
from calotype.types import SampleKey


@pytest.fixture(scope="module")
def dataset(photos):
    """The RFC's own options, and what they give a Flux recipe."""
    return calotype.text_to_image_dataset(
        calotype.FluxTransform(*flux_tokenizers(), t5_max_seq_len=32),
        path=photos,
        img_transform={"resize": [96, 64], "center_crop": True, "horizontal_flip": 0.5},
        caption_transform={"drop": 0.05, "shuffle_parts": 0.1},
    )


def expected(dataset, indices):
    return collate([dataset[i] for i in indices])


def same(batch, other):
    assert batch.keys() == other.keys()
    for key in batch:
        assert torch.equal(batch[key], other[key]), key


def test_torch_dataloader(dataset):
    workers = torch.utils.data.DataLoader(
        dataset, batch_size=5, num_workers=2, collate_fn=collate, multiprocessing_context="spawn"
    )
    batches = list(workers)
    assert [len(batch["img"]) for batch in batches] == [5, 5, 2]
    for start, batch in zip((0, 5, 10), batches, strict=True):
        same(batch, expected(dataset, range(start, min(start + 5, 12))))
    default = next(iter(torch.utils.data.DataLoader(dataset, batch_size=5)))  # torch's own collate does as well
    same(default, batches[0])


def test_torch_dataloader_with_keys_from_a_plan(dataset):
    """A batch sampler of `SampleKey`s: epochs and buckets without any state in the dataset."""
    keys = [[SampleKey(i, epoch=3) for i in (4, 1)], [SampleKey(i, epoch=4) for i in (2, 2)]]
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=keys, collate_fn=collate)
    for batch, wanted in zip(loader, keys, strict=True):
        same(batch, expected(dataset, wanted))


def test_torchdata_stateful_dataloader(dataset):
    from torchdata.stateful_dataloader import StatefulDataLoader

    def make():
        generator = torch.Generator().manual_seed(7)
        return StatefulDataLoader(dataset, batch_size=4, shuffle=True, collate_fn=collate, generator=generator)

    loader = make()
    batches, states = [], []
    for batch in loader:
        batches.append(batch)
        states.append(loader.state_dict())
    resumed = make()
    resumed.load_state_dict(states[0])
    for batch, other in zip(resumed, batches[1:], strict=True):
        same(batch, other)


def test_accelerate(dataset):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    loader = accelerator.prepare(torch.utils.data.DataLoader(dataset, batch_size=6, collate_fn=collate))
    batches = list(loader)
    assert len(batches) == 2
    same(batches[1], expected(dataset, range(6, 12)))


def test_grain(dataset):
    import grain

    batches = list(grain.MapDataset.source(dataset).shuffle(seed=3).batch(4, batch_fn=collate))
    assert len(batches) == 3
    assert Counter(len(batch["img"]) for batch in batches) == {4: 3}
    found = [i for batch in batches for img in batch["img"] for i in range(12) if torch.equal(dataset[i]["img"], img)]
    assert sorted(found) == list(range(12))


def test_collate_as_torchtune_names_it(dataset):
    from calotype.config.instantiate import locate

    batch = locate("calotype.data.collate.collate")([dataset[0], dataset[1]], padding_idx=0, ignore_idx=-100)
    assert all(isinstance(value, torch.Tensor) for value in batch.values())  # its batch_to_device takes nothing else
    assert batch["img"].shape == (2, 3, 96, 64) and batch["t5_text_tokens"].shape == (2, 32)
