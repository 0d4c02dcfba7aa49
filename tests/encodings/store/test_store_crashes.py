"""What a store keeps when writers are killed, the power goes or the disk is full: every put but the open one."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from store_helpers import is_right, key, keys, put

from calotype.encodings.store import EncodingStore
from calotype.encodings.store import shard as shards
from calotype.encodings.store import writer as writing
from calotype.encodings.store.pruning import prune_store
from calotype.encodings.store.shard import read_header
from calotype.errors import StoreError

PUT = 5
"""Records of a put."""

SCRIPT = "import os, sys\nfrom store_helpers import *\n"


@pytest.fixture
def python():
    """Starts a process that runs some code beside the helpers; all of them have ended when the test has."""
    started = []
    path = os.pathsep.join(map(str, Path(__file__).parents[2:4]))  # the helpers, and this checkout
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def start(code, *arguments, command=(sys.executable, "-c")):
        code = [SCRIPT + code] if code else []
        arguments = [*command, *code, *map(str, arguments)]
        started.append(subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def whole_by_safetensors(folder):
    for path in (folder / "shards").glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                file.get_tensor(name)


def files(store):
    return sorted(path.name for path in (store / "shards").iterdir())


WRITE = """
store = EncodingStore(sys.argv[1], create=True)
name, puts = sys.argv[2], int(sys.argv[3])
with store.writer(shard_bytes=1 << (20 if name == "a" else 30)) as writer:
    for number in range(puts):
        put(writer, keys(range(5 * number, 5 * number + 5), name))
        print(number, flush=True)
print("closed", flush=True)
"""


def test_kill_9_of_two_writers_loses_at_most_their_open_puts(tmp_path, python):
    folder = tmp_path / "store"
    EncodingStore(folder, create=True)
    writers = {name: python(WRITE, folder, name, 10**9) for name in ("a", "b")}
    done = {}
    for name, process in writers.items():
        for _ in range(170):  # the first by then in its second shard or so, the other in its only one
            line = process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        done[name] = int((process.stdout.read().splitlines() or [line])[-1])  # what it had said by then
        assert process.wait() == -signal.SIGKILL
    assert any(name.endswith(".open.safetensors") for name in files(folder))

    def check(store):
        for name, last in done.items():
            assert all(is_right(store, one) for one in keys(range(PUT * (last + 1)), name))
            found = store.find(keys(range(PUT * (last + 1), PUT * (last + 3)), name))
            assert set((found[:PUT] >= 0).tolist()) != {True, False}, "a put is there or it is not"
            assert (found[PUT:] < 0).all()

    check(EncodingStore(folder))
    EncodingStore(folder).writer().close()
    assert not any(".open." in name for name in files(folder))
    whole_by_safetensors(folder)
    check(EncodingStore(folder))


def test_two_writers_at_once_and_a_reader_that_refreshes(tmp_path, python):
    folder = tmp_path / "store"
    reader = EncodingStore(folder, create=True)
    writers = {name: python(WRITE, folder, name, 80) for name in ("a", "b")}
    said = dict.fromkeys(writers, -1)
    while any(process.poll() is None for process in writers.values()):
        for name, process in writers.items():
            if (line := process.stdout.readline().strip()) and line != "closed":
                said[name] = int(line)
        reader.refresh()
        for name, last in said.items():
            if last >= 0:
                assert all(is_right(reader, one) for one in keys(range(PUT * last, PUT * last + PUT), name))
    reader.refresh()
    assert len(reader) == 2 * 80 * PUT
    for store in (reader, EncodingStore(folder)):
        assert all(is_right(store, one) for name in writers for one in keys(range(80 * PUT), name))
    whole_by_safetensors(folder)


def test_a_put_that_comes_while_its_shard_s_header_is_read(tmp_path, monkeypatch):
    reader = EncodingStore(tmp_path, create=True)
    with EncodingStore(tmp_path).writer() as writer:
        put(writer, keys(range(PUT)))
        read, puts = shards.pread_all, [keys(range(PUT, 2 * PUT))]

        def read_after_a_put(fd, count, offset):
            if offset == 8 and puts:
                put(writer, puts.pop())
            return read(fd, count, offset)

        monkeypatch.setattr(shards, "pread_all", read_after_a_put)
        reader.refresh()
        assert not puts and not reader.damaged
        assert all(is_right(reader, one) for one in keys(range(2 * PUT)))


@pytest.fixture
def torn(tmp_path):
    """A store as a writer that died after three puts left it, its open shard, and where that one's puts end."""
    store = EncodingStore(tmp_path / "living", create=True)
    ends = []
    with store.writer() as writer:
        for number in range(3):
            put(writer, keys(range(PUT * number, PUT * number + PUT)))
            (living,) = (store.path / "shards").glob("*.open.safetensors")
            ends.append(living.stat().st_size)
        shutil.copytree(store.path, tmp_path / "torn")
    return tmp_path / "torn", tmp_path / "torn" / "shards" / living.name, ends


