"""Slots: what is written on one side is read on the other, whatever pages the system gives."""

import mmap
import sys

import numpy as np
import pytest
import torch

from calotype.loader import huge_pages
from calotype.loader.batch_builder import Spec
from calotype.loader.huge_pages import HUGE, in_huge_pages
from calotype.loader.slots import Slot

linux = pytest.mark.skipif(sys.platform != "linux", reason="huge pages are asked for on Linux only")


def other_side(slot):
    """As the trainer maps it."""
    return np.frombuffer(mmap.mmap(slot.fd, slot.size), np.uint8)


def in_huge(memory):
    """kB of a mapping that are in huge pages, as the system counts them."""
    address, found = np.frombuffer(memory, np.uint8).ctypes.data, False
    with open("/proc/self/smaps") as lines:
        for line in lines:
            name, *rest = line.split()
            if "-" in name and not name.endswith(":"):
                begin, end = (int(part, 16) for part in name.split("-"))
                found = begin <= address < end
            elif found and name == "ShmemPmdMapped:":
                return int(rest[0])
    return 0


@pytest.mark.parametrize("side", [3, 512, 1024])
def test_both_sides_see_the_same(side):
    slot = Slot(0)
    specs = {
        "img": Spec(torch.uint8, (2, 3, side, side)),
        "mask": Spec(torch.bfloat16, (2, 5)),
        "no": Spec(torch.bool, (2, 0)),
    }
    spaces = slot.reserve(specs)
    assert slot.fresh and slot.moved
    for number, (key, space) in enumerate(spaces.items()):
        assert space.tensor.dtype == specs[key].dtype and space.tensor.shape == specs[key].shape
        assert space.tensor.untyped_storage().nbytes() == space.tensor.nbytes == len(space.data)
        space.tensor.fill_(number + 1)
    memory = other_side(slot)
    for key, place in slot.places.items():
        assert place.offset % 64 == 0
        for seen in (place.over(memory), place.copied(memory)):
            assert torch.equal(seen, spaces[key].tensor) and seen.dtype == spaces[key].tensor.dtype
    copied = slot.places["img"].copied(memory)
    spaces["img"].data[0] = 77  # the tensor's bytes
    assert spaces["img"].tensor.view(-1)[0] == memory[0] == 77 and copied.view(-1)[0] == 1


def test_a_slot_is_laid_out_anew_only_for_other_tensors_and_grows_only_for_larger_ones():
    slot = Slot(0)
    small, large = {"a": Spec(torch.uint8, (100,))}, {"a": Spec(torch.uint8, (3 * HUGE,))}
    first = slot.reserve(small)
    slot.fresh = slot.moved = False
    assert slot.reserve(dict(small)) is first and not slot.moved
    slot.reserve(large)
    assert slot.fresh and slot.moved and slot.size == 3 * HUGE
    slot.fresh = slot.moved = False
    renamed = slot.reserve({"b": Spec(torch.uint8, (100,))})
    assert slot.moved and not slot.fresh and renamed.keys() == slot.places.keys() == {"b"}
    assert slot.reserve({}) == {} == slot.places


@linux
def test_huge_pages_where_the_system_has_them():
    slot = Slot(0)
    (space,) = slot.reserve({"a": Spec(torch.uint8, (2 * HUGE - 5,))}).values()
    space.tensor.fill_(3)
    assert other_side(slot)[: 2 * HUGE - 5].min() == 3
    kb = in_huge(space.data)
    if not kb:
        pytest.skip("this system gave pages of the usual size")
    assert kb == 2 * HUGE // 1024


@linux
def test_memory_is_whole_where_there_are_no_huge_pages(monkeypatch):
    monkeypatch.setattr(huge_pages, "_COLLAPSE", 9999)  # as for a kernel that does not know it
    slot = Slot(0)
    (space,) = slot.reserve({"a": Spec(torch.uint8, (HUGE,))}).values()
    assert in_huge(space.data) == 0
    space.tensor.fill_(5)
    assert (other_side(slot) == 5).all()


def test_what_is_no_multiple_of_a_page_is_not_tried():
    assert in_huge_pages(-1, HUGE + 4096) is None and in_huge_pages(-1, 0) is None
