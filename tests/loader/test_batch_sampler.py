"""`calotype.BatchSampler`: a plain DataLoader gets the batches of a Loader, epochs that advance, and exact resumes."""

from itertools import islice

import pytest
import torch
from loader_helpers import digest, ids
from torch.utils.data import DataLoader

import calotype
from calotype.errors import ConfigError, LoaderError
from calotype.ledger import LedgerEntry
from calotype.types import SampleKey

WORKERS = [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 3}]
IDS = ["no workers", "workers", "persistent workers"]


@pytest.fixture(scope="module")
def keys():
    return Keys()


class Keys(calotype.SampleSource):
    """Samples that are their keys, so that a test sees epochs and draws without decoding images."""

    def __len__(self):
        return 11

    def prepare(self, key):
        return {"index": key.index, "epoch": key.epoch, "seed": key.seed, "repeat": key.repeat}

    @property
    def bucket_sizes(self):
        return ((64, 64), (64, 96))

    def scan(self, *, progress=None):
        return torch.tensor([0, 0, 1, 0, 1, 0, 0, 1, 0, 1, 0], dtype=torch.int32).numpy(), []


def loaded(source, workers, **options):
    sampler = calotype.BatchSampler(source, 3, seed=4, **options)
    return sampler, DataLoader(source, batch_sampler=sampler, **workers)


@pytest.mark.parametrize("workers", WORKERS[:2], ids=IDS[:2])
def test_the_batches_are_those_of_a_loader_in_every_epoch(dataset, workers):
    with calotype.Loader(dataset, 3, seed=4, in_process=True) as expected:
        wanted = [[digest(batch) for batch in expected] for _ in range(2)]
    _, loader = loaded(dataset, workers, shuffle=True)
    assert len(loader) == len(wanted[0])
    assert [[digest(batch) for batch in loader] for _ in range(2)] == wanted


@pytest.mark.parametrize("workers", WORKERS, ids=IDS)
def test_each_loop_is_the_next_epoch_whether_or_not_it_ran_to_its_end(keys, workers):
    sampler, loader = loaded(keys, workers)
    iter(sampler)  # never used: costs no epoch
    assert [epoch for batch in loader for epoch in batch["epoch"].tolist()] == [0] * 11
    assert {int(epoch) for batch in islice(loader, 2) for epoch in batch["epoch"]} == {1}
    assert {int(epoch) for batch in loader for epoch in batch["epoch"]} == {2}
    assert sampler.epoch == 3


@pytest.mark.parametrize("workers", WORKERS, ids=IDS)
def test_a_state_continues_with_the_batch_after_the_loops_last(keys, workers):
    sampler, loader = loaded(keys, workers)
    states, batches = [sampler.state_dict(loader)], []
    for _ in range(2):
        for batch in loader:
            states.append(sampler.state_dict(loader))
            batches.append(digest(batch))
        assert sampler.state_dict(loader) == states[-1]
    for done, state in enumerate(states[:-1]):
        resumed, others = loaded(keys, {})
        resumed.load_state_dict(state)
        assert digest(next(iter(others))) == batches[done]
        with calotype.Loader(keys, 3, seed=4, in_process=True) as one:
            one.load_state_dict(state)
            assert digest(next(iter(one))) == batches[done]
    # With workers, into a DataLoader that has run already.
    sampler.load_state_dict(states[2])
    assert [digest(batch) for batch in loader] == batches[2:5]
    assert [digest(batch) for batch in loader] == batches[5:]


def test_a_state_without_the_loader_is_the_position_of_the_last_request(keys):
    sampler, loader = loaded(keys, {})
    next(iter(loader))
    assert sampler.state_dict() == sampler.state_dict(loader)
    sampler, loader = loaded(keys, {"num_workers": 2})
    batches = iter(loader)
    next(batches)
    assert sampler.state_dict(loader)["step"] == 1
    assert sampler.state_dict()["epoch"] == 1  # all five are requested


@pytest.mark.parametrize("workers", [0, 2])
def test_under_torchdatas_stateful_loader(keys, workers):
    from torchdata.stateful_dataloader import StatefulDataLoader

    def make():
        return StatefulDataLoader(keys, batch_sampler=calotype.BatchSampler(keys, 3, seed=4), num_workers=workers)

    loader = make()
    states, batches = [], []
    for _ in range(2):
        for batch in loader:
            states.append(loader.state_dict())
            batches.append(digest(batch))
    resumed = make()
    resumed.load_state_dict(states[1])
    assert [digest(batch) for batch in resumed] == batches[2:5]
    assert [digest(batch) for batch in resumed] == batches[5:]


