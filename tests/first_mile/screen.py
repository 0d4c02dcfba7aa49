"""What a person sees of a command's output, and what nobody should see."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from rich.cells import cell_len

NOISE = re.compile(
    r"Traceback|Warning\b|warnings\.warn|WARNING|it/s|s/it|Loading (?:pipeline|weights|checkpoint)|Fetching \d"
    r"|TensorFlow|oneDNN|HF_TOKEN|unauthenticated|TOKENIZERS_PARALLELISM|huggingface/tokenizers|resource_tracker|semaphore"
    r"|<class|object at 0x|PosixPath|dtype\(|np\.\w+\(|\bNone\b|\bnan\b|\[W\d|^[IWEF]\d{4} ",
    re.MULTILINE,
)
"""Of libraries and of Python: progress bars of tqdm, warnings, representations of objects, log lines."""


LONGEST = 700
"""Characters of a line: an error that names several ways out."""


@dataclass(slots=True)
class Screen:
    """What a terminal shows in the end, and what it showed before; its own line breaks aside."""

    lines: list[str]
    erased: list[str]
    """Lines that were written over, such as the states of a progress bar."""

    @classmethod
    def of(cls, output: str) -> Screen:
        screen, row, column = cls([""], []), 0, 0
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\r\n]|[^\x1b\r\n]+", output):
            if part == "\r":
                column = 0
            elif part == "\n":
                row, column = row + 1, 0
                screen.lines += [""] * (row == len(screen.lines))
            elif part.startswith("\x1b["):
                if part.endswith("A"):  # up
                    row = max(0, row - int(part[2:-1] or 1))
                elif part.endswith("K"):
                    screen.erased += [screen.lines[row].rstrip()] * bool(screen.lines[row].strip())
                    screen.lines[row] = ""
            elif not part.startswith("\x1b"):
                line = screen.lines[row].ljust(column)
                screen.lines[row] = line[:column] + part + line[column + len(part) :]
                column += len(part)
        screen.lines = [line.rstrip() for line in screen.lines]
        return screen


def is_table(line: str) -> bool:
    """Whether it has columns or a frame, which a terminal's own line breaks would tear apart."""
    return re.search(r"\S {2,}\S.* {2,}\S|[─│╭╰█]", line) is not None


def faults(output: str, columns: int | None) -> list[str]:
    """What is wrong with the looks of an output.

    Args:
        output: All that was written.
        columns: The terminal's width; None of a pipe, which shows no styles and no line twice.
    """
    screen = Screen.of(output)
    shown = screen.lines
    found = [f"noise: {line}" for line in shown if NOISE.search(line)]
    found += [f"said twice: {one}" for one, two in itertools.pairwise(shown) if one and one == two]
    found += [f"{len(line)} characters: {line}" for line in shown if len(line) > LONGEST]
    if columns is None:
        found += [
            f"control characters: {line!r}" for line in output.split("\n") if re.search(r"[\x00-\x08\x0b-\x1f]", line)
        ]
        return found
    found += [f"noise: {line}" for line in screen.erased if NOISE.search(line)]
    wide = [*screen.erased, *filter(is_table, shown)]
    found += [f"{cell_len(line)} of {columns} columns: {line}" for line in wide if cell_len(line) > columns]
    if output.count("\x1b[?25l") > output.count("\x1b[?25h"):
        found.append("the cursor stays hidden")
    return found
