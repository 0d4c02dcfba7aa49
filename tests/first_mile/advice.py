"""Commands that a text advises: each `calotype …` of a page, a message, or a command's output."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from calotype.cli import app

_COMMANDS: Any = typer.main.get_command(app)
_VALUE = "VALUE"
"""Stands for what an f-string inserts."""


@dataclass(frozen=True, slots=True)
class Advised:
    """One command, as it stands in the text."""

    text: str
    where: str
    whole: bool = True
    """False for a mention by name only: `calotype check` takes a dataset, which the text leaves out."""

    def parse(self) -> dict[str, Any]:
        """The parameters that the command line's own parser makes of it; the command does not run.

        Raises:
            Exception: There is no such command or option, or an argument is missing or wrong.
        """
        name, command, arguments = _resolve(self.text)
        is_group = hasattr(command, "commands")
        if is_group or "--help" in arguments or not (self.whole or arguments):
            return {"command": name}
        context = command.make_context(name, arguments)
        return {"command": name, **context.params}


def in_page(page: str, name: str) -> Iterator[Advised]:
    """The commands in a page's blocks of shell code, and those between backticks."""
    shell = False
    for number, line in enumerate(page.splitlines(), start=1):
        fence = re.match(r" *(?:```+|~~~+) *(\w*)", line)
        if fence:
            shell = fence[1] in ("sh", "bash", "console")
        elif shell and (command := re.search(r"^[^#]*?(?<![^\s/])(calotype [^|>&;#]+)", line)):
            yield Advised(command[1].strip(), f"{name}:{number}")
    text = re.sub(r"^ *(```+|~~~+).*?^ *\1", "", page, flags=re.MULTILINE | re.DOTALL)
    for command in re.findall(r"`(calotype [^`]+)`", text):
        yield Advised(" ".join(command.split()), name, whole=False)


def in_output(text: str, where: str) -> Iterator[Advised]:
    """The commands in what a command prints, or may print: in backticks, else as far as words look like arguments."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    for command in re.findall(r"`(calotype [a-z][^`]+)`", plain):
        yield Advised(" ".join(command.split()), where, whole=False)
    for line in re.sub(r"`[^`]*`", "", plain).splitlines():
        for command in re.findall(r"(?<![\w/.-])calotype ([a-z]+(?: .*)?)", line):
            words = [word.rstrip(".,;:)?'\"") for word in command.partition(" #")[0].split()]
            if words[0] in _COMMANDS.commands:  # else prose: "calotype needs …"
                yield Advised(" ".join(["calotype", *_leading_arguments(words)]), where, whole=False)


def in_code(file: Path) -> Iterator[Advised]:
    """The commands in the strings of a module, docstrings aside."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inner |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in inner:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else _VALUE for part in node.values]
            text = "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = re.sub(r"\{\w+\}", _VALUE, node.value)  # of a template
        else:
            continue
        where = f"{file.relative_to(file.parents[1])}:{node.lineno}"
        if file.name == "examples.py" and text.startswith("calotype "):  # nothing but a command, for --help
            yield Advised(text.partition(" #")[0], where)
        else:
            yield from in_output(text, where)


def _leading_arguments(words: list[str]) -> list[str]:
    """The words of a command, as far as they look like its arguments: after it, a sentence may go on."""
    command, end = _COMMANDS, 0
    while end < len(words) and words[end] in getattr(command, "commands", ()):
        command, end = command.commands[words[end]], end + 1
    takes_value = {name for option in command.params if not getattr(option, "is_flag", True) for name in option.opts}
    while end < len(words):
        word = words[end]
        if word.startswith("-"):
            end += 1 + (word in takes_value)
        elif "=" in word or _VALUE in word or re.search(r"\w[./]\w", word):
            end += 1
        else:
            break
    return words[:end]


def _resolve(text: str) -> tuple[str, Any, list[str]]:
    """The command of `calotype A B --c`, and its arguments: brackets around what is optional left out, and `…` too."""
    text = re.sub(r" ?key=value …|\]…|[][]|[|>].*", " ", text).replace("…", _VALUE)
    words = shlex.split(text)[1:]
    command, names = _COMMANDS, []
    while commands := getattr(command, "commands", None):
        if not words or words[0].startswith("-"):
            break
        assert words[0] in commands, f"there is no command {words[0]!r}"
        names.append(words.pop(0))
        command = commands[names[-1]]
    return " ".join(names), command, words
