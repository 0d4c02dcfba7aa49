"""The command as people run it on a tiny pipeline, and each strategy's run in this process."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from command import calotype
from train_helpers import config, make_folder

from calotype.bench.laps import LapLoader, Laps
from calotype.bench.report import BenchReport, BenchRow, Recommendation
from calotype.bench.run import _scratch, bench_config
from calotype.bench.strategies import STRATEGIES
from calotype.bench.task import SERVER, Refused, Task, perform
from calotype.bench.worker import measure
from calotype.config import Config
from calotype.errors import ConfigError
from calotype.train.run_folder import sole_run


@pytest.fixture(scope="module", autouse=True)
def closed_server():
    yield
    SERVER.close()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("data") / "photos")
    return make_folder(folder, names=("motorcycle_left.png", "retina.jpg", "ihc.png"), size=(72, 96))


def test_what_a_killed_bench_left_is_swept_and_a_living_one_s_is_not(tmp_path):
    for name in ("calotype-bench-killed", "calotype-bench-living", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".lock").touch()
    living = tmp_path / "calotype-bench-living"
    with (
        sole_run(living / ".lock", living),
        _scratch(Config.parse({"encodings": {"store": str(tmp_path / "store")}})) as scratch,
    ):
        assert {path.name for path in tmp_path.iterdir()} == {"calotype-bench-living", "mine", scratch.name}
        with _scratch(Config.parse({"encodings": {"store": str(tmp_path / "store")}})) as other:
            assert scratch.is_dir() and other != scratch
    assert {path.name for path in tmp_path.iterdir()} == {"calotype-bench-living", "mine"}


def test_all_rows_that_apply_are_filled(photos, monkeypatch):
    asked, answers, said = [], [], []

    def perform(task, folder):
        """In this process: starting one takes seconds."""
        asked.append(task)
        answers.append(measure(task))
        assert not Path(task.output).exists()  # no checkpoint, no LoRA: the runs end before
        return answers[-1]

    monkeypatch.setattr("calotype.bench.run.perform", perform)
    made = config(photos, dataset={"img_transform": {"horizontal_flip": 0.5}}, max_steps=8)
    shown = []

    @contextmanager
    def track(what, *, unit="images"):
        shown.append(what)
        yield lambda done, total: None

    report = bench_config(made, steps=2, tell=said.append, track=track)
    assert shown[0] == "reading the data and the model's configuration" and "measuring" in shown
    assert said[0] == "1 of 9: encoding the images" and "4 of 9: training with pixels in memory" in said, said
    assert [row.strategy for row in report.rows] == [one.name for one in STRATEGIES]
    assert sum(task.encode for task in asked) == 1 and len({tuple(task.rows) for task in asked}) == 1
    encoded, *measured = answers
    assert encoded["first_seconds"] > 0 and encoded["bytes"] > 0
    for found, strategy in zip(measured, (one for one in STRATEGIES if not one.remote), strict=True):
        assert found["first_pace"] > 0 and 0 <= found["data_wait"] < 1 and found["device_bytes"] is None
        assert found["host_bytes"] is None or found["host_bytes"] > 10 << 20
        keeps_pixels = strategy.name in ("pixel_cache", "device_cache")  # about 64 × 64, three bytes each
        assert 3 * 60 * 60 < found["kept_bytes"] < 3 * 70 * 70 if keeps_pixels else found["kept_bytes"] == 0
    rows = {row.strategy: row for row in report.rows}
    assert rows.pop("downloads").refused == "no image comes from a URL"
    for name, row in rows.items():
        assert row.refused is None
        assert row.epoch_seconds == pytest.approx(7 / row.images_per_second)
        before = name.startswith("encodings")
        assert (row.prepare_seconds > 0) == before and (row.disk_bytes > 0) == (before or name == "on_the_fly")
    assert rows["none"].break_even_epochs is None and report.epochs == 3
    best = report.recommendation.strategy
    assert rows[best].seconds(3) <= 1.1 * min(row.seconds(3) for row in rows.values())


def test_batches_are_timed_for_five_seconds_at_most():
    laps = Laps(asked=[float(number) for number in range(20)], came=[0.0] * 8)
    loader = SimpleNamespace(laps=laps, first=2)
    assert not LapLoader._is_long(loader, 9.9)  # 3 of the warm-up follow the first epoch of 2 batches
    assert LapLoader._is_long(loader, 10.1)
    laps.came.pop()
    assert not LapLoader._is_long(loader, 10.1)  # fewer than 3 were timed


def test_what_does_not_run_says_why(photos, tmp_path):
    made = config(photos)
    with pytest.raises(ConfigError, match="strategies"):
        bench_config(made, strategies=["encoding"])
    with pytest.raises(ConfigError, match="steps: found 0, expected 1 or more"):
        bench_config(made, steps=0)
    task = Task(config=made, encode=False, online=False, rows=(0,), steps=1, device="cpu", output=str(tmp_path))
    assert "are not encoded for flux.1-dev" in measure(task)["refused"]
    with pytest.raises(Refused, match="are not encoded"):
        perform(task, tmp_path)
    endless = made | {"dataset": made["dataset"] | {"img_transform": {"random_crop": True}}}
    assert "image_variants" in measure(replace(task, config=endless, encode=True))["refused"]
    with pytest.raises(ConfigError, match="does not train chroma"):
        bench_config(config(photos, model="chroma", encodings={"max_sequence_length": None}), steps=1)


def test_a_unet_is_told_sizes_online_too(photos, tmp_path):
    made = config(photos, model="sdxl", encodings={"max_sequence_length": None}, dataset={"include": ["text"]})
    task = Task(config=made, encode=False, online=True, rows=(0, 1), steps=1, device="cpu", output=str(tmp_path))
    assert perform(task, tmp_path)["pace"] > 0


def test_the_command(photos, tmp_path):
    made = config(photos, dataset={"img_transform": {"random_crop": True}})
    made["loader"]["in_process"] = False
    file = tmp_path / "photos.yaml"
    file.write_text(yaml.safe_dump(made))
    options = ["--steps", 2, "--strategies", "none", "--json", "max_steps=70"]
    out, _ = calotype("bench", file, *options, OMP_NUM_THREADS="1", CALOTYPE_CACHE=str(tmp_path / "cache"))
    report = json.loads(out.splitlines()[-1])
    rows = {row["strategy"]: row for row in report["rows"]}
    assert list(rows) == ["none"]
    assert rows["none"]["refused"] is None and rows["none"]["images_per_second"] > 0
    assert (report["pictures"], report["batch_size"], report["steps"], report["epochs"]) == (7, 2, 2, 20)
    assert report["recommendation"]["strategy"] == "none"
    assert not list(photos.parent.glob("calotype-bench-*"))
    for name, reason in (("downloads", "no image comes from a URL"), ("device_cache", "sampled anew each epoch")):
        _, said = calotype("bench", file, "--strategies", f"none,{name}", code=2)
        assert f"strategies: {name} has no effect with this config: " in said and reason in said


def test_the_json_is_the_one_that_the_docs_describe():
    page = (Path(__file__).parents[2] / "docs" / "caching.md").read_text()
    for kind in (BenchReport, BenchRow, Recommendation):
        for name in kind.__slots__:
            assert f"`{name}`" in page, name
    for strategy in STRATEGIES:
        assert f"`{strategy.name}`" in page and strategy.title in page


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(photos):
    made = config(photos, loader={"device": "cuda"})
    report = bench_config(made, strategies=["encodings_device"], steps=2)
    assert all(row.device_bytes for row in report.rows if row.refused is None)
