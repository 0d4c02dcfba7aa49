"""A fork of the trainer's process: it gets an error for the trainer's batches, and the trainer is untouched."""

import os
import signal
import threading
import traceback
from contextlib import suppress

import pytest
import torch
from loader_helpers import digest

import calotype
from calotype.encodings.store import EncodingStore, open_files
from calotype.errors import LoaderError, StoreError

# Python 3.12 on says that forking with threads is a risk.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def in_a_fork(work, seconds=30):
    """What a function returns in a forked child, as text; the child is killed when it hangs."""
    near, far = os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException):
            signal.alarm(seconds)
            try:
                said = str(work())
            except BaseException:
                said = traceback.format_exc()
            os.write(far, said.encode())
        os._exit(0)
    os.close(far)
    with os.fdopen(near, "rb") as answer:
        said = answer.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}: it hung"
    return said


@pytest.mark.parametrize("in_process", [False, True])
def test_a_fork_gets_an_error_and_its_parent_every_batch(photos, in_process):
    dataset = calotype.text_to_image_dataset(path=str(photos), resolution=64, include=("id",), seed=3)
    with calotype.Loader(dataset, 2, in_process=True, threads=2) as whole:
        expected = [digest(batch) for batch in whole]
    with calotype.Loader(dataset, 2, in_process=in_process, threads=2) as loader:
        batches = iter(loader)
        given = [digest(next(batches))]

        def go_on():
            said = []
            for ask in (lambda: next(batches), lambda: next(iter(loader))):
                try:
                    said.append(digest(ask()))
                except LoaderError as error:
                    said.append(str(error))
                if not in_process:
                    break  # it is closed now, and the next loop over it begins anew
            loader.close()
            fresh = calotype.Loader(dataset, 2, in_process=True, threads=1)
            said.append(digest(next(iter(fresh))))
            fresh.close()
            return "\n".join(said)

        *errors, fresh = in_a_fork(go_on).splitlines()
        assert errors and all(
            f"gives its batches to process {os.getpid()}, and process" in error and "a Loader of its own" in error
            for error in errors
        )
        assert fresh == expected[0]
        given += [digest(batch) for batch in batches]
    assert given == expected


def test_closing_does_not_wait_for_a_fork_that_lives_on(photos):
    """Nor does the loader process outlive its trainer because of it: the fork holds none of its ends."""
    dataset = calotype.text_to_image_dataset(path=str(photos), resolution=64)
    loader = calotype.Loader(dataset, 2, threads=1)
    batches = iter(loader)
    next(batches)
    process = loader._source._process
    waits, go_on = os.pipe()
    child = os.fork()
    if not child:
        os.read(waits, 1)
        os._exit(0)
    batches.close()
    loader.close()
    assert process.returncode == 0  # not killed after a time: it saw the end
    os.write(go_on, b"x")
    os.waitpid(child, 0)
    os.close(waits)
    os.close(go_on)


def test_a_batch_that_another_process_took_is_missed(photos):
    dataset = calotype.text_to_image_dataset(path=str(photos), resolution=64)
    loader = calotype.Loader(dataset, 2, threads=1)
    batches = iter(loader)
    next(batches)
    stolen = loader._source._connection.recv()  # as a process would that shares the socket and runs none of our code
    assert stolen.at == (0, 1)
    loader._source._released.append(stolen.slot)
    if stolen.fresh:
        from multiprocessing.reduction import recv_handle

        os.close(recv_handle(loader._source._connection))
    with pytest.raises(LoaderError, match=r"step 2 came where that of epoch 0, step 1 was expected: another process"):
        next(batches)


def test_a_store_s_writer_stays_with_its_process(tmp_path):
    store = EncodingStore(tmp_path / "store", create=True)
    writer = store.writer()
    writer.put([b"a" * 16], [{"x": torch.ones(3)}], kind="text")

    def write():
        said = []
        try:
            writer.put([b"b" * 16], [{"x": torch.ones(3)}], kind="text")
        except StoreError as error:
            said.append(str(error))
        writer.close()
        with store.writer() as own:
            own.put([b"c" * 16], [{"x": torch.full((3,), 2.0)}], kind="text")
        return said

    assert f"belongs to process {os.getpid()}" in in_a_fork(write)
    writer.put([b"d" * 16], [{"x": torch.full((3,), 4.0)}], kind="text")
    writer.close()
    found = EncodingStore(tmp_path / "store")
    assert not found.damaged and [found.has(key * 16) for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert found.get(int(found.find([b"d" * 16])[0]))["x"].tolist() == [4.0] * 3


def test_a_fork_reads_a_store_whose_locks_were_held(tmp_path):
    store = EncodingStore(tmp_path / "store", create=True)
    with store.writer() as writer:
        writer.put([b"a" * 16], [{"x": torch.ones(3)}], kind="text")
    again = EncodingStore(tmp_path / "store")  # which has no shard open yet
    held, release = threading.Event(), threading.Event()

    def hold():
        with open_files._lock, again._lock:
            held.set()
            release.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)

    def read():
        again.refresh()
        return again.get(int(again.find([b"a" * 16])[0]))["x"].tolist()

    try:
        assert in_a_fork(read, seconds=10) == "[1.0, 1.0, 1.0]"
    finally:
        release.set()
        thread.join()
