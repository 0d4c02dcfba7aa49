"""Signals between steps, disks without room, samples and trackers that fail: what a run leaves, and that it goes on."""

import json
import os
import signal
import subprocess
import threading

import diffusers
import pytest
import torch
from train_helpers import checkpoints, make_folder, run, trained_weights

from calotype.cli.train import interrupted
from calotype.encodings.on_the_fly import OnTheFlyDataset
from calotype.errors import ConfigError
from calotype.train import loop, room, validation
from calotype.train.average import Average
from calotype.train.interrupt import Interrupted, StopRequest
from calotype.train.schedule import saves_left


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def signal_at(step, number):
    return lambda progress: os.kill(os.getpid(), number) if progress.step == step else None


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_a_checkpoint_after_the_step_in_hand(folder, tmp_path, number, status, capsys):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as ended:
        run(folder, tmp_path, max_steps=4, show=signal_at(2, number))
    assert checkpoints(tmp_path) == ["step-00000002"] and trained_weights(tmp_path, 2)
    assert signal.getsignal(number) is before
    assert interrupted(ended.value).exit_code == status
    said = capsys.readouterr().err
    assert f"Interrupted after step 2, saved in {tmp_path}/checkpoints/step-00000002. To continue: calotype" in said
    assert "--resume" in said
    if number == signal.SIGTERM:
        assert run(folder, tmp_path, max_steps=4, resume=True).steps == 4


def test_the_second_signal_ends_at_once_as_does_the_first_where_nothing_can_be_saved():
    with StopRequest.from_signals() as stop:
        with pytest.raises(Interrupted) as ended:
            os.kill(os.getpid(), signal.SIGINT)
        assert ended.value.checkpoint is None
    with StopRequest.from_signals() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked and stop.number == signal.SIGTERM
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_thread_and_a_program_with_handlers_of_its_own_keep_theirs():
    seen = []

    def listen():
        with StopRequest.from_signals() as stop:
            seen.append((signal.getsignal(signal.SIGINT), stop.asked))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [(signal.getsignal(signal.SIGINT), False)]
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with StopRequest.from_signals():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_failing_sample_and_a_failing_tracker_end_no_training(folder, tmp_path, monkeypatch):
    said = []
    call = diffusers.FluxPipeline.__call__

    def out_of_memory(self, *args, generator, **options):
        if generator.initial_seed() == 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return call(self, *args, generator=generator, **options)

    def unreachable(self, values, step=None, **_):
        raise ConnectionError("the server went away")

    monkeypatch.setattr(diffusers.FluxPipeline, "__call__", out_of_memory)
    monkeypatch.setattr("accelerate.tracking.TensorBoardTracker.log", unreachable)
    options = {"sample_prompts": ["a cup", "a \ud800 cup", "a mug"], "sample_steps": 1, "trackers": ["tensorboard"]}
    report = run(folder, tmp_path, max_steps=4, tell=said.append, **options)
    assert report.steps == 4 and report.ledger["sample_failed"] == 2 and report.ledger["tracker_failed"] == 1
    assert [os.path.basename(path) for path in report.samples] == ["step-00000004-2.png"]
    text = "\n".join(said)
    assert "step-00000004, sample 0 ('a cup'): CUDA out of memory" in text and "sample prompt 1" in text
    assert text.count("the server went away") == 2  # the first time, and when it is left out
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert sorted(set(kinds)) == ["sample_failed", "tracker_failed"]


def test_room_is_checked_before_the_first_step(folder, small_disk):
    output = small_disk / "out"
    with pytest.raises(ConfigError, match=r"out: the run needs [\d,]+ bytes .*, [\d,]+ bytes are free\. Free some"):
        run(folder, output, max_steps=2, lora_rank=16)
    assert not checkpoints(output)


def test_a_disk_that_fills_up_leaves_no_half_of_a_checkpoint(small_disk):
    (small_disk / "old").write_bytes(b"whole")
    with (
        pytest.raises(ConfigError, match=r"disk: no room for it \(No space left on device\): it takes [\d,]+ bytes, "),
        room.room_for(small_disk, 10, what="it"),
    ):
        (small_disk / "new").write_bytes(bytes(1 << 20))
    assert (small_disk / "old").read_bytes() == b"whole"


def test_a_moving_average_is_loaded_to_the_device_and_dtype_of_its_parameters():
    saved = Average([torch.nn.Parameter(torch.ones(3))], decay=0.9).state_dict()
    average = Average([torch.nn.Parameter(torch.empty(3, device="meta", dtype=torch.float64))], decay=0.9)
    average.load_state_dict(saved)
    (shadow,) = average.state_dict()["shadow_params"]
    assert shadow.device.type == "meta" and shadow.dtype == torch.float64


@pytest.mark.parametrize(("arguments", "count"), [((0, 6, 0), 1), ((0, 6, 2), 3), ((2, 7, 2), 3), ((6, 6, 2), 0)])
def test_the_checkpoints_that_are_left(arguments, count):
    assert saves_left(*arguments) == count


def after(count, call):
    """The same call, which sends SIGTERM to this process before the call of this number."""
    numbers = iter(range(count, -1_000_000, -1))

    def wrapped(*args, **options):
        if next(numbers) == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return call(*args, **options)

    return wrapped


WORK = {  # what runs when the signal comes → (whose call, number of the call, the step that was saved)
    "load": ((loop, "load_network"), 0, None),
    "encode": ((OnTheFlyDataset, "_encode"), 1, 2),
    "validation": ((validation, "sample_noise"), 3, 1),  # three images are held out
    "sample": ((diffusers.FluxPipeline, "__call__"), 0, 1),
}


@pytest.mark.parametrize("work", WORK)
def test_a_signal_ends_a_run_within_a_step_whatever_it_does(folder, tmp_path, monkeypatch, capsys, work):
    (owner, name), count, step = WORK[work]
    monkeypatch.setattr(owner, name, after(count, getattr(owner, name)))
    options = {
        "validation": {"dataset": {"validation": 0.5}, "validation_every": 1, "loader": {"batch_size": 1}},
        "sample": {"sample_prompts": ["a cup"], "sample_every": 1, "sample_steps": 2},
    }
    store = {"store": str(tmp_path / "store")} if work == "encode" else {}
    with pytest.raises(Interrupted) as ended:
        run(folder, tmp_path / "out", max_steps=9, encodings=store, **options.get(work, {}))
    assert interrupted(ended.value).exit_code == 143
    said = capsys.readouterr().err
    if step is None:
        assert ended.value.checkpoint is None and not checkpoints(tmp_path / "out")
        assert "Interrupted before a checkpoint was saved. To begin anew: calotype" in said and "--resume" not in said
    else:
        assert checkpoints(tmp_path / "out") == [f"step-{step:08d}"] and f"Interrupted after step {step}, saved" in said
    assert not list((tmp_path / "out").glob("samples/*"))
