"""The Ray engine on a local cluster: the local engine's records, each once, whoever dies meanwhile."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import cloudpickle
import pytest
import ray
import torch
from encoding_helpers import make_folder, make_job
from PIL import Image
from ray_helpers import actors, two_cores

from calotype.encodings import ray as engine
from calotype.encodings.dataset_records import Variants
from calotype.encodings.encode import encode_job as encode_here
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.job import EncodeJob
from calotype.encodings.store import EncodingStore
from calotype.errors import CalotypeError, ConfigError, MissingDependencyError, StoreError

COMMAND = Path(sys.executable).parent / "calotype"
MANY = 32


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """The address of a cluster with two cores."""
    with two_cores() as address:
        yield address


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images and captions that all differ, in two shapes; and one file that is no image."""
    photos = [Image.open(path) for path in sorted(make_folder(tmp_path_factory.mktemp("few")).glob("*.png"))]
    folder = tmp_path_factory.mktemp("many")
    for number in range(MANY):
        photo = photos[number % len(photos)].rotate(number)
        (photo if number % 3 else photo.transpose(Image.Transpose.TRANSPOSE)).save(folder / f"{number:03d}.png")
        (folder / f"{number:03d}.txt").write_text(f"a photo, number {number}")
    (folder / "page.png").write_bytes(b"<!doctype html>")
    (folder / "page.txt").write_text("very long " * 100)
    return folder


@pytest.fixture(scope="module")
def local(folder, tmp_path_factory):
    """The job as the local engine did it, and its report."""
    job = make_job(folder, tmp_path_factory.mktemp("local") / "store", batch_size=1)
    return job, encode_here(job)


def records(store):
    """Every record by its key; none is there twice."""
    rows = store.rows()
    keys = [bytes(key) for key in store.keys(rows)]
    assert len(keys) == len(set(keys))
    return {key: (store.kind(int(row)), store.get(int(row))) for key, row in zip(keys, rows, strict=True)}


def assert_equal(store, expected):
    """Bit for bit."""
    found, expected = records(store), records(expected)
    assert found.keys() == expected.keys()
    for key, (kind, tensors) in expected.items():
        assert found[key][0] == kind
        assert all(torch.equal(found[key][1][name], tensor) for name, tensor in tensors.items()), kind


def at(what, act):
    """A `Track` that acts once: when something of `what` has been done."""
    acted = False

    @contextmanager
    def track(doing, *, unit="images"):
        def show(done, total):
            nonlocal acted
            if doing == what and not acted:
                acted = True
                act()

        yield show

    return track


def counts(report):
    return report.encoded, report.reused, report.bytes, report.failures, report.notes


def test_a_worker_that_is_killed_loses_and_doubles_nothing(folder, local, tmp_path, caplog):
    def kill():
        actors()[0].send_signal(signal.SIGKILL)

    job = make_job(folder, tmp_path / "store", batch_size=1)
    report = engine.encode(job, workers=2, chunk=6, track=at("encoding images", kill))
    assert "a worker died on" in caplog.text
    assert counts(report) == counts(local[1])
    assert report.encoded == 2 * MANY + 2 and [one.id for one in report.failures] == ["page.png"]
    assert {one.kind for one in report.notes} == {"caption_cut"}
    assert_equal(EncodingStore(tmp_path / "store"), local[0].store)
    # The same object knows what its workers wrote, and finds nothing to do.
    again = engine.encode(job)
    assert (again.encoded, again.reused, again.failed) == (0, report.encoded, 1)


