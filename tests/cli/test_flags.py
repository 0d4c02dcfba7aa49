"""Flags that have no effect are refused before anything is read; every flag is in the table, or always has one."""

import pytest
import typer

from calotype.cli import app
from calotype.cli.flags import FLAGS
from tests.command import calotype

IDLE = [
    ("train x --changed-dataset", "--changed-dataset: has no effect without --resume"),
    ("encode x --address a:1", "--address: has no effect without --engine ray"),
    ("encode x --engine ray --threads 2", "--threads: has no effect with --engine ray"),
    ("encode x --dry-run --threads 2", "--threads: has no effect with --dry-run"),
    ("encode x --dry-run --batch-size 2", "--batch-size: has no effect with --dry-run"),
    ("encode x --dry-run --engine ray", "--engine: has no effect with --dry-run"),
    ("encode x --dry-run --engine ray --address a:1", "--engine: has no effect with --dry-run"),
    ("caption x --address a:1", "--address: has no effect without --engine ray"),
    ("caption x --force", "--force: has no effect without --mode replace"),
    ("caption x --dry-run 1 --sidecars", "--sidecars: has no effect with --dry-run"),
    ("caption x --dry-run 1 --engine ray", "--engine: has no effect with --dry-run"),
    ("caption x --dry-run 1 --trigger sks", "--trigger: has no effect with --dry-run"),
    ("convert x y --to csv --shard-size 1MB", "--shard-size: has no effect without --to parquet, webdataset, hf"),
    ("convert x y --to csv --verify --dry-run", "--dry-run: has no effect with --verify"),
    ("convert x y --to csv --verify --skip", "--skip: has no effect with --verify"),
    ("convert x y --to csv --verify --lossy", "--lossy: has no effect with --verify"),
    ("convert x y --to csv --dry-run --skip", "--skip: has no effect with --dry-run"),
    ("cache prune x --model sdxl", "--model: has no effect without --for"),
]

ALWAYS = {  # beside the arguments, --json and the model's, which all commands use that have them
    "info": "seconds encoded",
    "caption": "backend url preset n mode class_word retry_failed seed temperature max_tokens option dry_run",
    "check": "deep ranks fix_list fresh",
    "preview": "output batches seed epoch draws autoencoder encoded",
    "ls": "store_option",
    "verify": "store_option drop",
    "prune": "store_option keep needed_by dry_run",
    "export": "keys kind unpacked",
    "convert": "to images bake_trigger template verify",
    "encode": "store device dry_run",
    "init": "trigger output force",
    "studio": "port open_browser",
    "train": "resume",
    "distill": "resume retry_failed",
    "bench": "strategies steps",
    "demo": "pipeline",
}
SHARED = {"source", "overrides", "json", "model", "tokenizers", "help"}


def commands(group, found=None):
    found = {} if found is None else found
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            commands(command, found)
        else:
            found[name] = command
    return found


@pytest.mark.parametrize(("line", "message"), IDLE, ids=[line for line, _ in IDLE])
def test_a_flag_without_an_effect_is_refused(line, message):
    _, said = calotype(*line.split(), code=2)
    assert said.startswith(f"calotype: {message}") and said.rstrip().endswith("leave it out")


def test_each_flag_is_in_one_of_the_tables():
    for name, command in commands(typer.main.get_command(app)).items():
        options = {one.name for one in command.params if one.param_type_name == "option"} - SHARED
        ruled = {flag for rule in FLAGS.get(name, ()) for flag in rule.names.split()} - SHARED
        always = set(ALWAYS.get(name, "").split())
        assert options == ruled | always, name


def test_each_rule_has_a_case():
    for name, rules in FLAGS.items():
        flags = {f for line, _ in IDLE if name in line.split()[:2] for f in line.split() if f.startswith("--")}
        for rule in rules:
            for flag in rule.names.split():
                assert f"--{flag.replace('_', '-')}" in flags, (name, flag)