def test_ranks_share_an_epoch_and_a_state_may_change_their_number(keys):
    samplers = [calotype.BatchSampler(keys, 2, num_replicas=2, rank=rank) for rank in range(2)]
    steps = list(zip(*samplers, strict=True))
    assert all(len({key.size for keys in step for key in keys}) == 1 for step in steps)
    assert {key.index for step in steps for keys in step for key in keys} == set(range(11))
    first = [next(iter(sampler)) for sampler in samplers]  # of epoch 1
    alone = calotype.BatchSampler(keys, 3)
    alone.load_state_dict(samplers[0].state_dict())
    rest = [key for keys in alone for key in keys]
    done = [key for keys in first for key in keys if not key.repeat]  # those repeated are still to come
    assert sorted(key.index for key in [*done, *rest]) == list(range(11)) and {key.epoch for key in rest} == {1}


def test_remainders_are_as_the_loaders_and_named(keys):
    sampler = calotype.BatchSampler(keys, 3, remainder="drop", shuffle=False)
    assert sampler.drop_last and len(sampler) == 3
    assert [[key.index for key in batch] for batch in sampler] == [[0, 1, 3], [5, 6, 8], [2, 4, 7]]
    assert sampler.ledger.counts() == {"remainder": 2}
    padded = calotype.BatchSampler(keys, 3, remainder="repeat")
    assert {len(batch) for batch in padded} == {3} and padded.ledger.counts() == {"repeated": 4}


def test_a_state_after_a_load_is_the_one_that_was_loaded(keys):
    sampler, loader = loaded(keys, {})
    start = sampler.state_dict(loader)
    list(islice(loader, 2))
    sampler.load_state_dict(start)
    assert sampler.state_dict(loader) == start


def test_notes_of_a_source_go_to_the_ledger():
    class Noting(Keys):
        def __init__(self):
            self.notes = [LedgerEntry(kind="unreadable", id="3", reason="torn")]

        def take_notes(self):
            notes, self.notes = self.notes, []
            return notes

    sampler, loader = loaded(Noting(), {})
    assert not sampler.ledger.counts()
    list(loader)
    assert sampler.ledger.counts() == {"unreadable": 1}


def test_ids_come_as_a_list_and_shuffle_off_keeps_the_rows(square):
    loader = DataLoader(square, batch_sampler=calotype.BatchSampler(square, 5, shuffle=False))
    assert ids(loader) == square.ids(0, len(square))


def test_under_accelerate(keys):
    from accelerate import Accelerator

    sampler, plain = loaded(keys, {})
    loader = Accelerator(cpu=True).prepare(plain)
    assert [{int(epoch) for batch in loader for epoch in batch["epoch"]} for _ in range(2)] == [{0}, {1}]
    # It takes a batch ahead of the loop: a resume would leave one out.
    next(iter(loader))
    with pytest.raises(
        ConfigError, match=r"found a DataLoaderShard of accelerate, .* not given to accelerator\.prepare"
    ):
        sampler.state_dict(loader)


def test_what_has_no_position_is_refused(keys):
    sampler, _ = loaded(keys, {})
    _, other = loaded(keys, {})
    with pytest.raises(ConfigError, match="another batch sampler"):
        sampler.state_dict(other)
    with pytest.raises(ConfigError, match="in_order=False"):
        sampler.state_dict(DataLoader(keys, batch_sampler=sampler, in_order=False, num_workers=1))
    with pytest.raises(ConfigError, match="rank and num_replicas go together"):
        calotype.BatchSampler(keys, 3, rank=0)
    with pytest.raises(ConfigError, match="batch_size: found 0"):
        calotype.BatchSampler(keys, 0)
    with pytest.raises(LoaderError, match="seed 4, this loader has 5"):
        calotype.BatchSampler(keys, 3, seed=5).load_state_dict(sampler.state_dict())
    first, second = iter(sampler), iter(sampler)
    assert isinstance(next(first)[0], SampleKey) and next(second)[0].epoch == 1
    with pytest.raises(LoaderError, match="ended when another one began"):
        next(first)
