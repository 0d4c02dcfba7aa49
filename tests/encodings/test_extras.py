"""What the extra `diffusers` installs is enough for PixArt-Σ, whose tokenizer is kept as `spiece.model` alone."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import real_tokenizers
from encoding_helpers import copied_pipeline

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

CODE = """
import importlib.util, json, sys

hidden = set(json.loads(sys.argv[1]))

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.partition(".")[0] in hidden else find(name, *rest)

from calotype.encodings.frozen import FrozenModels
(cuts,) = FrozenModels(sys.argv[2]).cut_texts(["very " * 400])
print(cuts[0].tokenizer, cuts[0].limit)
"""


def installed_by(*extras):
    """The distributions that `pip install calotype[…]` brings, by name: what they require in turn included."""
    wanted = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    found = set()
    while wanted:
        requirement = wanted.pop()
        name = re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")
        if name in found or "extra ==" in requirement:
            continue
        found.add(name)
        try:
            wanted += metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another platform
    return found


def test_pixart_sigma_s_tokenizer_needs_nothing_besides_the_extra(tmp_path):
    folder = copied_pipeline(tmp_path / "pixart", "pixart-sigma")
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    t5 = real_tokenizers.tokenizer("t5")
    for name in ("spiece.model", "special_tokens_map.json", "tokenizer_config.json"):  # as on the hub
        shutil.copy(t5 / name, folder / "tokenizer")
    there = installed_by("diffusers")
    modules = metadata.packages_distributions()
    hidden = [m for m, names in modules.items() if not {n.lower().replace("_", "-") for n in names} & there]
    assert {"pytest", "accelerate"} <= set(hidden) and not {"sentencepiece", "transformers"} & set(hidden)
    hidden = [module for module in hidden if module != "calotype"]
    command = [sys.executable, "-c", CODE, json.dumps(hidden), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.stdout.split() == ["tokenizer", "300"], done.stderr


@pytest.mark.parametrize("extra", ["train", "bench"])
def test_extras_that_train_have_it_too(extra):
    assert any(one.startswith("calotype[") and "diffusers" in one for one in PROJECT["optional-dependencies"][extra])
