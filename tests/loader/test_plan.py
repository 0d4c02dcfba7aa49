"""The plan: every sample once an epoch or named, equal steps on all ranks, exact resumes at any world size."""

import itertools
from collections import Counter

import numpy as np
import pytest

from calotype.errors import ConfigError
from calotype.loader.plan import Plan, Segment

SIZES = [(64, 64), (64, 96), (96, 64), (32, 128)]


def buckets(n=103, seed=0):
    return np.random.default_rng(seed).integers(-1, len(SIZES), n)


def plans(world_size, batch_size, *, assigned=None, **options):
    assigned = buckets() if assigned is None else assigned
    return [
        Plan(buckets=assigned, sizes=SIZES, batch_size=batch_size, rank=rank, world_size=world_size, **options)
        for rank in range(world_size)
    ]


def walk(epochs, steps=None):
    """What each step gives all ranks together, having checked that the ranks agree on its shape."""
    assert len({len(epoch) for epoch in epochs}) == 1
    for step in range(len(epochs[0]) if steps is None else steps):
        batches = [epoch[step] for epoch in epochs]
        assert len({len(batch) for batch in batches}) == 1
        assert len({key.size for batch in batches for key in batch}) == 1
        yield [key for batch in batches for key in batch]


@pytest.mark.parametrize("remainder", ["short", "repeat", "drop"])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_each_sample_once_or_named(world_size, batch_size, remainder):
    assigned = buckets()
    epochs = [plan.epoch(5) for plan in plans(world_size, batch_size, remainder=remainder)]
    seen = Counter(key.index for keys in walk(epochs) for key in keys)
    named = Counter(int(note.id) for note in epochs[0].remainders())
    expected = Counter(np.flatnonzero(assigned >= 0).tolist())
    if remainder == "drop":
        assert seen + named == expected
    else:
        assert seen == expected + named
    if world_size * batch_size == 1 or (world_size == 1 and remainder == "short"):
        assert not named


def test_samples_come_in_their_own_bucket():
    assigned = buckets()
    for keys in walk([plan.epoch(0) for plan in plans(2, 4)]):
        for key in keys:
            assert key.size == SIZES[assigned[key.index]]


def test_epochs_and_seeds_differ_and_repeat():
    def order(seed, epoch):
        return [key.index for keys in walk([plan.epoch(epoch) for plan in plans(1, 4, seed=seed)]) for key in keys]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
    assert sorted(order(1, 0)) == sorted(order(2, 7))


def test_no_shuffle_keeps_the_rows_order():
    (plan,) = plans(1, 4, assigned=np.zeros(10, dtype=int), shuffle=False)
    assert [key.index for keys in walk([plan.epoch(3)]) for key in keys] == list(range(10))


def test_steps_of_buckets_are_mixed():
    (plan,) = plans(1, 2, assigned=np.repeat([0, 1], 100))
    sizes = [keys[0].size for keys in walk([plan.epoch(0)])]
    changes = sum(a != b for a, b in itertools.pairwise(sizes))
    assert changes > 20  # one after the other would be 1


def test_resume_at_other_world_sizes_loses_and_repeats_nothing():
    assigned = np.repeat([0, 1, 2, 3], 24)  # divisible by everything below, so that nothing has to come twice
    seen = Counter()
    history = ()
    for world_size, batch_size, steps in [(2, 4, 4), (4, 2, 3), (1, 8, None)]:
        epochs = [plan.epoch(2, history) for plan in plans(world_size, batch_size, assigned=assigned)]
        seen.update(key.index for keys in walk(epochs, steps) for key in keys)
        if steps is not None:
            history = (*history, Segment(world_size=world_size, batch_size=batch_size, steps=steps))
    assert seen == Counter(range(96))


def test_uneven_resume_repeats_only_what_it_names():
    history = (Segment(world_size=2, batch_size=3, steps=7),)
    before = [plan.epoch(3) for plan in plans(2, 3)]
    after = [plan.epoch(3, history) for plan in plans(4, 2)]
    seen = Counter(key.index for keys in walk(before, 7) for key in keys)
    seen.update(key.index for keys in walk(after) for key in keys)
    named = Counter(int(note.id) for note in after[0].remainders())
    assert seen == Counter(np.flatnonzero(buckets() >= 0).tolist()) + named


