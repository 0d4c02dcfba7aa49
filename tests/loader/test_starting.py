"""While the loader process starts, threads prepare the first batches; then it continues, and nobody sees a seam."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
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


class Starts(calotype.SampleSource):
    """A source whose first batches come from threads, as those of calotype's own datasets do."""

    starts_in_trainer = True

    def __len__(self):
        return 8


class Raises(Starts):
    """Its sixth sample can't be prepared."""

    def prepare(self, key):
        return {"index": key.index, "share": 1 / (5 - key.index)}


class Mixed(Starts):
    """Tensors, numbers and texts in an order of its own."""

    def prepare(self, key):
        return {"caption": f"c{key.index}", "share": key.index / 7, "x": torch.ones(2), "index": key.index}


def test_the_threads_and_the_process_give_the_same_keys_dtypes_and_devices():
    """In their order, and whatever the trainer has set for all of torch."""
    torch.set_default_dtype(torch.bfloat16)
    torch.set_default_device("meta")
    try:
        with calotype.Loader(Mixed(), 2) as loader:
            (of_threads, *_) = list(loader)
            StartingSource.started = True
            list(loader)
            (of_the_process, *_) = list(loader)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    for batch in (of_threads, of_the_process):
        assert list(batch) == ["caption", "share", "x", "index"]
        assert (batch["share"].dtype, batch["share"].device.type) == (torch.float32, "cpu")
        assert (batch["index"].dtype, batch["index"].device.type) == (torch.int64, "cpu")


class Threads(Starts):
    """The thread that prepares each sample."""

    def prepare(self, key):
        time.sleep(0.01)
        return {"thread": threading.get_ident()}


def test_one_thread_is_left_after_the_first_batch():
    """Else a loop as fast as its batches keeps the process from starting for seconds."""
    with calotype.Loader(Threads(), 2, threads=2, prefetch=1) as loader:
        list(loader)  # its first batches are begun by both
        assert len({thread for batch in loader for thread in batch["thread"].tolist()}) == 1


def test_code_of_the_user_runs_in_the_process_alone(square):
    """It may depend on what is global to a process, and must not depend on how fast that starts."""

    def own(image):
        return image

    def with_transforms(**options):
        return calotype.TextToImageDataset(square.manifest, **transforms | options)

    transforms = {"img_transform": square.img_transform, "caption_transform": square.caption_transform}
    assert with_transforms().starts_in_trainer
    assert not with_transforms(model_transform=dict).starts_in_trainer
    assert not with_transforms(img_transform=calotype.ImageTransform(custom=[own])).starts_in_trainer
    assert not with_transforms(caption_transform=calotype.CaptionTransform(custom=[str.lower])).starts_in_trainer
    assert not Threads.__base__.__base__.starts_in_trainer.fget(object())
    with calotype.Loader(with_transforms(model_transform=dict), 2) as loader:
        assert isinstance(loader._open(), ProcessSource)


AT_EXIT = """
import time, calotype, torch
class Slow(calotype.SampleSource):
    starts_in_trainer = True
    def __len__(self): return 4096
    def prepare(self, key):
        if key.index >= 2: print(end=".", flush=True)
        time.sleep(0.2)
        return {"x": torch.zeros(4)}
batches = iter(calotype.Loader(Slow(), 2, threads=1, prefetch=64, shuffle=False))
next(batches)
"""


def test_a_program_that_ends_prepares_no_further_samples():
    out = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, check=True, timeout=60)
    assert len(out.stdout) <= 3
    assert not out.stderr


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
