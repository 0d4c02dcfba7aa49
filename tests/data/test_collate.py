"""collate stacks, pads with masks, and names what does not fit."""

import pytest
import torch

from calotype.data.collate import collate
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
    stacked, rest = builder.finish()
    expected = collate(samples)
    assert (stacked | rest).keys() == expected.keys()
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
