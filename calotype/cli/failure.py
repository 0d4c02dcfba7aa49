"""How a failure is reported: one line on standard error, with `--json` one of JSON too, and its exit status."""

from __future__ import annotations

import errno
import os
import shlex
import traceback
from collections.abc import Sequence
from typing import Any, Final

import typer

from calotype.errors import CalotypeError, ConfigError, MissingPathError, nearest, or_list
from calotype.terminal import emit, say, visible

__all__ = ["report_failure"]

_PROBLEM, _WRONG_USE = 1, 2
_LONGEST: Final = 300
"""Characters of the message of an exception that is not calotype's."""
_UsageError: Final = typer.BadParameter.__mro__[1]
"""The parser's error: typer keeps it under different names in different versions."""

_DISK: Final = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENAMETOOLONG)
)
"""Errors of a disk: a problem, also where it was met with an option's path."""
_NO_OPTIONS: Final = "this command takes no options of the config: give them to those that read one, such as train"


def report_failure(error: Exception, arguments: Sequence[str]) -> int:
    """Report a failure, and return the exit status: 2 for wrong use, else 1.

    Args:
        error: What the command raised.
        arguments: The command's.
    """
    usage = isinstance(error, _UsageError)
    command, message = _usage(error, arguments) if usage else ("", _message(error))
    disk = getattr(error.__cause__ or error.__context__, "errno", None) in _DISK
    wrong = usage or (isinstance(error, ConfigError | MissingPathError) and not disk)
    status = _WRONG_USE if wrong else _PROBLEM
    if "--traceback" in arguments:
        say(*"".join(traceback.format_exception(error)).rstrip().split("\n"), error=True)
    say(f"calotype{command}: {message}", error=True)
    if "--json" in arguments:
        kind = "UsageError" if usage else type(error).__name__
        emit({"error": message, "kind": kind, "exit_status": status})
    return status


def _message(error: Exception) -> str:
    if isinstance(error, CalotypeError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:  # a disk that is full, a folder that may not be read
        names = [os.fsdecode(one) for one in (error.filename, error.filename2) if isinstance(one, str | bytes)]
        return ": ".join([*(visible(name, _LONGEST) for name in names), error.strerror])
    first = next(iter(str(error).strip().splitlines()), "")
    reason = f"{type(error).__name__}: {visible(first, _LONGEST)}" if first else type(error).__name__
    return f"unexpected {reason} (--traceback shows where it was raised)"


def _usage(error: Any, arguments: Sequence[str]) -> tuple[str, str]:
    """The command that was used wrongly, and what is wrong."""
    command = "" if error.ctx is None else error.ctx.command_path.removeprefix("calotype")
    help = f"calotype{command} --help"
    if (flag := getattr(error, "option_name", None)) is not None:
        return command, f"there is no flag {flag}{_instead(error, flag, arguments)} (`{help}` lists the flags)"
    words = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    if words.startswith("Got unexpected extra argument"):
        words += _beyond(error, arguments)
    given = next((one for one in arguments if not one.startswith("-")), "")
    if not command and os.path.exists(given):  # noqa: PTH110 - the argument may be no path at all
        words += f". Did you mean 'calotype info {given}'?"
    return command, f"{words} (`{help}` shows the usage)"


def _beyond(error: Any, arguments: Sequence[str]) -> str:
    """What may be meant by an argument too many: an option of the config, or the rest of a text without quotes."""
    extra = error.message.rpartition("(")[2].rstrip(".)").split()
    if any("=" in one for one in extra):
        return f"; {_NO_OPTIONS}"
    flags = [param for param in error.ctx.command.params if not getattr(param, "is_flag", True)]
    for flag, value, after in zip(arguments, arguments[1:], arguments[2:], strict=False):
        if flag.startswith("-") and after in extra and any(flag in param.opts for param in flags):
            return f"; a text with spaces is quoted: {flag} {shlex.quote(f'{value} {after}')}"
    return ""


def _instead(error: Any, flag: str, arguments: Sequence[str]) -> str:
    """What to write in place of a flag that does not exist: another flag, or an option of the config."""
    params = error.ctx.command.params
    if flag == "--config" and "source" in {param.name for param in params}:
        return f"; the config stands first, without a flag: {error.ctx.command_path} {_value(flag, arguments)}"
    flags = nearest(flag, [name for param in params for name in param.opts if name.startswith("--")])
    found: Sequence[str] = ()
    if flag.startswith("--"):
        from calotype.config.options import find_options, renamed_option, suggest_options

        name = flag.lstrip("-").replace("-", "_")
        if "overrides" not in {param.name for param in params}:
            return f"; {_NO_OPTIONS}" if find_options(name) and not flags else _did_you_mean(flags)
        found = find_options(name) or renamed_option(name) or (() if flags else suggest_options(name))
    if found:
        names = [found[0].rpartition(".")[2]] if len(found) == 1 else found
        written = or_list(f"{name}={_value(flag, arguments)}" for name in names)
        return f"; options of the config are written without dashes: {written}"
    return _did_you_mean(flags)


def _did_you_mean(flags: Sequence[str]) -> str:
    return f"; did you mean {or_list(flags)}?" if flags else ""


def _value(flag: str, arguments: Sequence[str]) -> str:
    """The value that was given to a flag, if any."""
    for at, one in enumerate(arguments):
        if one.startswith(f"{flag}="):
            return one.partition("=")[2]
        if one == flag and at + 1 < len(arguments) and not arguments[at + 1].startswith("-"):
            return arguments[at + 1]
    return "…"
