"""`calotype encode` as people run it: a folder or config in, a line or JSON out; killed, interrupted, run again."""

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import calotype
from encoding_helpers import NAMES, make_folder
from PIL import Image
from tiny_pipelines import tiny_pipeline

from calotype import encodings
from calotype.encodings.store import EncodingStore
from calotype.errors import StoreError

COMMAND = Path(sys.executable).parent / "calotype"
MANY = 200


def start(*arguments, **options):
    return subprocess.Popen(
        [COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def finish(process, code=0):
    out, err = process.communicate(timeout=150)
    assert process.returncode == code, f"{process.returncode}\n{out}\n{err}"
    assert "Traceback" not in err
    return out, err


def encode(*arguments, code=0):
    """The report of a run in this process; those that are stopped have one of their own."""
    out, _ = calotype("encode", *arguments, "--json", code=code)
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline("flux.1-dev")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Images that differ, and take a while all together: long enough to be caught in the middle."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(MANY):
        Image.new("RGB", (96, 72), (number, 100, 200)).save(folder / f"{number:03d}.png")
        (folder / f"{number:03d}.txt").write_text("blue")
    return folder


@pytest.fixture(scope="module")
def store(folder, pipeline, tmp_path_factory):
    """A store that holds the folder's encodings, and the report of the run that made it."""
    store = tmp_path_factory.mktemp("data") / "store"
    return store, encode(folder, "resolution=64", "--model", pipeline, "--store", store)


def test_the_report_and_a_second_run(store, folder, pipeline):
    path, report = store
    records = 2 * len(NAMES) + 1
    assert {key: report[key] for key in ("encoded", "reused", "failed")} == {
        "encoded": records,
        "reused": 0,
        "failed": 0,
    }
    again = encode(folder, "resolution=64", "--model", pipeline, "--store", path)
    assert again["encoded"] == 0 and again["reused"] == records and again["bytes"] == 0
    out, _ = calotype("cache", "ls", "--store", path, "--json")
    listed = json.loads(out.splitlines()[-1])
    assert listed["records"] == records + 1 and listed["bytes"] >= report["bytes"]  # and the scaling


def test_each_wait_is_named_the_first_one_too(folder, pipeline, tmp_path):
    shown = []

    @contextmanager
    def track(what, *, unit="images"):
        shown.append(what)
        yield lambda done, total: None

    made = {"model": str(pipeline), "dataset": {"path": str(folder), "resolution": 64}}
    encodings.run(made | {"encodings": {"store": str(tmp_path / "store")}}, device="cpu", track=track)
    assert shown[0] == "loading PyTorch, the data and the model's configuration"
    assert shown[-2:] == ["encoding captions", "encoding images"]


def test_what_is_complete_and_unchanged_is_known_without_torch(folder, pipeline, tmp_path):
    arguments = [folder, "resolution=64", "--model", pipeline, "--store", tmp_path / "store"]
    first = encode(*arguments)
    code = (
        "import sys\nfrom calotype.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    print([m for m in ('torch', 'pyarrow', 'numpy') if m in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "encode", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == "[]", done.stderr
    again = json.loads(done.stdout.splitlines()[-1])
    assert (again["encoded"], again["reused"]) == (0, first["encoded"])
    for shard in (tmp_path / "store" / "shards").iterdir():  # a store that lost something is looked through again
        shard.unlink()
    assert encode(*arguments)["encoded"] == first["encoded"]


def test_a_sentence_for_people(folder, pipeline, store):
    out, _ = calotype("encode", folder, "resolution=64", "--model", pipeline, "--store", store[0])
    assert out == f"Nothing to encode: all 9 records are in {store[0]}\n"


def test_a_dry_run_does_nothing(folder, pipeline, tmp_path, store):
    none = tmp_path / "none"
    out, _ = calotype("encode", folder, "resolution=64", "--model", pipeline, "--store", none, "--dry-run", "--json")
    expected = json.loads(out.splitlines()[-1])
    assert (expected["pictures"], expected["texts"], expected["reused"]) == (len(NAMES), len(NAMES) + 1, 0)
    assert expected["bytes"] > 0 and expected["seconds"] > 0 and expected["store"] == str(none)
    assert not none.exists()
    out, _ = calotype("encode", folder, "resolution=64", "--model", pipeline, "--store", store[0], "--dry-run")
    assert "0 images and 0 texts; 9 records are there" in out


def test_a_config_is_trained_on_as_it_is_encoded(folder, pipeline, tmp_path):
    config = tmp_path / "photos.yaml"
    config.write_text(
        f"dataset: {{path: {folder}, resolution: 64, caption_transform: {{drop: 0.1}}, include: [id]}}\n"
        f"model: {pipeline}\n"
        f"loader: {{batch_size: 2, seed: 3}}\n"
        f"encodings: {{store: {tmp_path / 'store'}, dtype: float32}}\n"
    )
    assert encode(config)["encoded"] == 2 * len(NAMES) + 1
    code = (
        "import sys, calotype\n"
        "loader = calotype.build_loader(calotype.load_config(sys.argv[1]))\n"
        "batches = list(loader)\n"
        "seen = sorted(id for batch in batches for id in batch['id'])\n"
        "assert seen == sorted(loader.dataset.manifest.ids.to_pylist())\n"
        "assert batches[0]['latents'].shape == (2, 16, 6, 10), batches[0]['latents'].shape\n"
        "assert not {'diffusers', 'transformers'} & set(sys.modules), 'the models were loaded'\n"
    )
    done = subprocess.run([sys.executable, "-c", code, config], capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr


def test_one_bad_picture_is_status_1_and_named(folder, pipeline, tmp_path):
    bad = make_folder(tmp_path / "bad")
    (bad / "coffee.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    report = encode(bad, "resolution=64", "--model", pipeline, "--store", tmp_path / "store", code=1)
    assert report["failed"] == 1 and report["failures"][0]["id"] == "coffee.png"
    assert report["encoded"] == 2 * len(NAMES)


def pictures(store):
    """Images that are in a store by now."""
    try:
        opened = EncodingStore(store)
    except StoreError:
        return 0
    return len(opened.rows("picture"))


def interrupted(many, pipeline, store, how):
    """Starts a run and sends it a signal when it has done some; gives what it had done."""
    process = start("encode", many, "resolution=64", "--model", pipeline, "--store", store, "--batch-size", "2")
    deadline = time.monotonic() + 120
    while pictures(store) < 4:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    process.send_signal(how)
    return process


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_stopped_is_gone_on_with(many, pipeline, tmp_path, how):
    store = tmp_path / "store"
    process = interrupted(many, pipeline, store, how)
    _, err = finish(process, -how if how == signal.SIGKILL else 128 + how)
    assert how == signal.SIGKILL or "run the same command again" in err
    kept = len(EncodingStore(store).rows("picture"))
    assert 4 <= kept < MANY
    report = encode(many, "resolution=64", "--model", pipeline, "--store", store)
    assert report["reused"] == kept + 2 and report["encoded"] == MANY - kept
    opened = EncodingStore(store)
    rows = opened.rows("picture")
    assert len(rows) == len({bytes(key) for key in opened.keys(rows)}) == MANY
    assert calotype("cache", "verify", store)[0].endswith("every byte is as it was written\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["FOLDER"], "nothing says for which model"),
        (["FOLDER", "--model", "flux.1-dve"], "did you mean 'flux.1-dev'"),
        (["FOLDER", "--model", "PIPELINE", "encodings.dtpye=float32"], "did you mean 'dtype'"),
        (["FOLDER", "--model", "PIPELINE", "encodings.dtype=int8"], "expected one of bfloat16, float16, float32"),
        (
            ["FOLDER", "--model", "PIPELINE", "img_transform.random_crop=true", "resolution=64"],
            "encodings.image_variants",
        ),
        (["no/such/folder", "--model", "PIPELINE"], "no such file or folder"),
    ],
)
def test_wrong_use_is_status_2(folder, pipeline, tmp_path, arguments, message):
    named = {"FOLDER": folder, "PIPELINE": pipeline}
    arguments = [named.get(word, word) for word in arguments]
    _, err = calotype("encode", *arguments, "--store", tmp_path / "store", code=2, HF_HUB_OFFLINE="1")
    assert message in err


def test_a_pipeline_folder_is_a_model_for_other_commands_too(folder, pipeline):
    out, _ = calotype("info", folder, "resolution=64", "--model", pipeline, "--seconds", "0", "--json")
    assert {"t5_text_tokens", "clip_text_tokens"} <= {
        entry["key"] for entry in json.loads(out.splitlines()[-1])["batch"]
    }


def test_what_no_dataset_needs_is_pruned(folder, pipeline, tmp_path):
    store = tmp_path / "store"
    encode(folder, "resolution=64", "--model", pipeline, "--store", store)
    other = make_folder(tmp_path / "other", names=("motorcycle_left.png", "coffee.png"))
    config = tmp_path / "other.yaml"
    config.write_text(f"dataset: {{path: {other}, resolution: 64}}\nmodel: {pipeline}\n")
    assert encode(config, "--store", store)["encoded"] == 2  # one image, one text: the coffee is there
    out, _ = calotype("cache", "prune", store, "--for", config, "--dry-run", "--json")
    assert json.loads(out.splitlines()[-1])["records"] == 6
    calotype("cache", "prune", store, "--for", config)
    again = encode(config, "--store", store)
    assert (again["encoded"], again["reused"]) == (0, 5)
    assert encode(folder, "resolution=64", "--model", pipeline, "--store", store)["encoded"] == 6
