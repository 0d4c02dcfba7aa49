"""Every command that README, docs or a message advises is one that the command line takes, keys and values included."""

import re
import subprocess

import pytest
from advice import Advised, in_code, in_output, in_page
from wheel_environment import ROOT

from calotype import config
from calotype.models import get_spec

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

CONFIG = """
model: flux.1-dev
dataset: {path: photos, resolution: 512}
encodings: {store: encodings}
loader: {batch_size: 1}
train: {max_steps: 10}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory, photos):
    folder = tmp_path_factory.mktemp("advised")
    (folder / "photos").symlink_to(photos)
    (folder / "photos.yaml").write_text(CONFIG)
    (folder / "distill.yaml").write_text("dataset: {path: photos}\ndistill: {student: owner/name, teacher: dataset}\n")
    return folder


def verify(advised: Advised) -> None:
    """In a folder with `photos`, `photos.yaml` and `distill.yaml`."""
    parameters = advised.parse()
    model, command = parameters.get("model"), parameters["command"]
    if model and command in ("init", "info", "check", "preview", "studio", "encode", "train", "bench"):
        get_spec(model)
    overrides = [one for one in parameters.get("overrides") or () if "VALUE" not in one]
    if overrides:
        is_config = str(parameters["source"]).endswith((".yaml", ".yml")) or command == "train"
        source = f"{'distill' if command == 'distill' else 'photos'}.yaml" if is_config else "photos"
        config.read_config(source, [*([f"model={model}"] if model else []), *overrides])


def failures(commands):
    found = []
    for advised in commands:
        try:
            verify(advised)
        except Exception as error:
            found.append(f"{advised.where}: {advised.text}: {error}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_of_a_page(page, home, monkeypatch):
    monkeypatch.chdir(home)
    assert failures(in_page(page.read_text(encoding="utf-8"), page.name)) == []


def test_of_the_messages(home, monkeypatch):
    monkeypatch.chdir(home)
    commands = [advised for file in sorted((ROOT / "calotype").rglob("*.py")) for advised in in_code(file)]
    assert len(commands) > 20
    assert failures(commands) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run `calotype trian photos.yaml`", "no command 'trian'"),
        ("Train it: calotype train photos.yaml --steps 3", "No such option"),
        ("Look: calotype check photos.yaml batchsize=3", "batchsize"),
        ("calotype encode photos.yaml --batch-size=1.5", "1.5"),
    ],
)
def test_a_slip_is_found(home, monkeypatch, text, message):
    monkeypatch.chdir(home)
    (found,) = failures(in_output(text, "here"))
    assert message in found


def test_every_target_of_make_exists_and_setup_says_how_to_run_calotype():
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    named = {name for page in PAGES for name in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)}
    assert {"setup", "dist", "demo"} <= named <= set(targets)
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "setup"], cwd=ROOT, capture_output=True, text=True
    )
    assert "source .venv/bin/activate" in done.stdout.splitlines()[-1]
