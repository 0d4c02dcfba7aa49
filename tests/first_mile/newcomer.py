"""A newcomer: the commands of README, from a folder of photos to a trained LoRA, in a terminal and through a pipe.

What the commands say is tested where they are. Here: it is there, nothing else is, it fits, and what it advises works.
Run by `make check`, not by `make test`.
"""

import os
import re
import sys

import pytest
import tiny_pipelines
from advice import in_output
from command_server import Server
from PIL import Image
from screen import Screen, faults
from test_advised_commands import failures
from wheel_environment import ROOT

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate", "calotype.cli")
WIDTHS = [80, 120, None]
QUICK = ("max_steps=2", "resolution=64", "sample_steps=2")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "COLUMNS", "NO_COLOR"))}
    home = tmp_path_factory.mktemp("newcomer")
    return kept | {
        "HOME": str(home),
        "CALOTYPE_CACHE": str(home / "cache"),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture(scope="module")
def server(environment):
    server = Server(sys.executable, *LIBRARIES, environment=environment)
    yield server
    server.close()


@pytest.fixture(scope="module", params=WIDTHS, ids=lambda columns: f"{columns} columns" if columns else "pipe")
def newcomer(request, server, tmp_path_factory, skimage_data):
    """Runs a command in a folder with `photos`, checks how its output looks, and returns its lines."""
    home = tmp_path_factory.mktemp("home")
    (home / "photos").mkdir()
    for name in ("astronaut", "chelsea", "coffee"):
        image = Image.open(skimage_data / f"{name}.png").convert("RGB").resize((800, 600))
        image.save(home / "photos" / f"{name}.jpg")
        (home / "photos" / f"{name}.txt").write_text(f"a photo of zzz, {name}")

    def run(*command, status=0):
        reply = server.calotype(*command, folder=home, columns=request.param)
        assert reply.status == status, reply.text
        assert faults(reply.text, request.param) == []
        shown = Screen.of(reply.text).lines
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(home)
            assert failures(in_output("\n".join(shown), f"calotype {command[0]}")) == []
        return shown

    run.home, run.columns = home, request.param
    return run


def commands_of_readme():
    """Those that need neither the hub nor a server, by name, as they stand there."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^calotype ((\w+)[^#\n]*)", page, re.MULTILINE)
    return {name: text.split() for text, name in found if name in ("init", "info", "check", "preview", "convert")}


def test_readme_begins_with_these():
    assert list(commands_of_readme()) == ["init", "info", "check", "preview", "convert"]


def test_the_commands_of_readme(newcomer):
    for name, command in commands_of_readme().items():
        quick = ("loader.in_process=true",) if name in ("info", "preview") else ()
        assert newcomer(*command, *quick)
    assert (newcomer.home / "photos.yaml").exists() and (newcomer.home / "shards").is_dir()
    assert (newcomer.home / "preview.html").stat().st_size > 10_000


def test_what_init_writes_is_checked_shown_and_trained_as_it_stands(newcomer):
    pipeline = tiny_pipelines.tiny_pipeline("flux.1-dev")
    said = newcomer("init", "photos", "--model", pipeline, "--trigger", "zzz", "--output", "mine.yaml")
    assert "mine.yaml" in " ".join(said)
    advised = [advised.text.split()[1:] for advised in in_output("\n".join(said), "init")]
    assert ["train", "mine.yaml"] in advised
    for command in advised:
        assert command[-1] == "mine.yaml"
        if command[0] == "train" and newcomer.columns == 120:
            return  # one terminal is enough for what takes longest
        newcomer(*command, *(QUICK if command[0] == "train" else ()))
    assert (newcomer.home / "mine-lora" / "pytorch_lora_weights.safetensors").exists()
