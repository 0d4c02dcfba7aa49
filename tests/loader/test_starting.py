"""While the loader process starts, threads prepare the first batches; then it continues, and nobody sees a seam."""

import os
import signal
import sys
import threading

import pytest
from loader_helpers import digest, until

import calotype
from calotype.errors import LoaderError
from calotype.loader.source import ProcessSource
from calotype.loader.starting import StartingSource


@pytest.fixture(autouse=True)
def process_from_the_first_batch(monkeypatch):
    """Not here: a source whose process is said to have started when a test says so."""
    monkeypatch.setattr(StartingSource, "started", False, raising=False)
    opened = ProcessSource.opened
    monkeypatch.setattr(ProcessSource, "opened", lambda self: StartingSource.started and until(lambda: opened(self)))
    monkeypatch.setattr("calotype.loader.loader.StartingSource", StartingSource)


def whole(dataset, **options):
    with calotype.Loader(dataset, 2, seed=3, in_process=True, **options) as loader:
        return [[digest(batch) for batch in loader] for _ in range(2)]


@pytest.mark.parametrize("after", [1, 5])  # batches
def test_the_process_continues_where_the_threads_stop(dataset, after):
    wanted = whole(dataset)
    with calotype.Loader(dataset, 2, seed=3, threads=2) as loader:
        got, count = [[], []], 0
        for epoch in range(2):
            for batch in loader:
                got[epoch].append(digest(batch))
                count += 1
                StartingSource.started = count > after
        assert got == wanted
        assert loader._source._threads is None


def test_the_first_batch_does_not_wait_for_the_process(square):
    wanted = whole(square)[0]
    with calotype.Loader(square, 2, seed=3) as loader:
        os.kill(loader._open().pid, signal.SIGSTOP)
        assert [digest(batch) for batch in loader] == wanted
        loader.load_state_dict({"epoch": 0})  # moving needs no process either
        assert digest(next(iter(loader))) == wanted[0]


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no priority of its own")
def test_the_threads_leave_the_cores_to_the_process():
    """Else a loop as fast as its batches keeps the process from starting for seconds."""
    with calotype.Loader(Niceness(), 2, threads=2) as loader:
        while_it_starts = {value for batch in loader for value in batch["niceness"].tolist()}
        StartingSource.started = True
        list(loader)
        from_the_process = {value for batch in loader for value in batch["niceness"].tolist()}
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert (while_it_starts, from_the_process) == ({19}, {own})


class Niceness(calotype.SampleSource):
    """The niceness of the thread that prepares each sample."""

    def __len__(self):
        return 8

    def prepare(self, key):
        return {"niceness": os.getpriority(os.PRIO_PROCESS, threading.get_native_id())}


def test_a_loader_that_moves_while_the_process_takes_over(square):
    wanted = whole(square)[0]
    with calotype.Loader(square, 2, seed=3, prefetch=3) as loader:
        batches = iter(loader)
        next(batches)
        StartingSource.started = True
        next(batches)
        assert loader._source._handing_over
        loader.load_state_dict({"epoch": 0})
        assert [digest(batch) for batch in loader] == wanted


class Raises(calotype.SampleSource):
    """Its sixth sample can't be prepared."""

    def __len__(self):
        return 8

    def prepare(self, key):
        return {"index": key.index, "share": 1 / (5 - key.index)}


def test_errors_are_those_of_the_process_and_come_in_their_turn():
    StartingSource.started = False
    with calotype.Loader(Raises(), 2, shuffle=False) as loader:
        batches = iter(loader)
        assert [next(batches)["index"].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
        with pytest.raises(ZeroDivisionError) as caught:
            next(batches)
        assert "In the loader process" in "".join(caught.value.__notes__)


class Locks(Raises):
    """Its batches can't be sent from the loader process."""

    def prepare(self, key):
        return {"lock": threading.Lock()}


def test_what_the_process_can_not_send_is_refused_from_the_first_batch():
    with calotype.Loader(Locks(), 2) as loader, pytest.raises(LoaderError, match="can't be sent from the loader"):
        next(iter(loader))


def test_a_process_that_dies_while_it_starts_is_an_error(square):
    StartingSource.started = True
    with calotype.Loader(square, 2) as loader:
        os.kill(loader._open().pid, signal.SIGKILL)
        with pytest.raises(LoaderError, match=r"died \(killed by signal 9\)"):
            list(loader)


class FetchesAhead(Raises):
    lookahead = 64


def test_what_fetches_ahead_does_so_in_the_process_alone():
    with calotype.Loader(FetchesAhead(), 2) as loader:
        assert type(loader._open()) is ProcessSource