def test_ctrl_c_stops_the_workers_and_keeps_what_was_written(folder, local, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    job = make_job(folder, tmp_path / "store", batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        engine.encode(job, workers=1, chunk=6, track=at("encoding captions", interrupt))
    deadline = time.monotonic() + 20
    while actors() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not actors()
    job = make_job(folder, tmp_path / "store", batch_size=1)
    report = encode_here(job)
    assert report.reused >= 6 and report.encoded + report.reused == local[1].encoded
    assert_equal(job.store, local[0].store)


class Deadly:
    """Kills whoever looks at a red image."""

    cache_key = "deadly"

    def __call__(self, image):
        if image[0].min() == 255 and image[1].max() == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return image


def test_a_picture_that_kills_every_worker_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("calotype.core.actor_pool._TRIES", 2)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers can't import a test
    folder = make_folder(tmp_path / "few")
    options = {"variants": Variants(image=1), "img_transform": [{}, Deadly()]}
    encode_here(make_job(folder, tmp_path / "store", **options))
    Image.new("RGB", (96, 72), "red").save(folder / "red.png")
    (folder / "red.txt").write_text((folder / "coffee.txt").read_text())
    job = make_job(folder, tmp_path / "store", **options)
    with pytest.raises(CalotypeError, match=r"2 workers died, one after the other, on red\.png; all that was done"):
        engine.encode(job, workers=1)


def test_an_error_of_a_worker_comes_as_it_was_raised(tmp_path):
    folder, store = make_folder(tmp_path / "few", names=("coffee.png",)), tmp_path / "store"

    def spoil():
        (store / "shards").rmdir()
        (store / "shards").write_bytes(b"")

    job = make_job(folder, store)
    with pytest.raises(StoreError, match="can't be written: File exists") as caught:
        engine.encode(job, workers=1, track=at("looking for what is encoded already", spoil))
    assert type(caught.value) is StoreError and "ray" not in str(caught.value)


def test_another_model_on_another_machine_is_refused(tmp_path):
    """What a worker does that finds other weights in the folder than the machine that began the run."""
    job = make_job(make_folder(tmp_path / "few", names=("coffee.png",)), tmp_path / "store")
    pool = engine._Pool(job, engine.PoolSize(1, 1, 0), None)
    other = engine._Actor()
    with pytest.raises(ConfigError, match="is not the one that is there on the machine that began"):
        other.open(ray.get(pool._pickled), 1, pool._fingerprints._replace(image="0" * 32))


def test_models_travel_without_what_they_loaded(tmp_path):
    job = make_job(make_folder(tmp_path / "few", names=("coffee.png",)), tmp_path / "store")
    job.models.encode_texts(["a"])
    assert isinstance(job.models, FrozenModels) and job.models._pipe is not None
    data = cloudpickle.dumps(job)
    assert len(data) < 100_000
    assert cloudpickle.loads(data).models.text_fingerprint == job.models.text_fingerprint


@pytest.mark.parametrize(
    ("device", "options", "message"),
    [
        ("cpu", {"workers": 3}, "workers: found 3, and the cluster has CPUs for 2"),
        ("cpu", {"workers": 0}, "workers: found 0"),
        ("cpu", {"chunk": 0}, "chunk: found 0"),
        ("cuda", {}, "the cluster has GPUs for 0; device 'cuda' needs some"),
    ],
)
def test_what_the_cluster_has_no_room_for(local, device, options, message):
    job, _ = local
    models = FrozenModels(job.models.folder, device=device)
    with pytest.raises(ConfigError, match=message):
        engine.encode(EncodeJob(dataset=job.dataset, models=models, store=job.store), **options)


def cli(*arguments):
    done = subprocess.run([COMMAND, "encode", *map(str, arguments)], capture_output=True, text=True, timeout=150)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_the_command_goes_to_the_cluster_at_an_address(local, cluster):
    job, _ = local
    arguments = (job.dataset.manifest.root, "resolution=64", "encodings.dtype=float32", "--model", job.models.folder)
    arguments = (*arguments, "--store", job.store.path, "--engine", "ray", "--json", "--address")
    done = cli(*arguments, cluster)
    report = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1 and report["encoded"] == 0 and report["reused"] == 2 * MANY + 2, done.stderr
    assert not re.search(r"(?i)\bray\b|pid=|\binfo\b|warning", done.stderr), done.stderr  # nothing of Ray's own
    done = cli(*arguments, "127.0.0.1:1")
    assert done.returncode == 2 and "no Ray cluster is reachable at 127.0.0.1:1" in done.stderr, done.stderr


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "calotype.core.actor_pool")
    monkeypatch.delitem(sys.modules, "calotype.encodings.ray")
    with pytest.raises(MissingDependencyError, match=r"'calotype\[ray\]'"):
        importlib.import_module("calotype.encodings.ray")
