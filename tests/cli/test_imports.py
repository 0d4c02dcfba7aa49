"""What the command imports: torch and pandas only where they are needed, and pyarrow knows pandas once it is there."""

import json
import os
import signal
import subprocess
import sys

import pytest

HEAVY = ("datasets", "diffusers", "pandas", "scipy", "skimage", "sympy", "torch", "torchvision", "transformers")
COMMANDS = f"""
import json, sys
from calotype.cli import main
from calotype.cli.imports import import_faster

import_faster()
for line in json.loads(sys.argv[1]):
    sys.argv = ["calotype", *line]
    try:
        main()
    except SystemExit as ended:
        assert ended.code in (0, 1), line
    print("loaded:", *(name for name in {HEAVY} if name in sys.modules))
"""
PANDAS = """
import gc, sys
from calotype.cli.imports import import_faster

import_faster()
import pyarrow as pa, pyarrow.compute as pc

assert pc.fill_null(pa.array([1, None]), 0).to_numpy().sum() == pa.chunked_array([[1]]).to_numpy().sum() == 1
assert pa.array([[1], None]).to_pylist() == [[1], None] and "pandas" not in sys.modules and gc.isenabled()

import pandas as pd

assert pa.array(pd.Series([1.0, float("nan")])).null_count == 1
assert pa.types.is_dictionary(pa.array(pd.Categorical(["a", "b", "a"])).type)
frame = pd.DataFrame({"kind": pd.Categorical(["a", "b"]), "at": pd.to_datetime([1, 2], utc=True), "name": ["x", None]})
table = pa.Table.from_pandas(frame)
assert table["at"].type == pa.timestamp("ns", "UTC") and table["name"].null_count == 1
pd.testing.assert_frame_equal(table.to_pandas(), frame)
assert isinstance(table["at"][0].as_py(), pd.Timestamp)

import datasets

assert datasets.load_dataset("csv", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])[:] == {
    "file_name": ["a.jpg", "b.jpg"], "score": [1.5, None]
}
"""


def python(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(*lines):
    """The heavy libraries that are loaded after each of these commands, which one process runs one after another."""
    out = python(COMMANDS, json.dumps([list(map(str, line)) for line in lines]))
    return [line.split()[1:] for line in out.splitlines() if line.startswith("loaded:")]


def test_each_command_imports_what_it_needs(tmp_path, photos):
    config = tmp_path / "config.yaml"
    assert loaded(
        ["init", photos, "--model", "flux.1-dev", "--trigger", "ohwx", "-o", config],
        ["config", "show", config],
        ["models"],
        ["info", photos, "resolution=64", "--seconds", "0"],
        ["check", photos, "resolution=64", "--fresh"],
        ["preview", photos, "resolution=64", "-o", tmp_path / "page.html"],
    ) == [[], [], [], ["torch"], ["torch"], ["torch"]]


def test_pyarrow_works_with_pandas_that_is_imported_later(tmp_path):
    (tmp_path / "scores.csv").write_text("file_name,score\na.jpg,1.5\nb.jpg,\n")
    python(PANDAS, tmp_path / "scores.csv", tmp_path / "cache")


def test_times_in_nanoseconds_are_read(tmp_path, photos):
    pytest.importorskip("pandas")
    written = f"""
import pyarrow as pa, pyarrow.parquet
when = pa.array([1_700_000_000_000_000_001], pa.timestamp("ns"))
table = pa.table({{"file_name": ["{photos}/00.jpg"], "text": ["a"], "when": when}})
pa.parquet.write_table(table, "{tmp_path}/x.parquet")
"""
    python(written)
    line = ["info", tmp_path / "x.parquet", "resolution=64", "include=[when]", "--seconds", "0"]
    assert loaded(line) == [["pandas", "torch"]]


ENDING = """
import atexit, signal, sys, time
from calotype import cli
from calotype.cli import commands

class NeverFreed:
    def __del__(self):
        print("freed")

class Interrupted:
    def __del__(self):
        raise KeyboardInterrupt

def run(arguments):
    global kept
    kept = NeverFreed()
    Interrupted()
    atexit.register(print, "exit handlers run")
    print("x" * 100_000)
    if arguments == ["wait"]:
        atexit.register(lambda: (print("waiting", flush=True), time.sleep(60)))
    return 1

commands.run = run
cli.run_process()
"""


def test_the_process_ends_at_once_with_its_status_and_all_of_its_output():
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "x" * 100_000 + "\nexit handlers run\n"


def test_ctrl_c_ends_exit_handlers_of_libraries_without_a_traceback():
    line = [sys.executable, "-c", ENDING, "wait"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.stdout.readline() != "waiting\n":
            pass
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (-signal.SIGINT, "")
