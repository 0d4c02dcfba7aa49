"""The sequence itself: rows, slices, pickles, mapping, threads, and a million rows."""

import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calotype.errors import ManifestError
from calotype.manifest import Manifest, load_manifest
from calotype.types import ImageRef, Row


def table(rows, long=False):
    return pa.table(
        {
            "image": [f"deep/folder/{n:06d}.jpg" for n in range(rows)],
            "caption": [[f"caption {n}" + " and more" * (20 * long)] * (1 + n % 2) for n in range(rows)],
            "width": [None if n % 10 == 0 else 100 + n % 900 for n in range(rows)],
            "height": [None if n % 10 == 0 else 50 for n in range(rows)],
            "artist": [f"artist {n % 3}" for n in range(rows)],
        }
    )


@pytest.fixture
def small(tmp_path):
    pq.write_table(table(50), tmp_path / "small.parquet")
    return load_manifest(tmp_path / "small.parquet")


@pytest.fixture
def big(tmp_path):
    pq.write_table(table(40_000, long=True), tmp_path / "big.parquet", row_group_size=7_000)
    return load_manifest(tmp_path / "big.parquet")


def expected(root, n):
    name = f"deep/folder/{n:06d}.jpg"
    return Row(
        id=name,
        image=ImageRef(name=name, path=f"{root}/{name}"),
        captions=(f"caption {n}",) * (1 + n % 2),
        width=None if n % 10 == 0 else 100 + n % 900,
        height=None if n % 10 == 0 else 50,
        extra={"artist": f"artist {n % 3}"},
    )


def test_it_is_a_sequence(small):
    root = small.root
    assert len(small) == 50
    assert list(small) == [expected(root, n) for n in range(50)]
    assert small[-1] == expected(root, 49) and small[np.int64(3)] == expected(root, 3)
    assert [row.id for row in small[10:2:-4]] == [expected(root, n).id for n in (10, 6)]
    for wrong in (50, -51):
        with pytest.raises(IndexError, match="of a manifest of 50 rows"):
            small[wrong]


def test_select(small):
    chosen = small.select(np.array([7, 0, -1, 7]))
    assert isinstance(chosen, Manifest)
    assert list(chosen) == [expected(small.root, n) for n in (7, 0, 49, 7)]
    assert len(small.select([])) == 0
    assert small.select([]).describe()["rows"] == 0
    with pytest.raises(IndexError):
        small.select([50])


def test_sizes_weights_and_ids(small):
    sizes = small.sizes()
    assert sizes.shape == (50, 2) and sizes.dtype == np.int32
    assert sizes[:3].tolist() == [[0, 0], [50, 101], [50, 102]]
    assert small.weights().dtype == np.float64 and small.weights().tolist() == [1.0] * 50
    assert small.ids.to_pylist()[:2] == ["deep/folder/000000.jpg", "deep/folder/000001.jpg"]


def test_describe(small):
    facts = small.describe()
    expected = {"rows": 50, "captions": 75, "several_captions": 25, "without_caption": 0, "sizes_known": 45}
    assert {name: facts[name] for name in expected} == expected
    assert (facts["format"], facts["root"], facts["left_out"]) == ("parquet", str(small.root), {})
    assert facts["shown_per_epoch"] == 50.0


def test_a_small_one_travels_as_its_bytes_and_a_big_one_as_a_path(small, big, cache):
    assert list(pickle.loads(pickle.dumps(small))) == list(small)
    data = pickle.dumps(big)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert again[39_999] == big[39_999] == load_manifest(big.root / "big.parquet")[39_999]
    assert again.describe() == big.describe()
    assert len(list((cache / "manifests").iterdir())) == 1, "equal content is one file"
    part = pickle.loads(pickle.dumps(big.select(range(39_990, 40_000))))
    assert part[9] == big[39_999]


def test_rows_of_a_big_one_are_right_at_every_seam(big):
    for n in [0, 1, 6_999, 7_000, 13_999, 14_000, 39_999]:
        row = big[n]
        assert (row.id, row.width, len(row.captions)) == (
            f"deep/folder/{n:06d}.jpg", None if n % 10 == 0 else 100 + n % 900, 1 + n % 2
        )  # fmt: skip
        assert row.captions[0].startswith(f"caption {n} and more")


def test_a_pickle_whose_file_is_gone_is_an_error(big, cache):
    data = pickle.dumps(big)
    for file in (cache / "manifests").iterdir():
        file.unlink()
    with pytest.raises(ManifestError, match="load the manifest again"):
        pickle.loads(data)
    assert big[5].id == "deep/folder/000005.jpg", "who has it open keeps it"


def test_threads_read_at_once(big):
    order = np.random.default_rng(0).permutation(4_000)
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda n: big[int(n)].id, order))
    assert ids == [f"deep/folder/{n:06d}.jpg" for n in order]


def test_a_new_process_reads_it_and_torch_stays_out(big):
    code = (
        "import pickle, sys; manifest = pickle.load(sys.stdin.buffer); print(manifest[7].id);"
        "assert 'torch' not in sys.modules and 'datasets' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(big), capture_output=True)
    assert done.stdout.decode().strip() == "deep/folder/000007.jpg", done.stderr.decode()


def test_the_cache_is_in_the_home_folder_by_default(tmp_path):
    pq.write_table(table(40_000, long=True), tmp_path / "big.parquet")
    environment = {name: value for name, value in os.environ.items() if name != "CALOTYPE_CACHE"}
    code = f"from calotype.manifest import load_manifest; load_manifest({str(tmp_path / 'big.parquet')!r})"
    subprocess.run([sys.executable, "-c", code], env={**environment, "HOME": str(tmp_path)}, check=True)
    assert len(list((tmp_path / ".cache" / "calotype" / "manifests").glob("*.arrow"))) == 1


def test_no_temporary_files_stay(big, cache):
    assert not list(cache.rglob(".writing-*"))


def test_a_million_rows_open_in_bounds():
    """The benchmark's own figures of memory; those of time are for a machine that does nothing else."""
    script = Path(__file__).parents[2] / "benchmarks" / "manifest.py"
    command = [sys.executable, str(script), "--rows", "1000000", "--images", "1001", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    of_files = [figures for figures in json.loads(done.stdout.splitlines()[-1]) if figures["file"] != "folder"]
    assert [figures["file"] for figures in of_files] == ["parquet", "jsonl", "csv", "tsv"]
    for figures in of_files:
        assert figures["rows"] == 1_000_000
        assert figures["peak_mb"] < 600, figures
        assert figures["pickle_bytes"] < 1000
