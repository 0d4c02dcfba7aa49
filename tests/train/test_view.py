"""What a person sees of a run: what it is going to do, one live bar on a terminal, sparse lines in a pipe."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from train_helpers import make_folder, run

from calotype.data import rows
from calotype.encodings.encoding_time import EncodingTime
from calotype.progress import track
from calotype.train import view
from calotype.train.report import Clock, Progress
from calotype.train.view import TrainView


def progress(step, max_steps=100):
    left = float(max_steps - step)
    return Progress(
        step=step,
        max_steps=max_steps,
        loss=0.41271,
        lr=1e-4,
        images_per_second=1.3,
        data_wait=0.001,
        seconds_left=left,
    )


def test_a_pipe_gets_a_line_every_ten_seconds(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(view.time, "monotonic", lambda: now)
    with TrainView() as shown:
        shown.tell("Training …")
        for step in range(1, 101):
            now += 1.0
            shown.step_done(step, 100)
            shown.show(progress(step))
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[:2] == ["Training …", "step 1/100  loss 0.4127  1.30 images/s  data wait 0.1 %  1 min 39 s left"]
    assert len(lines) == 12 and lines[-1] == "step 100/100  loss 0.4127  1.30 images/s  data wait 0.1 %" and not err
    assert all(len(line) <= 80 for line in lines)


def test_a_terminal_gets_one_bar_of_its_width_below_what_is_printed(capsys, monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    with TrainView() as shown:
        shown.step_done(0, 100)
        shown._bar.refresh()
        shown.step_done(7, 100)
        shown.show(progress(7))
        shown.tell("step 7  validation loss 0.5")
        with track("encoding images") as show:  # within the bar: both are drawn
            show(1, 2)
        shown._bar.refresh()
        shown.step_done(8, 100)
    out, err = capsys.readouterr()
    assert not out  # what is printed goes through the bar's console, above the bar
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err)
    assert "step 7  validation loss 0.5" in plain
    assert re.search(r"step 0/100 .* waiting for the first batch …", plain)
    assert not re.search(r"step [1-9].* waiting", plain)
    bars = [line for line in re.split(r"[\r\n]", plain) if line.startswith("step 7/100")]
    assert bars and "loss 0.4127  1.30 images/s  data wait 0.1 %  1 min 33 s left" in bars[-1]
    assert max(map(len, bars)) <= 80


def test_a_terminal_of_60_columns_wraps_what_is_printed(capsys, monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "COLUMNS": "60"}.items():
        monkeypatch.setenv(name, value)
    path = "/a/folder/with-a-long/name-that-nobody/would/shorten/but-it-is-what/people-have/store"
    with TrainView() as shown:
        shown.tell("  buckets   1024×1024: 16  1152×896: 4  896×1152: 1,004  and 12 more (width×height: images)")
        shown.tell(f"            are stored in {path}")
        shown.tell("note: the LoRA is on 15 layers, as in diffusers' script; 2 more linear layers are left out\x1b[2J")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "  buckets   1024×1024: 16  1152×896: 4  896×1152: 1,004  and",
        "            12 more (width×height: images)",
    ]
    assert path in "".join(lines).replace(" " * 12, "") and "\x1b" not in "".join(lines)
    assert all(len(line) <= 60 for line in lines if path not in line)


OUTLINE = """
import sys
from calotype.config import read_config
from calotype.config.train import TrainConfig
from calotype.train.outline import outline, outline_of_rows, training_rows
config = read_config(sys.argv[1], ["model=flux.1-dev", "max_steps=30", "loader.batch_size=2"])
print(*outline(config, config.train), sep="\\n")
print(*outline_of_rows(training_rows(config), config, config.train), sep="\\n")
assert "torch" not in sys.modules
"""


def test_the_outline_needs_no_torch(tmp_path):
    make_folder(tmp_path / "photos")
    done = subprocess.run([sys.executable, "-c", OUTLINE, "photos"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, result, images, steps = done.stdout.splitlines()
    assert (first, result) == ("Training a LoRA (rank 16) of flux.1-dev", "  result    output")
    assert re.fullmatch(r"  images    \d+ in photos; all have captions", images)
    assert re.fullmatch(r"  steps     30 of 2 images: each image is seen \d+(\.\d)? times", steps)


def test_what_a_run_says_before_its_first_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, said, loaded = make_folder(tmp_path / "photos"), [], []
    load = rows.load_manifest
    monkeypatch.setattr(rows, "load_manifest", lambda path, **options: (loaded.append(path), load(path, **options))[1])
    store = {"store": str(tmp_path / "store")}
    run(folder, tmp_path / "out", max_steps=3, encodings=store, tell=said.append)
    found = {line[2:10].strip(): line[12:] for line in said if line.startswith("  ")}
    assert found["device"].startswith("CPU") and "images" in found["buckets"]
    assert re.match(r"\d+ images and texts while training", found["encoding"])
    assert re.match(r"at least [\d.]+ [kM]B: network .*, training .*, encoders .*", found["memory"])
    assert not [line for line in said if len(line) > 80 and "note:" not in line and str(tmp_path) not in line]
    assert said.index("Loading the transformer …") < said.index("Training from step 1 of 3 …")

    assert len(loaded) == 1  # for the outline and for the training
    said.clear()
    run(folder, tmp_path / "again", max_steps=1, encodings=store, tell=said.append)
    assert "  encoding  nothing: all images and texts are encoded" in said


def test_encoding_and_the_start_of_the_loader_are_no_wait_for_data(monkeypatch):
    encoding = EncodingTime(10)
    clock, now = Clock(encoding), 100.0
    monkeypatch.setattr("calotype.train.report.time.perf_counter", lambda: now)
    for wait, encoded in ((50.0, 5.0), (8.0, 6.0)):  # the loader starts; then a batch of which 6 s were encoding
        clock.start()
        asked, now = now, now + wait
        encoding.seconds += encoded
        encoding.done, encoding.missing = encoding.done + 2, encoding.missing - 2
        clock.got_batch(asked, 2)
        now += 2.0
        clock.end()
    assert clock.stepping == pytest.approx(2.0 + 2.0 + 2.0) and clock.data_wait == pytest.approx(2.0 / 6.0)

    def left(max_steps):
        return clock.progress(2, max_steps, loss=1.0, lr=1.0).seconds_left

    assert left(10) == pytest.approx(encoding.seconds_left + 8 * 3.0) and encoding.seconds_left == pytest.approx(16.5)
    assert left(3) == pytest.approx(11.0 / 2 + 3.0)  # records that the run never reaches take no time
    assert not left(2)  # nor does anything after the last step


def test_of_several_ranks_the_first_shows_progress(monkeypatch, capsys):
    monkeypatch.setattr("calotype.progress.time.monotonic", iter(range(0, 10000, 20)).__next__)
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        with track("reading") as show:
            show(1, 2)
    assert capsys.readouterr().err.count("reading: 1/2") == 1