def puts_found(folder):
    EncodingStore(folder, create=True).writer().close()
    whole_by_safetensors(folder)
    store = EncodingStore(folder)
    for number in range(3):
        for one in keys(range(PUT * number, PUT * number + PUT)):
            assert not store.has(one) or is_right(store, one)
    return [store.find(keys(range(PUT * n, PUT * n + PUT))).min() >= 0 for n in range(3)]


def test_data_of_a_put_without_its_header(torn):
    folder, shard, _ = torn
    with shard.open("ab") as file:
        file.write(b"half of a put" * 1000)
    assert puts_found(folder) == [True, True, True]


def test_a_header_that_was_not_committed(torn):
    """All text of a fourth put but the byte that commits it, cut off in the middle."""
    folder, shard, _ = torn
    with shard.open("r+b") as file:
        header = read_header(file.fileno(), shard)
        file.seek(header.brace + 1)
        file.write(b'"00031.text.prompt_embeds":{"dtype":"BF1')
    assert EncodingStore(folder).find(keys(range(15))).min() >= 0
    assert puts_found(folder) == [True, True, True]


def test_a_power_cut_that_took_the_end_of_the_data(torn):
    folder, shard, ends = torn
    os.truncate(shard, ends[1] + 100)
    assert puts_found(folder) == [True, True, False]


def test_a_power_cut_that_left_zeros_where_the_last_data_was(torn, caplog):
    folder, shard, ends = torn
    with shard.open("r+b") as file:
        file.seek(ends[1] + 64)
        file.write(bytes(ends[2] - ends[1] - 64))
    assert puts_found(folder) == [True, True, False]
    assert "its writer was killed" in caplog.text


def test_a_power_cut_that_left_a_hole_in_the_middle(torn):
    """The puts around it stay, and its damaged records are marked as dropped."""
    folder, shard, ends = torn
    with shard.open("r+b") as file:
        file.seek(ends[0] + 64)
        file.write(bytes(ends[1] - ends[0] - 1000))
    found = puts_found(folder)
    assert found[0] and found[2] and not found[1]
    with EncodingStore(folder).writer() as writer:
        put(writer, keys(range(PUT, 2 * PUT)))
    assert puts_found(folder) == [True, True, True]


def test_a_header_that_never_reached_the_disk_is_set_aside(torn, caplog):
    folder, shard, _ = torn
    with shard.open("r+b") as file:
        file.write(bytes(4096))
    assert puts_found(folder) == [False, False, False]
    assert any(name.endswith(".broken") for name in files(folder)) and "is damaged" in caplog.text


def test_what_died_before_its_first_put_goes(torn):
    folder, shard, _ = torn
    with shard.open("r+b") as file:
        os.truncate(shard, read_header(file.fileno(), shard).base)
    (folder / "shards" / ".20260101T000000-abcdef01.new").write_bytes(b"")
    assert puts_found(folder) == [False, False, False]
    assert files(folder) == []


def test_nobody_finishes_the_shard_of_a_living_writer(torn):
    folder, shard, _ = torn
    with shard.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        EncodingStore(folder).writer().close()
        assert files(folder) == [shard.name]
    assert puts_found(folder) == [True, True, True]


FILL = """
import resource, time, torch
from calotype.errors import StoreError
store = EncodingStore(sys.argv[1], create=True)
limit = int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
writer = store.writer()
for number in range(100):
    try:
        writer.put([key(number)], {"x": torch.full((1, 100_000), number, dtype=torch.int64)}, kind="image")
    except StoreError as error:
        print(error)
        break
put(writer, [key(1000)])  # a smaller one still fits, and the writer goes on
writer.close()
print(number)
"""


