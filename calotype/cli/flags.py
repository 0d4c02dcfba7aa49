"""What all commands share as commands: flags without an effect are refused, and `--help` ends with examples."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from calotype.cli.examples import EXAMPLES

__all__ = ["FLAGS", "Command", "Commands", "Flags", "check_flags"]

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Flags:
    """Flags of a command that have no effect under a condition."""

    names: str
    """Their parameters, separated by spaces."""
    idle: Callable[[Values], bool]
    """Whether they have none, given the values of all parameters."""
    why: str
    """What follows "has no effect"."""


def _off(name: str) -> Callable[[Values], bool]:
    return lambda values: not values[name]


def _on(name: str) -> Callable[[Values], bool]:
    return lambda values: bool(values[name])


def _not(name: str, *wanted: str) -> Callable[[Values], bool]:
    return lambda values: _word(values[name]) not in wanted


def _is(name: str, word: str) -> Callable[[Values], bool]:
    return lambda values: _word(values[name]) == word


def _word(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


_SHARDED: Final = ("parquet", "webdataset", "hf")

FLAGS: Final[Mapping[str, Sequence[Flags]]] = {
    "train": (Flags("changed_dataset", _off("resume"), "without --resume"),),
    "encode": (
        Flags("address", _not("engine", "ray"), "without --engine ray"),
        Flags("threads", _is("engine", "ray"), "with --engine ray: each worker uses the cores of its machine"),
        Flags("batch_size threads engine address", _on("dry_run"), "with --dry-run, which encodes nothing"),
    ),
    "caption": (
        Flags("address", _not("engine", "ray"), "without --engine ray"),
        Flags("force", _not("mode", "replace"), "without --mode replace: no caption is replaced"),
        Flags(
            "sidecars engine address trigger",
            lambda values: values["dry_run"] is not None,
            "with --dry-run, which writes nothing and captions in this process",
        ),
    ),
    "convert": (
        Flags("shard_size", _not("to", *_SHARDED), f"without --to {', '.join(_SHARDED)}: no other form has shards"),
        Flags("dry_run", _on("verify"), "with --verify, which writes nothing"),
        Flags("lossy skip", _on("verify"), "with --verify, which writes nothing"),
        Flags("skip", _on("dry_run"), "with --dry-run, which writes nothing"),
    ),
    "prune": (Flags("model", _off("needed_by"), "without --for, whose folders and data files it is for"),),
}
"""By the command's name."""


def check_flags(context: typer.Context) -> None:
    """Refuse flags that were given and have no effect.

    Raises:
        ConfigError: Names the first.
    """
    from calotype.errors import ConfigError

    flags = {param.name: max(param.opts, key=len) for param in context.command.params if param.name is not None}
    for rule in FLAGS.get(context.info_name or "", ()):
        for name in rule.names.split():
            source = context.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE" and rule.idle(context.params):
                raise ConfigError(f"{flags[name]}: has no effect {rule.why}; leave it out")


_WHOLE: Final = 200
"""Characters of a command's description in a list, which end with its first sentence anyway."""
_TYPE: Final = re.compile(r" *<[^<>]*>$")
_LIST: Final = re.compile(r"<list\[(.*)\]>")


def _write_examples(context: Any, formatter: Any) -> None:
    """Write the examples of a command behind the rest of its help, unwrapped."""
    path = context.command_path.partition(" ")[2]
    with formatter.section("Examples"):
        for example in EXAMPLES.get(path, ()):
            formatter.write(f"  {example}\n")


class Command(TyperCommand):
    """A command that checks its flags before it runs, and has examples."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            ConfigError: A flag has no effect.
        """
        check_flags(ctx)
        return super().invoke(ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage line without braces around what is required, which only some versions of typer write."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and the flags; a type stands where it says something."""
        rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is None:
                continue
            names, text = record
            is_argument = param.param_type_name == "argument"
            names = _TYPE.sub("", names) if is_argument else _LIST.sub(r"<\1>", names)
            rows["Arguments" if is_argument else "Options"].append((names, text))
        for title, found in rows.items():
            if found:
                with formatter.section(title):
                    formatter.write_dl(found)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        _write_examples(ctx, formatter)


class Commands(TyperGroup):
    """A group of commands that are listed by their panels, in the order in which they were added."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without a command, show the help."""
        return list(super().parse_args(ctx, args or ["--help"]))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each panel's commands as a section."""
        panels: dict[str, list[tuple[str, str]]] = {}
        width = max(map(len, self.commands))
        for name, command in self.commands.items():
            panel = getattr(command, "rich_help_panel", None) or "Commands"
            panels.setdefault(panel, []).append((f"{name:<{width}}", command.get_short_help_str(_WHOLE)))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        _write_examples(ctx, formatter)
