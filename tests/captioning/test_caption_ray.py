"""Captioning on a local Ray cluster: each caption asked for once, whoever dies meanwhile."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import cloudpickle
import pytest
from caption_server import completion, serving
from PIL import Image
from ray_helpers import actors, two_cores

from calotype import captioning
from calotype.captioning import ray_engine as engine
from calotype.captioning.ledger import CaptionLedger
from calotype.editing import open_captions
from calotype.errors import CaptionError, ConfigError
from calotype.images import ImageReader


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with two_cores():
        yield


@pytest.fixture
def folder(tmp_path, skimage_data):
    """Real photos that all differ, and one file that is no image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    with Image.open(skimage_data / "coffee.png") as photo:
        for number in range(16):
            photo.crop((number, number, number + 120, number + 90)).save(folder / f"{number:02d}.png")
    (folder / "bad.png").write_bytes(b"<!doctype html>")
    (tmp_path / "ask.txt").write_text("see {stem}")
    return folder


def test_a_worker_that_is_killed_loses_nothing_and_nothing_is_asked_twice(folder, monkeypatch):
    monkeypatch.setattr(engine, "chunk_size", lambda items, workers, unit: 4)
    monkeypatch.setattr(engine, "pool_size", lambda device, workers: engine.PoolSize(2, 1, 0))
    killed = threading.Event()

    def respond(asked):
        if len(server.asked) == 6 and not killed.is_set():
            killed.set()
            os.kill(actors()[0].pid, signal.SIGKILL)
        time.sleep(0.05)
        return completion(asked.prompt)

    config = {"dataset": {"path": str(folder)}}
    options = {"presets": [folder.parent / "ask.txt"], "engine": "ray", "concurrency": 1}
    with serving(respond) as server:
        report = captioning.run(config, url=server.url, **options)
        assert killed.is_set() and (report.written, report.failed) == (16, 1)
        prompts = [asked.prompt for asked in server.asked]
        # The one that the dead worker was waiting for, and perhaps one whose answer it had yet to write down.
        assert len(prompts) - len(set(prompts)) <= 2
        again = captioning.run(config, url=server.url, presets=options["presets"], mode="replace")
        assert (again.asked, again.reused) == (0, 16)
    assert {id: state.captions for id, state in open_captions(folder).read().items() if id != "bad.png"} == {
        f"{number:02d}.png": (f"see {number:02d}",) for number in range(16)
    }
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert len(lines) == 16
    assert [file.name for file in (folder / ".calotype/captions").iterdir()] == ["ledger.jsonl"]
    assert len(CaptionLedger(folder)) == 16


def test_an_error_of_a_worker_comes_as_it_was_raised(folder):
    with serving() as server:
        url = server.url
    config = {"dataset": {"path": str(folder)}}
    with pytest.raises(CaptionError, match=r"worker on .*"):
        captioning.run(config, url=url, model="m", retries=0, presets=[Path(folder.parent / "ask.txt")], engine="ray")


def test_another_model_on_another_machine_is_refused(folder):
    """What a worker does that finds another model at the address than the machine that began the run."""
    options = {"backend": "http", "reader": ImageReader(), "root": folder, "pixels": 100, "retry_failed": False}
    with serving(models=("a",)) as one, serving(models=("b",)) as other:
        orders = [
            cloudpickle.dumps(engine._ActorOptions(options={"url": there.url}, **options)) for there in (one, other)
        ]
        expected = engine._Actor().open(orders[0], None)
        assert engine._Actor().open(orders[0], expected) == expected
        with pytest.raises(
            ConfigError, match=r"the model is b with .* machine a with .* all machines need the same model"
        ):
            engine._Actor().open(orders[1], expected)
