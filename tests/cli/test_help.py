"""The help of every command: grouped, with examples that parse, within 80 columns; the version and completion."""

import os
import shlex
import subprocess
import sys

import pytest
import typer

from calotype import __version__
from calotype.cli import app
from calotype.cli.examples import EXAMPLES
from tests.command import calotype

PROGRAM = [sys.executable, "-m", "calotype"]


@pytest.mark.parametrize("path", EXAMPLES)
def test_the_help_of_a_command_fits_and_ends_with_examples(path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out, _ = calotype(*path.split(), "--help")
    assert max(map(len, out.splitlines())) <= 80
    assert "<bool>" not in out and "list[" not in out
    before, _, examples = out.partition("\nExamples:\n")
    assert before.startswith(f"Usage: calotype {path}".rstrip())
    assert examples.splitlines() == [f"  {example}" for example in EXAMPLES[path]]


@pytest.mark.parametrize("example", sorted({one for examples in EXAMPLES.values() for one in examples}))
def test_an_example_is_taken(example):
    words = shlex.split(example.partition(">")[0], comments=True)
    assert words.pop(0) == "calotype"
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)


def test_each_command_has_examples():
    def paths(group, above=""):
        for name, command in group.commands.items():
            yield f"{above}{name}"
            if hasattr(command, "commands"):
                yield from paths(command, f"{above}{name} ")

    assert {"", *paths(typer.main.get_command(app))} == set(EXAMPLES)


def test_commands_are_grouped_in_the_order_of_the_work():
    out, _ = calotype("--help")
    assert calotype()[0] == out
    found = [line.strip().split()[0] for line in out.partition("Begin:")[2].splitlines() if line.strip()]
    work = ["init", "demo", "models", "Look", "info", "check", "preview", "studio", "Prepare", "caption", "convert"]
    work += ["encode", "Train:", "train", "bench", "distill", "Look", "config", "cache", "Examples:"]
    assert found[: len(work)] == work
    assert "keys" in calotype("config")[0]


def test_the_version_wherever_the_flag_stands():
    assert calotype("--version")[0] == calotype("train", "photos", "--version")[0] == f"calotype {__version__}\n"


def test_python_m_and_completion():
    env = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # the shell is named, not detected
    done = subprocess.run([*PROGRAM, "--show-completion", "bash"], capture_output=True, text=True, env=env)
    assert done.returncode == 0 and "_CALOTYPE_COMPLETE=complete_bash" in done.stdout
    assert completed("pre") == ["preview"]


def completed(line):
    """What the shell offers for the last word of a line."""
    words = {
        "COMP_WORDS": f"calotype {line}",
        "COMP_CWORD": str(len(line.split())),
        "_CALOTYPE_COMPLETE": "complete_bash",
    }
    done = subprocess.run(PROGRAM, capture_output=True, text=True, env=os.environ | words)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("train c.yaml ba", ["background=", "batch_size="]),
        ("info photos dataset.img_transform.ho", ["dataset.img_transform.horizontal_flip="]),
        ("check photos resolution=512 model", ["model="]),
        ("train c.yaml seed", []),  # of the dataset or of the loader: not without its section
        ("preview photos --model flux.1", ["flux.1-dev", "flux.1-schnell"]),
    ],
)
def test_the_shell_completes_keys_and_models(line, offered):
    assert completed(line) == offered


def test_models_are_listed(monkeypatch):
    import json

    rows = json.loads(calotype("models", "--json")[0])
    by_name = {row["name"]: row for row in rows}
    assert {"name", "family", "tokens", "encoded", "trained", "references"} <= set(rows[0])
    flux, qwen = by_name["flux.1-dev"], by_name["qwen-image"]
    assert (flux["family"], flux["tokens"], flux["encoded"], flux["trained"]) == ("flux.1", True, True, True)
    assert (qwen["tokens"], qwen["encoded"], qwen["trained"]) == (False, True, False)
    lines = calotype("models")[0].splitlines()
    assert len(lines) == len(rows) + 1 and max(map(len, lines)) <= 80


def test_keys_are_listed():
    import json

    keys = {row["key"]: row for row in json.loads(calotype("config", "keys", "train", "--json")[0])}
    assert keys["train.learning_rate"]["default"] == 1e-4 and keys["train.learning_rate"]["meaning"]
    out, _ = calotype("config", "keys", "loader")
    assert out.startswith("loader.batch_size = 1\n    Samples of a batch, on each rank. (a whole number, 1 or more)\n")
    assert max(map(len, out.splitlines())) <= 80
    assert "`calotype config keys train` lists" in calotype("config", "keys")[0]


def test_verbose_leaves_the_libraries_as_they_are(monkeypatch):
    quieted = []
    monkeypatch.setattr("calotype.cli.commands.quiet_libraries", lambda: quieted.append(1))
    calotype("models"), calotype("models", "--verbose"), calotype("--verbose", "models")
    assert quieted == [1]
