"""Count lines of code by package, and words that the project avoids: `python tools/count.py [--before FOLDER]`.

`--before` is another checkout (`git worktree add FOLDER COMMIT`), which each number is compared with.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]

WORDS = (
    "picture", "told", "tell", "tells", "asked", "asks", "handed", "hands", "drawn", "dice", "kept", "remembered",
    "remembers", "house", "room", "face", "twin", "neighbour", "crew", "scribe", "hired", "knock", "bury",
    "buried", "spoil", "dear", "mend", "by and by", "whoever", "elsewhere", "for nothing", "held against", "goes on",
    "go on", "as ever", "a perhaps", "by the way", "stands", "lies", "noised",
)  # fmt: skip
"""Words for which the field has a term: image, pass, call, return, sample, cache, worker, resume, …"""


def code_lines(code: str) -> int:
    """Return the lines that hold code: none of comments, docstrings or blanks alone."""
    ignored = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type not in ignored:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def by_package(root: Path) -> Counter[str]:
    """Return the lines of code of each package of `calotype`, and of its top."""
    package = root / "calotype"
    counts: Counter[str] = Counter()
    for file in package.rglob("*.py"):
        inside = file.relative_to(package).parts
        counts[f"{inside[0]}/" if len(inside) > 1 else "(top)"] += code_lines(file.read_text(encoding="utf-8"))
    return counts


def avoided(root: Path) -> Counter[str]:
    """Return how often each avoided word stands in code, page scripts, docs, examples, benchmarks and tests.

    Parts of names count (`picture_size`, `encodePicture`), and plurals.
    """
    files = [root / "README.md", root / "Makefile"]
    for folder, kinds in (
        ("calotype", "py js html yaml"),
        ("docs", "md"),
        ("examples", "py"),
        ("benchmarks", "py md"),
        ("tests", "py"),
    ):
        files += [file for kind in kinds.split() for file in (root / folder).rglob(f"*.{kind}")]
    counts: Counter[str] = Counter()
    for file in files:
        text = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", file.read_text(encoding="utf-8")).lower()
        for word in WORDS:
            counts[word] += len(re.findall(rf"(?<!hugging )\b{word}s?\b", text))
    return counts


def table(title: str, after: Counter[str], before: Counter[str] | None) -> None:
    """Print a table in Markdown."""
    rows = sorted({*after, *(before or ())}, key=lambda row: (-max(after[row], (before or after)[row]), row))
    width = max(len(row) for row in (*rows, title))
    heads = ["before", "after"] if before is not None else ["lines" if title == "package" else "times"]
    print(f"| {title:{width}} | {' | '.join(f'{head:>7}' for head in heads)} |")
    print(f"|{'-' * (width + 2)}|{'|'.join('-' * 8 + ':' for _ in heads)}|")
    for row in (*rows, "total"):
        values = [counts.total() if row == "total" else counts[row] for counts in (before, after) if counts is not None]
        print(f"| {row:{width}} | {' | '.join(f'{value:7,}' for value in values)} |")
    print()


def main() -> None:
    """Parse the arguments and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout to compare with")
    before = parser.parse_args().before
    table("package", by_package(ROOT), None if before is None else by_package(before))
    table("word", avoided(ROOT), None if before is None else avoided(before))


if __name__ == "__main__":
    main()
