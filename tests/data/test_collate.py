"""collate stacks, pads with masks, and names what does not fit."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, default_collate

import calotype
from calotype.data.collate import FetchedSample, collate
from calotype.errors import CollateError
from calotype.loader.batch_builder import BatchBuilder, HeapMemory


def sample(i, **changes):
    return {
        "img": torch.full((3, 4, 5), float(i)),
        "tokens": torch.arange(4) + i,
        "ids": list(range(i + 1)),
        "index": i,
        "text": f"caption {i}",
        "id": f"{i}.jpg",
    } | changes


def test_stacks_pads_and_lists():
    batch = collate([sample(0), sample(2)])
    assert batch["img"].shape == (2, 3, 4, 5) and batch["img"][1].eq(2).all()
    assert batch["tokens"].tolist() == [[0, 1, 2, 3], [2, 3, 4, 5]]
    assert batch["ids"].tolist() == [[0, 0, 0], [0, 1, 2]]
    assert batch["ids_mask"].tolist() == [[True, False, False], [True, True, True]]
    assert batch["index"].tolist() == [0, 2]
    assert batch["text"] == ["caption 0", "caption 2"]


def test_as_torchtune_calls_it():
    batch = collate([{"ids": [5]}, {"ids": [6, 7]}], padding_idx=9, ignore_idx=-100)
    assert batch["ids"].tolist() == [[5, 9], [6, 7]]


@pytest.mark.parametrize("memory_comes", ["first", "last"])
def test_the_loaders_builder_gives_the_same(memory_comes):
    samples = [sample(i) for i in (3, 0, 2)]
    if memory_comes == "first":
        builder = BatchBuilder(3, HeapMemory())
        for place in (1, 2, 0):
            builder.put(place, samples[place])
    else:
        builder = BatchBuilder(3)
        tensors = [tensor for place in (1, 2, 0) for tensor in builder.add(place, samples[place])]
        builder.attach(HeapMemory())
        builder.write(tensors)
    stacked, rest, keys = builder.finish()
    expected = collate(samples)
    assert list(keys) == list(expected) and (stacked | rest).keys() == expected.keys()
    for key, value in (stacked | rest).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, expected[key]) and value.dtype == expected[key].dtype, key
        else:
            assert value == expected[key], key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img": torch.zeros(3, 4, 6)}, r"'img' is \(3, 4, 5\) float32 in sample '0.jpg' but \(3, 4, 6\)"),
        ({"img": torch.zeros(3, 4, 5, dtype=torch.uint8)}, "float32 in sample '0.jpg' but .* uint8 in sample '1.jpg'"),
        ({"extra": 1}, r"different keys: only the first has \[\], only the second has \['extra'\]"),
        ({"text": None}, "'text' is a str in sample '0.jpg' but a NoneType in sample '1.jpg'"),
    ],
)
def test_names_what_differs(changes, message):
    with pytest.raises(CollateError, match=message):
        collate([sample(0), sample(1, **changes)])
    builder = BatchBuilder(2, HeapMemory())
    builder.put(0, sample(0))
    with pytest.raises(CollateError, match=message):
        builder.put(1, sample(1, **changes))


def test_no_samples():
    with pytest.raises(CollateError, match="no samples"):
        collate([])


class Samples(calotype.SampleSource):
    """What a DataLoader fetches by the hundred: tensors of two sizes, texts, lists, missing values."""

    def __init__(self, sizes):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def prepare(self, key):
        size = self.sizes[key.index]
        return sample(key.index, img=torch.zeros(3, *size), captions=["a"] * (1 + key.index), note=None)

    def ids(self, start, stop):
        return [f"{index}.png" for index in range(start, stop)]


def test_torchs_default_collate_takes_what_collate_takes():
    samples = Samples([(4, 4)] * 3)
    batch, expected = next(iter(DataLoader(samples, 3))), collate([samples[i] for i in range(3)])
    assert type(batch) is dict and batch.keys() == expected.keys()
    assert batch["captions"] == [["a"], ["a", "a"], ["a", "a", "a"]] and batch["note"] == [None] * 3
    assert torch.equal(batch["ids"], expected["ids"]) and torch.equal(batch["img"], expected["img"])


def test_torchs_default_collate_still_stacks_arrays_and_nested_samples():
    batch = default_collate([FetchedSample({"a": np.ones(2), "b": {"c": 1.5}}, id=id) for id in "xy"])
    assert batch["a"].tolist() == [[1, 1], [1, 1]] and batch["b"]["c"].tolist() == [1.5, 1.5]


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_different_sizes_in_a_plain_dataloader_name_the_way_out(workers):
    class WithoutId(Samples):
        def prepare(self, key):
            return {"img": super().prepare(key)["img"]}

    with pytest.raises(CollateError, match=r"sample '0.png' but \(3, 4, 6\) .* in sample '1.png'") as error:
        next(iter(DataLoader(Subset(WithoutId([(4, 4), (4, 6)]), [0, 1]), 2, num_workers=workers)))
    assert "calotype.BatchSampler(dataset, batch_size)" in str(error.value)
