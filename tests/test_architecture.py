"""docs/architecture.md describes the packages as they are: what it names exists, and it names every package."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "calotype"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TEXT = re.sub(r"^```.*?^```", "", PAGE, flags=re.DOTALL | re.MULTILINE)
PATH = re.compile(r"`((?:[\w-]+/)*[\w-]+(?:\.py|\.md|\.toml|/))`")


def sections():
    """Every section's heading with its text."""
    return re.findall(r"^#+ (.*?)\n(.*?)(?=^#+ |\Z)", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_every_path_in_the_page_exists():
    missing = []
    for heading, text in sections():
        packages = [PACKAGE / name for name in re.findall(r"`(\w+)/`", heading)]
        folders = (*packages, PACKAGE, ROOT)
        missing += [
            f"{heading}: {path}"
            for path in PATH.findall(text)
            if not any((folder / path).exists() for folder in folders)
        ]
    assert missing == []


def test_the_stops_from_a_config_lead_to_the_loss_by_functions_of_the_named_files():
    (text,) = (text for heading, text in sections() if heading == "How a config becomes a loss")
    stops = [[cell.strip() for cell in line.split("|")[1:-1]] for line in re.findall(r"^\| \d+ .*$", text, re.M)]
    assert [int(number) for number, _, _ in stops] == list(range(1, len(stops) + 1))
    calls = []
    for _, where, what in stops:
        file = PATH.findall(where)[0]
        calls += [(file, name) for name in re.findall(r"`(?:\w+\.)?(\w+)`", what.partition(":")[0])]
    assert [
        f"{file}: {name}" for file, name in calls if f"def {name}(" not in (PACKAGE / file).read_text("utf-8")
    ] == []
    assert calls[-1] == ("models/flow.py", "loss")


def test_every_package_has_a_section():
    headings = {name for heading, _ in sections() for name in re.findall(r"`(\w+)/`", heading)}
    packages = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert headings - {"calotype"} == packages


def test_the_table_of_layers_is_the_one_that_is_verified():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (one["layers"] for one in contracts if one.get("containers") == ["calotype"])
    (table,) = re.findall(r"^\| layer, .*?\n\| ---.*?\n(.*?)\n\n", TEXT, flags=re.DOTALL | re.MULTILINE)
    rows = [set(re.findall(r"`(\w+)(?:/|\.py)`", line.split("|")[1])) for line in table.splitlines()]
    assert rows == [set(layer.split(" | ")) for layer in layers]


def test_every_link_leads_somewhere():
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", PAGE):
        page = ROOT / "docs" / (target or "architecture.md")
        assert page.exists(), target
        if anchor:
            slugs = [
                re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-")
                for h in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
            ]
            assert anchor in slugs, f"{target}#{anchor}"
