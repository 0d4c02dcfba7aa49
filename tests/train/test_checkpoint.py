"""Checkpoints and the folder of a run: whole or not there, flushed before they are named, one run at a time."""

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from train_helpers import checkpoints

from calotype.config.section import Section
from calotype.errors import ConfigError
from calotype.ledger import LedgerEntry
from calotype.train import checkpoint
from calotype.train.run_folder import sole_run
from calotype.train.run_ledger import RunLedger


class Options(Section):
    MAY_CHANGE: ClassVar = frozenset({"max_steps"})
    BEFORE: ClassVar = {}
    keep_checkpoints: int = 3
    max_steps: int = 100


def save(output, step, result=lambda folder: None):
    trained = {"w": torch.nn.Parameter(torch.full((1000,), float(step)))}
    optimizer = torch.optim.AdamW(trained.values())
    return checkpoint.save(
        output / "checkpoints",
        step=step,
        trained=trained,
        parts={"optimizer": optimizer},
        loader={"epoch": 0},
        options=Options(),
        result=result,
    )


def resume(output):
    return checkpoint.to_resume(output / "checkpoints", Options(), resume=True)


HOLDER = """
import sys, time
from pathlib import Path
from calotype.train.run_folder import sole_run
with sole_run(Path(sys.argv[1]), Path("there")):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_holder_and_goes_with_it_however_it_ends(tmp_path):
    lock = tmp_path / "deep" / ".run.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    refused = rf"out: another run is writing here \(process {holder.pid} on .*, since 20"
    with pytest.raises(ConfigError, match=refused), sole_run(lock, Path("out")):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert lock.exists()  # what a kill leaves keeps nobody out
    with sole_run(lock, Path("out")) as held:
        assert held
        with pytest.raises(ConfigError, match="another run"), sole_run(lock, Path("out")):
            pass
    assert not lock.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 on says that forking with threads is a risk
def test_a_fork_of_the_run_does_not_hold_its_lock(tmp_path):
    lock = tmp_path / ".run.lock"
    waits, go_on = os.pipe()
    with sole_run(lock, tmp_path):
        child = os.fork()
        if not child:
            os.read(waits, 1)
            os._exit(0)
    with sole_run(lock, tmp_path) as held:  # though the child lives
        assert held
    os.write(go_on, b"x")
    os.waitpid(child, 0)
    os.close(waits)
    os.close(go_on)


def test_a_lock_whose_holder_deletes_it_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    lock, calls, flock = tmp_path / ".run.lock", [], fcntl.flock

    def just_after_the_holder_has_ended(fd, how):
        if not calls:
            lock.unlink()
        calls.append(fd)
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", just_after_the_holder_has_ended)
    with sole_run(lock, tmp_path) as held:
        assert held and lock.exists() and len(calls) == 2
        with pytest.raises(ConfigError, match="another run"), sole_run(lock, tmp_path):
            pass


def test_a_folder_without_locks_is_said_and_no_reason_to_stop(tmp_path, monkeypatch, caplog):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with sole_run(tmp_path / ".run.lock", tmp_path) as held:
        assert not held
    assert "can't be locked (No locks available): a second run in it would not be noticed" in caplog.text
    left = tmp_path / "checkpoints" / ".writing-x"
    left.mkdir(parents=True)
    save(tmp_path, 1)
    assert left.exists()  # nobody knows whether its run is alive


def test_a_second_run_is_refused_while_the_first_writes_a_checkpoint_which_stays_whole(tmp_path):
    outcomes, inside, done = {}, threading.Event(), threading.Event()

    def slow(folder):
        inside.set()
        done.wait(30)
        (folder / "late").write_text("whole")

    first = threading.Thread(target=lambda: outcomes.update(first=save(tmp_path, 1, slow)))
    first.start()
    inside.wait(30)
    with pytest.raises(ConfigError, match=rf"checkpoints: another run is writing here \(process {os.getpid()} on "):
        save(tmp_path, 2)
    done.set()
    first.join()
    assert (outcomes["first"] / "late").read_text() == "whole" and checkpoints(tmp_path) == ["step-00000001"]
    left = tmp_path / "checkpoints" / ".writing-killed"
    left.mkdir()
    save(tmp_path, 2)
    assert checkpoints(tmp_path) == ["step-00000001", "step-00000002"]


def test_every_file_is_on_the_disk_before_a_checkpoint_has_its_name(tmp_path, monkeypatch):
    events, fsync, rename = [], os.fsync, Path.rename
    monkeypatch.setattr(
        os, "fsync", lambda fd: (events.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name), fsync(fd))
    )
    monkeypatch.setattr(Path, "rename", lambda path, to: (events.append("renamed"), rename(path, to))[1])
    save(tmp_path, 1, lambda folder: ((folder / "sub").mkdir(), (folder / "sub" / "more").write_text("x")))
    named = events.index("renamed")
    before = {"trained.safetensors", "optimizer.pt", "state.json", "more", "sub", "step-00000001"}
    assert before <= set(events[:named]) and events[named + 1 :] == ["checkpoints"]


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "damage", "reason"),
    [
        ("trained.safetensors", cut, "trained.safetensors is not what was written"),
        ("trained.safetensors", flip, "trained.safetensors is not what was written"),
        ("optimizer.pt", flip, "optimizer.pt is not what was written"),
        ("optimizer.pt", Path.unlink, "optimizer.pt is missing"),
        ("state.json", cut, "is damaged"),
        ("state.json", lambda path: path.write_text("[]"), "is damaged"),
        ("state.json", lambda path: path.write_text('{"format": 1}'), "state.json has no 'step'"),
        ("state.json", Path.unlink, "state.json: No such file"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(tmp_path, file, damage, reason):
    for step in (1, 2):
        save(tmp_path, step)
    newest = save(tmp_path, 3)
    damage(newest / file)
    found = resume(tmp_path)
    assert found.step == 2 and len(found.damaged) == 1
    assert found.damaged[0].startswith(f"{newest}: is damaged (") and reason in found.damaged[0]
    # Set aside: it neither counts as one of those to keep nor stands in the way of the run's own.
    assert checkpoints(tmp_path) == ["damaged-step-00000003", "step-00000001", "step-00000002"]
    save(tmp_path, 3)
    assert resume(tmp_path).step == 3


@pytest.mark.parametrize("file", ["trained.safetensors", "optimizer.pt"])
def test_so_is_a_half_copied_one_that_has_no_checksums_yet(tmp_path, file):
    for step in (1, 2):
        state = save(tmp_path, step) / "state.json"
        known = json.loads(state.read_text())
        del known["files"]
        state.write_text(json.dumps(known))
    assert resume(tmp_path).step == 2
    cut(tmp_path / "checkpoints" / "step-00000002" / file)
    assert resume(tmp_path).step == 1


def test_without_a_whole_one_an_error_says_what_to_do(tmp_path):
    assert resume(tmp_path) is None
    shutil.rmtree(save(tmp_path, 1))
    assert resume(tmp_path) is None
    cut(save(tmp_path, 1) / "optimizer.pt")
    with pytest.raises(
        ConfigError, match=r"step-00000001: is damaged .*no older checkpoint is whole. Copy a whole one"
    ):
        resume(tmp_path)
    state = save(tmp_path, 1) / "state.json"
    state.write_text(state.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ConfigError, match="step-00000001: has format 2, this calotype reads 1: update calotype"):
        resume(tmp_path)


def test_two_ranks_note_into_one_file_and_what_both_met_is_there_once(tmp_path):
    path = tmp_path / "ledger.jsonl"
    RunLedger.begin(path)
    ranks = [RunLedger(path) for _ in range(2)]
    both = LedgerEntry(kind="unreadable", id="n\udce9.png", reason="truncated")  # a name that is no UTF-8
    for number, ledger in enumerate(ranks):
        for _ in range(2):  # epochs
            ledger.append(both)
            ledger.append(LedgerEntry(kind="replaced", id=f"{number}.png", reason="by another"))
    assert len(path.read_text().splitlines()) == 4
    ranks[0].settle()
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [both.id, "0.png", "1.png"]
    with path.open("a") as file:
        file.write('{"kind": "unreadable", "id": "cut off by a k')
    resumed = RunLedger(path)
    resumed.append(both)
    resumed.append(LedgerEntry(kind="replaced", id="2.png", reason="by another"))
    assert resumed.counts() == RunLedger(path).counts() == {"unreadable": 1, "replaced": 3}


def test_a_full_disk_ends_no_run_and_what_it_notes_is_counted_all_the_same(tmp_path, caplog):
    path = tmp_path / "ledger.jsonl"
    RunLedger.begin(path)
    ledger = RunLedger(path)
    ledger.append(LedgerEntry(kind="unreadable", id="a.png", reason="truncated"))
    before, limit = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - 1, limit[1]))  # as the kernel answers on a full disk
    try:
        ledger.settle()
        for name in "bc":
            ledger.append(LedgerEntry(kind="unreadable", id=f"{name}.png", reason="truncated"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    ledger.settle()
    assert path.read_bytes() == before and ledger.counts() == {"unreadable": 3}
    (said,) = (record.getMessage() for record in caplog.records)
    assert said == f"{path}: can't be written (File too large): further entries are only counted"


def test_fewer_steps_than_were_done_are_refused_as_many_are_not(tmp_path):
    save(tmp_path, 3)
    fewer = Options(max_steps=2)
    with pytest.raises(
        ConfigError, match=r"step-00000003: 3 steps are done, and max_steps is 2, .* Set max_steps=3 or"
    ):
        checkpoint.to_resume(tmp_path / "checkpoints", fewer, resume=True)
    assert checkpoint.to_resume(tmp_path / "checkpoints", Options(max_steps=3), resume=True).step == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 on says that forking with threads is a risk
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before_and_names_the_torn_one(tmp_path):
    whole = save(tmp_path, 1)
    child = os.fork()
    if not child:
        save(tmp_path, 2, result=lambda folder: os.kill(os.getpid(), signal.SIGKILL))
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    found = resume(tmp_path)
    assert (found.step, found.folder) == (1, whole)
    (torn,) = found.damaged
    assert "/.writing-" in torn and "step-00000002: was not whole when its run was killed" in torn
    save(tmp_path, 2)
    assert checkpoints(tmp_path) == ["step-00000001", "step-00000002"] and not resume(tmp_path).damaged


def test_a_full_disk_is_named_with_its_folder_and_bytes_and_the_last_checkpoint_stays(tmp_path):
    save(tmp_path, 1)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limit[1]))  # the kernel refuses writes, as on a full disk
    try:
        with pytest.raises(
            ConfigError,
            match=r"checkpoints: no room for the checkpoint of step 2 .*: it takes [\d,]+ bytes, [\d,]+ bytes are free",
        ):
            save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert checkpoints(tmp_path) == ["step-00000001"] and resume(tmp_path).step == 1
