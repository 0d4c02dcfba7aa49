"""`calotype distill` as people run it: a YAML, a line of JSON, Ctrl-C; and two ranks under torchrun."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from distill_helpers import config, make_crops

from calotype import distill
from calotype.cli import main
from calotype.config import load_config
from calotype.train import view

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def written(captioner, tmp_path_factory):
    """A config's file; its run has eight images to learn from and four held out."""
    folder = tmp_path_factory.mktemp("cli")
    crops = make_crops(folder / "crops", each=2)
    options = {"batch_size": 4, "gradient_accumulation_steps": 1, "max_steps": 3}
    made = config(crops, captioner, folder / "one", validation=0.3, **options)
    (folder / "distill.yaml").write_text(yaml.safe_dump(made))
    return folder / "distill.yaml"


@pytest.fixture(scope="module")
def one(written):
    """The run's report and what it printed."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setattr(sys, "argv", ["calotype", "distill", str(written), "--json"])
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    lines = out.getvalue().splitlines()
    return json.loads(lines[-1]), lines[:-1]


def test_a_yaml_becomes_a_student_and_a_line_of_json(written, one):
    report, lines = one
    assert report == json.loads((written.parent / "one" / "report.json").read_text())
    first = lines.index("Loading PyTorch and the student's configuration …")
    student = report["options"]["student"]
    assert lines[0] == f"Training {student} on the dataset's captions" and lines[first - 1].startswith("  result    ")
    assert re.fullmatch(r"  prompts   \d+ to learn from, \d+ held out for scores", lines[first + 1])
    assert lines[first + 2].startswith("before: BLEU ") and lines[-1].startswith("after:  BLEU ")
    steps = [line.split("  ")[0] for line in lines[first + 3 : -1]]  # plain lines come every ten seconds
    assert steps[:3] == ["Loading the student …", "Training from step 1 of 3 …", "step 1/3"] and steps[-1] == "step 3/3"
    assert (Path(report["result"]) / "model.safetensors").is_file()


def test_a_run_on_a_terminal_has_the_bar_of_a_training(written, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(view.TrainView, "step_done", lambda self, step, most: shown.append((step, most)))
    options = ["max_steps=2", "validation=0", f"output_dir={written.parent / 'bar'}"]
    monkeypatch.setattr(sys, "argv", ["calotype", "distill", str(written), *options])
    with pytest.raises(SystemExit):
        main()
    assert shown == [(0, 2), (1, 2), (2, 2)]


def test_two_ranks_compute_what_one_does_with_a_batch_twice_as_large(written, one):
    output = written.parent / "two"
    ranks = [BIN / "torchrun", "--nproc-per-node", "2", "--standalone", "--no-python", BIN / "calotype"]
    done = subprocess.run(
        [*ranks, "distill", written, "batch_size=2", f"output_dir={output}", "--json"],
        capture_output=True,
        text=True,
        timeout=150,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    two = json.loads(line)
    assert dict(two["losses"]) == pytest.approx(dict(one[0]["losses"]), rel=1e-4)
    assert two["held_out"] == one[0]["held_out"] and two["examples"] == one[0]["examples"]
    for name in ("before", "after"):
        assert two[name]["bleu"] == pytest.approx(one[0][name]["bleu"], abs=1e-3)
        assert two[name]["loss"] == pytest.approx(one[0][name]["loss"], rel=1e-3)


def test_ctrl_c_says_how_to_go_on(written, monkeypatch, capsys):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(distill, "run", interrupt)
    monkeypatch.setattr(sys, "argv", ["calotype", "distill", str(written)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    said = capsys.readouterr().err
    assert f"Interrupted before a checkpoint was saved. To begin anew: calotype distill {written}\n" in said


def test_a_bare_option_is_one_of_distilling_where_the_config_does_that_alone(written):
    made = load_config(written, ["max_steps=7", "validation=0.2"])
    assert made["distill"]["max_steps"] == 7 and made["dataset"]["validation"] == 0.2
    both = load_config(written, ["train.max_steps=5", "max_steps=7"])
    assert both["train"]["max_steps"] == 7 and both["distill"]["max_steps"] == 3
