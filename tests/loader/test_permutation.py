"""The computed shuffle is a permutation, depends on its key, and favours no order."""

import math
from collections import Counter

import numpy as np
import pytest

from calotype.loader.permutation import Permutation


@pytest.mark.parametrize("n", [1, 2, 3, 5, 1000, 65536, 65537, 100_000, 262_145])
def test_every_position_is_hit_once(n):
    assert sorted(Permutation(n, 3, 1)(np.arange(n))) == list(range(n))


def test_one_position_at_a_time_equals_all_at_once():
    for n in (100, 100_000):
        shuffle = Permutation(n, 9)
        assert [int(shuffle(i)) for i in range(100)] == shuffle(np.arange(100)).tolist()


def test_same_key_same_order_other_key_other_order():
    positions = np.arange(500)
    assert (Permutation(500, 1, 2)(positions) == Permutation(500, 1, 2)(positions)).all()
    assert (Permutation(500, 1, 2)(positions) != Permutation(500, 2, 1)(positions)).any()


@pytest.mark.parametrize("n", [3, 4, 5])
def test_all_orders_of_a_small_set_come_equally_often(n):
    """Chi-squared over all n! orders stays below the value that chance exceeds once in a thousand."""
    each = 100
    orders = Counter(tuple(Permutation(n, seed)(np.arange(n)).tolist()) for seed in range(each * math.factorial(n)))
    chi2 = sum((count - each) ** 2 / each for count in orders.values())
    limit = {3: 20.5, 4: 49.7, 5: 175.0}[n]  # 0.999 quantiles of chi-squared with 5, 23 and 119 degrees of freedom
    assert len(orders) == math.factorial(n)
    assert chi2 < limit


def test_a_large_shuffle_leaves_no_trace_of_the_order():
    """Neighbours land independently: each pair's distance averages a third of the range, as uniform pairs' does."""
    n = 200_000
    out = Permutation(n, 8)(np.arange(n))
    distance = np.abs(np.diff(out)).mean() / n
    assert abs(distance - 1 / 3) < 0.005
    assert abs(np.corrcoef(out, np.arange(n))[0, 1]) < 0.01


def test_a_billion_costs_no_memory():
    shuffle = Permutation(10**9, 5)
    out = shuffle(np.arange(10**9 - 1000, 10**9))
    assert len(set(out.tolist())) == 1000
    assert out.min() >= 0 and out.max() < 10**9
    assert 4e8 < out.mean() < 6e8
