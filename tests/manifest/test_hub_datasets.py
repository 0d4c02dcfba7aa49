"""Hugging Face datasets: saved to disk, and by name (a local folder stands for the hub, which no test reaches)."""

import http.server
import json
import os
import subprocess
import sys
import threading

import datasets
import pytest
from command import calotype

from calotype.errors import ManifestError, MissingDependencyError
from calotype.manifest import load_manifest


@pytest.fixture
def saved(put, jpeg):
    """A dataset of 5 images with bytes inside, in two splits; built from files, as its authors would."""
    for number in range(5):
        put(f"source/{number}.jpg", jpeg(number))
    features = datasets.Features(
        {"image": datasets.Image(), "text": datasets.Value("string"), "n": datasets.Value("int8")}
    )

    def rows(numbers):
        for number in numbers:
            yield {"image": {"bytes": jpeg(number), "path": f"{number}.jpg"}, "text": f"caption {number}", "n": number}

    def make(numbers, split):
        cache = str(put.root / "hf-cache")
        return datasets.Dataset.from_generator(
            rows, features=features, gen_kwargs={"numbers": numbers}, split=split, cache_dir=cache
        )

    return datasets.DatasetDict({"train": make([0, 1, 2, 3], "train"), "test": make([4], "test")})


@pytest.mark.parametrize("shards", [1, 2])
def test_saved_to_disk_reads_out_of_its_own_files(put, saved, read, jpeg, shards, cache):
    folder = put.root / "saved"
    saved.save_to_disk(str(folder), num_shards={"train": shards, "test": 1})
    manifest = load_manifest(folder)
    assert [(row.id, row.captions, row.extra) for row in manifest] == [
        (f"train#{n}", (f"caption {n}",), {"n": n}) for n in range(4)
    ]
    assert [read(row.image) for row in manifest] == [jpeg(n) for n in range(4)]
    assert all(row.image.path.startswith(str(folder / "train")) for row in manifest)
    assert not (cache / "images").exists()
    assert "split 'train' was read; test not" in manifest.describe()["notes"]
    test = load_manifest(folder, split="test")
    assert [(row.id, read(row.image)) for row in test] == [("test#0", jpeg(4))]
    with pytest.raises(ManifestError, match="no split 'dev'; it has 'train', 'test'"):
        load_manifest(folder, split="dev")


def test_a_selection_saved_to_disk_keeps_its_order(put, saved, read, jpeg):
    """`select` leaves an index beside the data: rows must follow it."""
    chosen = saved["train"].select([3, 0, 2])
    chosen.save_to_disk(str(put.root / "chosen"))
    manifest = load_manifest(put.root / "chosen")
    assert [(row.captions, read(row.image)) for row in manifest] == [((f"caption {n}",), jpeg(n)) for n in (3, 0, 2)]


def local_hub(monkeypatch, name, put_instead):
    """Makes `load_dataset(name, …)` load a local folder, which the hub has: what a test replaces."""
    real = datasets.load_dataset

    def load(asked, *args, **options):
        assert asked == name
        return real(str(put_instead), *args, **options)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr("calotype.manifest.readers.hub.look_up_dataset", lambda name: True)


def test_by_name(put, saved, read, jpeg, monkeypatch):
    for split in saved:
        saved[split].to_parquet(str(put.root / "repo" / "data" / f"{split}-00000-of-00001.parquet"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", put.root / "hf-cache")
    local_hub(monkeypatch, "owner/photos", put.root / "repo")
    for manifest in (load_manifest("owner/photos"), load_manifest(source="owner/photos", split="train")):
        assert [(row.id, row.captions) for row in manifest] == [
            (f"owner/photos/train#{n}", (f"caption {n}",)) for n in range(4)
        ]
        assert [read(row.image) for row in manifest] == [jpeg(n) for n in range(4)]
    part = load_manifest("owner/photos", split="train[1:3]")
    assert [(row.captions, read(row.image)) for row in part] == [((f"caption {n}",), jpeg(n)) for n in (1, 2)]
    files = load_manifest("owner/photos", data_files="data/test-*.parquet", split="train")
    assert [row.captions for row in files] == [("caption 4",)]


def test_by_name_with_paths_and_an_image_dir(put, monkeypatch):
    put("repo/rows.jsonl", '{"file": "a.jpg", "prompt": ["x", "y"]}\n')
    put("pictures/a.jpg")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", put.root / "hf-cache")
    local_hub(monkeypatch, "owner/rows", put.root / "repo")
    mapping = {"image": "file", "caption": "prompt"}
    (row,) = load_manifest(source="owner/rows", image_dir=put.root / "pictures", column_map=mapping, split="train")
    assert (row.id, row.captions, row.image.path) == ("a.jpg", ("x", "y"), str(put.root / "pictures" / "a.jpg"))


def test_a_hub_that_cannot_be_reached_names_what_to_do(tmp_path):
    """In a process of its own, since the hub's address is read at import: a server that knows no dataset."""

    class Nothing(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "from calotype.manifest import load_manifest\n"
        "from calotype.errors import ManifestError\n"
        "try:\n    load_manifest('owner/photos')\n"
        "except ManifestError as error:\n    print(error)\n"
    )
    address = f"http://127.0.0.1:{server.server_port}"
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    server.shutdown()
    server.server_close()
    assert "'owner/photos' is no file or folder here" in done.stdout, done.stderr
    assert all(word in done.stdout for word in ("network", "save_to_disk", "hf auth login"))


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A hub that refuses connections, and an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_name_that_is_nothing_is_answered_at_once_without_a_connection(offline, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", None)  # its retries take 25 s
    for name in ("photos/typo", "typo"):
        out, err = calotype("check", name, "--json", code=2)
        assert err.count("\n") == 2 and f"{name}: there is no such file or folder; and the" in err
        assert json.loads(out)["kind"] == "MissingPathError"


def test_a_dataset_in_the_cache_needs_no_connection(put, saved, offline, jpeg, read):
    """As a first load left it: the builder of a local folder, under the dataset's name."""
    saved["train"].to_parquet(str(put.root / "data" / "train.parquet"))
    made = datasets.load_dataset(str(put.root / "data"), cache_dir=str(offline / "datasets" / "made"))
    (built,) = {file.parent for file in (offline / "datasets" / "made").rglob("*.arrow")}
    place = offline / "datasets" / "owner___my_photos" / "default" / "0.0.0"
    place.mkdir(parents=True)
    (place / built.name).symlink_to(built)
    for file in built.iterdir():
        if file.suffix == ".arrow":
            file.rename(file.with_name("my_photos-train.arrow"))
    manifest = load_manifest("owner/MyPhotos")
    assert [row.captions for row in manifest] == [(caption,) for caption in made["train"]["text"]]
    assert not datasets.config.HF_HUB_OFFLINE


def test_without_the_package_the_extra_is_named(put, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"calotype\[hub\]"):
        load_manifest("owner/photos")


def test_a_remote_data_file_must_be_copied():
    with pytest.raises(ManifestError, match="copy it here first"):
        load_manifest("s3://bucket/rows.parquet")


@pytest.mark.parametrize("path", ["./photos", "/no/photos", "photos.csv", "set/photos"])
def test_what_can_only_be_a_path_never_asks_the_hub(put, path, monkeypatch):
    put("x", "")
    monkeypatch.chdir(put.root.parent)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ManifestError, match="there is no such file or folder"):
        load_manifest(path)