def check_filled(folder, process):
    *_, message, stored = process.communicate(timeout=100)[0].splitlines()
    assert process.returncode == 0
    assert "can't be written" in message and "free some space and run again" in message
    store = EncodingStore(folder)
    assert len(store) == int(stored) + 1 >= 2 and not store.damaged and is_right(store, key(1000))
    for number in range(int(stored)):
        assert (store.get(int(store.find([key(number)])[0]))["x"] == number).all()
    assert not store.has(key(int(stored)))
    whole_by_safetensors(folder)


def test_a_file_that_may_not_grow_loses_only_the_open_put(tmp_path, python):
    check_filled(tmp_path / "store", python(FILL, tmp_path / "store", 3_000_000))


def test_a_full_disk_loses_only_the_open_put(tmp_path, python):
    """A real one: a small file system in memory, in a mount namespace that ends with the process."""
    script, disk, copy = tmp_path / "fill.py", tmp_path / "disk", tmp_path / "copy"
    script.write_text(SCRIPT + FILL)
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=3m none {disk}"
    shell = ("unshare", "--mount", "--map-root-user", "sh", "-c")
    try:
        subprocess.run([*shell, mount], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no small file system can be mounted here")
    fill = f"{mount} && {sys.executable} {script} {disk}/store 0 && cp -r {disk}/store {copy}"
    process = python("", fill, command=shell)
    check_filled(copy, process)


def test_ctrl_c_at_any_moment_of_a_put_leaves_it_there_or_not(tmp_path, monkeypatch):
    """The interrupt comes before and behind each of the system calls of a put."""
    store = EncodingStore(tmp_path / "store", create=True)
    real = writing.write_all
    with store.writer() as writer:
        put(writer, [key(0)])
        for moment in range(6):
            calls = iter(range(3))

            def interrupted(fd, parts, offset, moment=moment, calls=calls):
                at = next(calls, None)
                if at == moment // 2 and moment % 2 == 0:
                    raise KeyboardInterrupt
                real(fd, parts, offset)
                if at == moment // 2:
                    raise KeyboardInterrupt

            monkeypatch.setattr(writing, "write_all", interrupted)
            with pytest.raises(KeyboardInterrupt):
                put(writer, [key(100 + moment)])
            monkeypatch.setattr(writing, "write_all", real)
            put(writer, [key(moment)])
    reopened = EncodingStore(store.path)
    assert all(is_right(reopened, key(moment)) for moment in range(6))
    assert [reopened.has(key(100 + moment)) for moment in range(6)] == [False] * 5 + [True]
    whole_by_safetensors(store.path)


def test_a_disk_that_fails_at_the_end_says_so_and_the_next_writer_finishes(tmp_path, monkeypatch):
    store = EncodingStore(tmp_path / "store", create=True)
    writer = store.writer()
    put(writer, keys(range(5)))

    def fail(fd):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StoreError, match="can't be written: Input/output error; nothing written before is lost"):
            writer.close()
    store.writer().close()
    assert all(is_right(EncodingStore(store.path), one) for one in keys(range(5)))
    whole_by_safetensors(store.path)


PRUNE = """
import signal, numpy as np
from calotype.encodings.store.pruning import prune_store
keep = np.frombuffer(b"".join(keys(range(0, 200, 3))), np.uint8).reshape(-1, 16)
def stop(done, total):
    if done == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
prune_store(EncodingStore(sys.argv[1]), keep, progress=stop)
"""


def test_a_prune_that_is_killed_half_way_loses_nothing(tmp_path, python):
    folder = tmp_path / "store"
    with EncodingStore(folder, create=True).writer(shard_bytes=20_000) as writer:
        for start in range(0, 200, 4):
            put(writer, keys(range(start, start + 4)))
    reader = EncodingStore(folder)
    kept = keys(range(0, 200, 3))
    process = python(PRUNE, folder, 8)
    assert process.wait(timeout=100) == -signal.SIGKILL
    for store in (reader, EncodingStore(folder)):
        assert all(is_right(store, one) for one in kept)
    prune_store(EncodingStore(folder), np.frombuffer(b"".join(kept), np.uint8).reshape(-1, 16))
    assert all(is_right(reader, one) for one in kept), "a reader follows its records to their new place"
    store = EncodingStore(folder)
    assert len(store) == len(kept) and all(is_right(store, one) for one in kept)
    whole_by_safetensors(folder)
