"""The turns of requests to a host: how many at a time, and how long all wait where it asks for that."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from calotype.images import hosts as hosts_module
from calotype.images.hosts import Hosts


def test_a_turn_waits_for_the_end_of_another_once_there_are_as_many_as_may_be():
    hosts, entered = Hosts(2), threading.Event()

    def enter():
        with hosts.turn("a", retry=False):
            entered.set()

    waiting = threading.Thread(target=enter)
    with ExitStack() as turns:
        for _ in range(2):
            turns.enter_context(hosts.turn("a", retry=False))
        with hosts.turn("b", retry=False):  # another host
            waiting.start()
        assert not entered.wait(0.2)
    assert entered.wait(20)
    waiting.join()


def test_the_longest_pause_that_was_asked_for_counts(monkeypatch):
    waits = []
    monkeypatch.setattr(hosts_module.time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(hosts_module.time, "sleep", waits.append)
    hosts = Hosts(2)
    for seconds in (3, 9, 1):
        hosts.pause("a", seconds)
    with hosts.turn("a", retry=False):
        pass
    assert waits == [9]
