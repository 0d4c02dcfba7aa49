"""The code in the docs works: run by `make check`, not by `make test`.

Of README.md and docs/*.md, as they stand:

* the ```python blocks of a page run in their order as one script, as a reader would paste them;
* a ```yaml block is built into a dataset (and a loader, if it has one). One without `dataset` is taken as options of
  a dataset over `photos/`. Where its first line is a comment with a file's name (`# photos.yaml`), the page's Python
  finds it under that name;
* a relative link leads to a file that is there, and its `#…` to a heading of that page.

They run in a folder of their own, which is also the home folder (`~`). It holds:

    photos/             real photos with captions in metadata.jsonl
    my_dataset/         the same photos; data.tsv has `path<TAB>caption` lines
    tokenizers/flux/    and sdxl, sd3: real tokenizers, named as in a saved pipeline (tokenizer, tokenizer_2, …)
    pipelines/          flux.1-dev and the other tiny pipelines of `tiny_pipelines`
    captioners/         smolvlm, tiny and untrained, of `tiny_captioners`

and the Hugging Face hub's local cache there holds the tokenizers of those models. There is no way to the hub itself.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import real_tokenizers
import skimage
import tiny_captioners
import tiny_pipelines
import yaml

from calotype.config.instantiate import COMPONENT, locate
from calotype.models import list_specs

ROOT = Path(__file__).parents[1]
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if page.is_file()]

CAPTIONS = {
    "astronaut.png": "a woman in an orange space suit, a flag behind her, smiling",
    "chelsea.png": "a ginger cat, close up, looking to the side",
    "coffee.png": "a cup of coffee on a wooden table, a spoon on the saucer",
    "motorcycle_left.png": "a motorcycle in a garage, tools on the wall",
    "rocket.jpg": "a rocket on its launch pad at night, lit from below",
    "hubble_deep_field.jpg": "hundreds of distant galaxies, black sky",
}
TOKENIZERS = {  # folder → family of models, function of real_tokenizers
    "flux": ("flux.1", "flux_tokenizers"),
    "sdxl": ("sdxl", "sdxl_tokenizers"),
    "sd3": ("sd3", "sd3_tokenizers"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    language: str
    line: int
    """Of the block's first line of code, counted from 1."""
    text: str


def blocks(page: Path, *languages: str) -> list[Block]:
    found = []
    fence, language, start, body = "", "", 0, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if not fence and (opening := re.match(r" *(```+|~~~+) *(\w*)", line)):
            fence, language, start, body = opening[1], opening[2].lower(), number + 1, []
        elif fence and line.strip() == fence:
            indent = min((len(text) - len(text.lstrip()) for text in body if text.strip()), default=0)
            found.append(Block(language=language, line=start, text="\n".join(text[indent:] for text in body)))
            fence = ""
        elif fence:
            body.append(line)
    assert not fence, f"{page.name}:{start - 1}: this block is never closed"
    return [block for block in found if block.language in languages]


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("docs")
    for name, listing in (("photos", "metadata.jsonl"), ("my_dataset", "data.tsv")):
        folder = home / name
        folder.mkdir()
        lines = []
        for photo, caption in CAPTIONS.items():
            shutil.copy(Path(skimage.__file__).parent / "data" / photo, folder)
            lines.append(f"{photo}\t{caption}" if listing.endswith("tsv") else json_line(photo, caption))
        (folder / listing).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (home / "pipelines").mkdir()
    for model in tiny_pipelines.NAMES:
        (home / "pipelines" / model).symlink_to(tiny_pipelines.tiny_pipeline(model))
    (home / "captioners").mkdir()
    captioner = tiny_captioners.smolvlm(tmp_path_factory.mktemp("captioners") / "smolvlm")
    (home / "captioners" / "smolvlm").symlink_to(captioner)
    hub = home / ".cache" / "huggingface" / "hub"
    for name, (family, function) in TOKENIZERS.items():
        tokenizers = getattr(real_tokenizers, function)()
        folders = [home / "tokenizers" / name]
        for model in list_specs():
            if model.family == family:
                repository = hub / f"models--{model.hub[0].replace('/', '--')}"
                (repository / "refs").mkdir(parents=True)
                (repository / "refs" / "main").write_text("0" * 40)
                folders.append(repository / "snapshots" / ("0" * 40))
        for folder in folders:
            folder.mkdir(parents=True)
            for place, tokenizer in zip(("tokenizer", "tokenizer_2", "tokenizer_3"), tokenizers, strict=False):
                (folder / place).symlink_to(tokenizer)
    return home


def json_line(photo: str, caption: str) -> str:
    return json.dumps({"file_name": photo, "text": caption})


BUILD = """
def _build(name):
    from calotype.config import KEYS, build_dataset, build_loader, load_config
    config = load_config(name)
    if not any(key in config for key in KEYS):
        config = {"dataset": config}
    config["dataset"] = {"path": "photos/"} | config.get("dataset", {})
    (build_loader if "loader" in config else build_dataset)(config)
"""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, home, tmp_path):
    python, configs = blocks(page, "python", "py"), blocks(page, "yaml", "yml")
    if not python and not configs:
        return
    there = tmp_path / "home"
    shutil.copytree(home, there, symlinks=True)
    script = [""] * (python[-1].line + python[-1].text.count("\n") if python else 0)
    for block in python:
        lines = block.text.split("\n")
        script[block.line - 1 : block.line - 1 + len(lines)] = lines
    builds = []
    for block in configs:
        named = re.match(r"# *([\w-]+\.ya?ml)\s*$", block.text.partition("\n")[0])
        name = named[1] if named else f"line-{block.line}.yaml"
        (there / name).write_text(block.text, encoding="utf-8")
        builds.append(f"    _build({name!r})  # {page.name}, line {block.line}")
    if builds:
        script += [BUILD, "if __name__ == '__main__':", *builds]
    (there / f"page_{page.stem}.py").write_text("\n".join(script) + "\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE_"))}
    environment |= {"HOME": str(there), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, f"page_{page.stem}.py"],
        cwd=there,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{page.name} (its line numbers are the script's):\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page):
    def components(value):
        if isinstance(value, dict):
            yield from ([value[COMPONENT]] if COMPONENT in value else [])
            value = list(value.values())
        for inner in value if isinstance(value, list) else []:
            yield from components(inner)

    for block in blocks(page, "yaml", "yml"):
        for path in components(yaml.safe_load(block.text)):
            locate(path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"^ *(```+|~~~+).*?^ *\1", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(<?([^)\s>]+)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: the link {link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}: {target.name} has no such heading"


def anchors(page: Path) -> set[str]:
    """GitHub's names of a page's headings: lower case, punctuation dropped, a dash for each space."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+?) *#*$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_pages_with_code():
    assert any(blocks(page, "python") for page in PAGES)