def test_five_pictures_and_a_batch_of_eight():
    assigned = np.zeros(5, dtype=int)
    for remainder, expected in [("short", [5]), ("repeat", [8]), ("drop", [])]:
        (plan,) = plans(1, 8, assigned=assigned, remainder=remainder)
        assert [len(keys) for keys in walk([plan.epoch(0)])] == expected
    (plan,) = plans(1, 8, assigned=assigned, remainder="repeat")
    keys = plan.epoch(0)[0]
    assert len({(key.index, key.repeat) for key in keys}) == 8  # the three that come twice are drawn anew


def test_weights_are_repeats_with_draws_of_their_own():
    weights = np.array([1.0, 3.0, 0.0, 2.0])
    (plan,) = plans(1, 2, assigned=np.zeros(4, dtype=int), weights=weights)
    keys = [key for keys in walk([plan.epoch(0)]) for key in keys]
    assert Counter(key.index for key in keys) == {0: 1, 1: 3, 3: 2}
    assert sorted(key.repeat for key in keys if key.index == 1) == [0, 1, 2]


def test_fractional_weights_come_out_right_over_epochs():
    weights = np.array([0.5, 1.25, 0.1] * 40)
    (plan,) = plans(1, 4, assigned=np.zeros(120, dtype=int), weights=weights)
    total = Counter()
    for epoch in range(20):
        counts = Counter(key.index for keys in walk([plan.epoch(epoch)]) for key in keys)
        assert all(counts[i] in (np.floor(weights[i]), np.ceil(weights[i])) for i in range(120))
        assert 60 <= sum(counts.values()) <= 90  # 74 on average: spread, not all in one epoch
        total += counts
    assert all(abs(total[i] - 20 * weights[i]) < 1 for i in range(120))


def test_stand_ins_fit_the_step_and_never_end():
    assigned = np.array([0, 0, 0, 1])
    (plan,) = plans(1, 2, assigned=assigned)
    epoch = plan.epoch(0)
    for step in range(len(epoch)):
        wanted = epoch[step]
        for place, key in enumerate(wanted):
            tried = list(epoch.stand_ins(step, place))
            assert len(tried) == 8 and {one.size for one in tried} == {key.size}
            assert len({one.repeat for one in tried} | {key.repeat for key in wanted}) == 8 + len(
                {k.repeat for k in wanted}
            )
            assert {one.index for one in tried} - {key.index}  # not its own row alone, which can't be read


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("remainder", ["short", "repeat", "drop"])
@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 4), (2, 3), (4, 2)])
def test_no_two_places_of_a_step_share_a_stand_in_on_any_rank(world_size, batch_size, remainder, weighted):
    assigned = buckets(n=400)
    options = {"remainder": remainder, "weights": np.where(np.arange(400) % 3, 1.0, 2.0) if weighted else None}
    epochs = [plan.epoch(1) for plan in plans(world_size, batch_size, assigned=assigned, **options)]
    for step in range(len(epochs[0])):
        shown = {key.index for epoch in epochs for key in epoch[step]}
        tried = [
            one.index for epoch in epochs for place in range(len(epoch[step])) for one in epoch.stand_ins(step, place)
        ]
        assert len(set(tried)) == len(tried) and not shown & set(tried)
        first = [next(epoch.stand_ins(step, 0)).index for epoch in epochs]
        size = epochs[0][step][0].size  # of the bucket, as long as it has rows outside the step
        assert all(SIZES[assigned[index]] == size for index in first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: found 0"),
        ({"rank": 2, "world_size": 2}, "rank: found 2, expected 0 to world_size - 1 = 1"),
        ({"remainder": "keep"}, "remainder: found 'keep', expected 'short', 'repeat' or 'drop'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        Plan(**({"buckets": np.zeros(3, dtype=int), "sizes": [None], "batch_size": 1} | options))
