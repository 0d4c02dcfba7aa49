"""`DaemonPool`: results as they come, and no waiting at the end."""

from __future__ import annotations

import threading

import pytest

from calotype.core.daemon_pool import DaemonPool


def test_results_come_as_they_are_ready():
    first = threading.Event()

    def call(number):
        if number == 0:
            assert first.wait(20)
        return number * 2

    with DaemonPool(4, "test") as pool:
        seen = []
        for number, double in pool.unordered(call, range(50)):
            assert double == 2 * number
            seen.append(number)
            if len(seen) == 49:
                first.set()
    assert seen[-1] == 0 and sorted(seen) == list(range(50))


def test_items_are_taken_as_threads_become_free():
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    with DaemonPool(2, "test") as pool:
        results = pool.unordered(lambda number: number, items())
        next(results)
        assert len(taken) <= 100
        results.close()


def test_an_error_ends_it():
    with pytest.raises(ZeroDivisionError), DaemonPool(2, "test") as pool:
        for _ in pool.unordered(lambda number: 1 / number, [1, 2, 0, 3]):
            pass


def test_whoever_leaves_by_an_error_waits_for_nothing():
    go, begun, calls = threading.Event(), threading.Event(), []

    def call(number):
        calls.append(number)
        begun.set()
        go.wait(20)

    with pytest.raises(KeyboardInterrupt), DaemonPool(2, "test") as pool:
        futures = [pool.submit(call, number) for number in range(10)]
        begun.wait(20)
        raise KeyboardInterrupt
    assert sum(future.cancelled() for future in futures) >= 8 and len(calls) <= 2
    go.set()
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(call, 1)


def test_no_more_threads_than_needed_and_none_left():
    def ours():
        return [thread for thread in threading.enumerate() if thread.name.startswith("counted_")]

    with DaemonPool(8, "counted") as pool:
        for number in range(20):
            assert pool.submit(lambda number=number: number).result() == number
        assert 1 <= len(ours()) <= 2
        assert list(pool.map(str, range(100))) == list(map(str, range(100)))
        threads = ours()
    for thread in threads:
        thread.join(10)
    assert not ours()
