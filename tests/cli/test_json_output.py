"""`--json` of every command is one line of strict JSON: no bare NaN or Infinity, whatever the numbers are."""

import ast
import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from skimage import data as skimage_data
from skimage.io import imsave

import calotype.cli
from calotype.cli import app
from calotype.terminal import emit
from tests.cli.test_flags import commands
from tests.command import calotype as run
from tests.store_helpers import key, put


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "coffee", "chelsea"):
        imsave(folder / f"{name}.png", getattr(skimage_data, name)()[:96, :96], check_contrast=False)
        (folder / f"{name}.txt").write_text(f"a photo of {name}")
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    from calotype.encodings.store import EncodingStore

    folder = tmp_path_factory.mktemp("stores") / "store"
    with EncodingStore(folder, create=True).writer() as writer:
        put(writer, [key(1)])
    return folder


LINES = {  # those that train, encode, caption or measure run in the tests of their packages: see OWN
    "info": "info {photos} resolution=64 loader.in_process=true --seconds 0",
    "check": "check {photos} resolution=64 --fresh",
    "preview": "preview {photos} resolution=64 -o {tmp}/p.html --batches 1 --draws 0",
    "models": "models",
    "keys": "config keys train",
    "show": "config show {photos} resolution=64 train.learning_rate=0.5",
    "convert": "convert {photos} {tmp}/out --to imagefolder",
    "init": "init {photos} --model flux.1-dev --trigger sks -o {tmp}/run.yaml",
    "ls": "cache ls {store}",
    "verify": "cache verify {store}",
    "prune": "cache prune {store} --dry-run",
    "export": "cache export {store} {tmp}/copy",
}
OWN = {
    "train": "tests/train/test_finite_steps.py",
    "distill": "tests/distill/test_distill_reports.py",
    "encode": "tests/encodings/test_encode_cli.py",
    "caption": "tests/captioning/test_caption_cli.py",
    "bench": "tests/bench/test_bench.py",
    "demo": "tests/test_examples.py",
}


@pytest.mark.parametrize("command", LINES)
def test_the_last_line_is_strict_json(command, photos, store, tmp_path):
    line = LINES[command].format(photos=photos, store=store, tmp=tmp_path)
    out, _ = run(*line.split(), "--json")
    assert json.loads(out.splitlines()[-1], parse_constant=refuse)


def test_a_number_that_json_has_no_word_for_is_null(capsys):
    @dataclass
    class Found:
        rate: float = math.inf

    emit({"loss": math.nan, "rows": [(1, -math.inf)], "deep": {"x": {"y": [Found().rate, 1.5]}}})
    assert json.loads(capsys.readouterr().out, parse_constant=refuse) == {
        "loss": None,
        "rows": [[1, None]],
        "deep": {"x": {"y": [None, 1.5]}},
    }


def test_every_command_with_json_is_run_and_prints_through_emit():
    verbs = commands(typer.main.get_command(app))
    assert {name for name, one in verbs.items() if "json" in {p.name for p in one.params}} == set(LINES) | set(OWN)
    for file in sorted(Path(calotype.cli.__file__).parent.glob("*.py")):
        functions = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)]
        functions = [one for one in functions if "json" in {a.arg for a in one.args.args}]
        nodes = [node for one in functions for node in ast.walk(one) if isinstance(node, ast.Call)]
        calls = {node.func.id for node in nodes if isinstance(node.func, ast.Name)}
        assert not functions or "emit" in calls, file.name
        assert "print" not in calls, file.name
