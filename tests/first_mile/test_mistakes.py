"""Slips at the command line: what each is answered, how it ends, and that it is answered before torch is imported."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import mistake_table
import pytest
import typer

from calotype.cli import app
from tests.command import calotype

PROGRAM = [sys.executable, "-m", "calotype"]


def with_json(line):
    return f"{line} --json" if not line.startswith("studio") else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("mistakes")
    mistake_table.write_mistakes(made)
    return made


@pytest.fixture(scope="module")
def answers(folder):
    """What each line gives, and gives with --json: all of them in one process, which imports nothing heavy."""
    lines = [*mistake_table.AT_ONCE, *filter(None, map(with_json, mistake_table.AT_ONCE))]
    done = subprocess.run(
        [sys.executable, mistake_table.__file__], input=json.dumps(lines), capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("line", "said"), mistake_table.AT_ONCE.items(), ids=list(mistake_table.AT_ONCE))
def test_a_slip_is_answered_in_one_line_before_torch_is_imported(answers, line, said):
    answer = answers[line]
    assert said in answer["err"]
    assert (answer["status"], answer["out"], answer["err"].count("\n")) == (2, "", 1), answer
    assert answer["err"].startswith("calotype") and answer["heavy"] == []
    assert len(answer["err"]) <= 300


@pytest.mark.parametrize("line", [line for line in mistake_table.AT_ONCE if with_json(line)])
def test_with_json_a_failure_is_json(answers, line):
    answer = answers[with_json(line)]
    *_, last = answer["out"].splitlines()
    document = json.loads(last)
    assert answer["status"] == document["exit_status"] == 2
    assert document["kind"] in ("ConfigError", "MissingPathError", "UsageError")
    assert document["error"] in answer["err"]


@pytest.mark.parametrize(("line", "said"), mistake_table.DATA.items(), ids=list(mistake_table.DATA))
def test_a_problem_with_the_data_has_status_1_for_every_command(folder, monkeypatch, line, said):
    monkeypatch.chdir(folder)
    _, err = calotype(*line.split(), code=1)
    assert said in err and err.count("\n") == 1


def test_each_command_has_a_slip():
    named = {" ".join(line.split()[:2]) for line in mistake_table.AT_ONCE} | {
        line.split()[0] for line in mistake_table.AT_ONCE
    }
    paths = {f"{group} {name}".strip() for group, name in _paths(typer.main.get_command(app))}
    assert paths - named == {"demo", "models", "config schema"}  # which take nothing that may be misspelt


def _paths(group, above=""):
    for name, command in group.commands.items():
        yield from _paths(command, name) if hasattr(command, "commands") else [(above, name)]


def test_a_failure_that_nobody_foresaw_is_one_line_that_names_the_flag(monkeypatch):
    def fail(*_args, **_options):
        raise KeyError("a\nb\x1b[2J")

    monkeypatch.setattr("calotype.config.read_config", fail)
    out, err = calotype("info", "photos", "--json", code=1)
    assert err.startswith("calotype: unexpected KeyError: ") and err.count("\n") == 1 and "\x1b" not in err
    assert "--traceback shows where it was raised" in err and json.loads(out)["kind"] == "KeyError"


def test_an_error_of_the_system_names_the_file(monkeypatch):
    def fail(*_args, **_options):
        raise OSError(28, "No space left on device", "a/b")

    monkeypatch.setattr("calotype.config.read_config", fail)
    assert calotype("info", "photos", code=1)[1] == "calotype: a/b: No space left on device\n"


def test_the_traceback_comes_only_when_it_is_asked_for():
    done = subprocess.run([*PROGRAM, "info", "no/such/folder", "--traceback"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.splitlines()[-1] == "calotype: no/such/folder: there is no such file or folder"


@pytest.mark.parametrize("imported", ["calotype.errors", "typer", "calotype.cli.commands", "pydantic", "yaml"])
def test_an_early_interrupt_has_no_traceback(imported, folder):
    """The signal comes while the commands are imported, and while one imports what it needs."""
    line = [sys.executable, "-X", "importtime", "-m", "calotype", "config", "show", "photos"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        for text in process.stderr:
            if text.split("|")[-1].strip() == imported:
                process.send_signal(signal.SIGINT)
                break
        said = [text for text in process.stderr if not text.startswith("import time:")]
    assert process.returncode in (-signal.SIGINT, 130) and said in ([], ["Interrupted.\n"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has such a device")
def test_a_reader_that_has_enough_and_a_full_disk_are_quiet():
    closed, writes = os.pipe()
    os.close(closed)
    done = subprocess.run([*PROGRAM, "config", "schema"], stdout=writes, stderr=subprocess.PIPE)
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, b"")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*PROGRAM, "config", "schema"], stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"calotype: No space left on device\n")
