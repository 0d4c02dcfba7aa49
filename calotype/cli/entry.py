"""`run_process` and `main`, the entry points of the command: how it begins, and how it ends."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

__all__ = ["main", "run_process"]

_EVERYWHERE = ("--verbose", "--traceback", "--version")
"""Flags of the whole command, which may stand behind a subcommand too."""
_INTERRUPTED = 130
_BROKEN_PIPE = 141
"""Exit statuses of a program that a signal ended: 128 and SIGINT's or SIGPIPE's number."""


def run_process() -> None:
    """Run `main` as all that this process does.

    Its end is fast: the interpreter frees nothing, which takes half a second with torch. Ctrl-C ends it without a
    traceback of an exit handler.
    """
    status = 1

    def end() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)

    atexit.register(end)  # the first to be registered is the last to be called
    sys.unraisablehook = _report_unraisable
    with _ending_at_once():
        from calotype.cli.imports import import_faster

        import_faster()
    try:
        main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    except KeyboardInterrupt:
        status = _INTERRUPTED
        raise SystemExit(status) from None
    finally:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _report_unraisable(raised: sys.UnraisableHookArgs) -> None:
    """Report an exception in a finalizer as Python does, but not another Ctrl-C while the command ends."""
    if not issubclass(raised.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(raised)


def main() -> None:
    """Run the command. Exit status 1 for problems, 2 for wrong use, 130 after Ctrl-C."""
    with _ending_at_once():  # until the commands are imported, Ctrl-C has nothing to finish
        from calotype.cli.imports import without_collections
        from calotype.terminal import encode_all, say

        encode_all()
        arguments = _everywhere_first(sys.argv[1:])
        with without_collections():
            from calotype.cli.commands import run
    try:
        status = run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        _discard_output()
        status = _BROKEN_PIPE
    except KeyboardInterrupt:
        say("Interrupted.", error=True)
        status = _INTERRUPTED
    except Exception as error:
        from calotype.cli.failure import report_failure

        status = report_failure(error, arguments)
    raise SystemExit(status)


def _everywhere_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with the flags of the whole command in front, where the parser expects them."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    flags = [one for one in arguments[:end] if one in _EVERYWHERE]
    return [*flags, *(one for one in arguments[:end] if one not in _EVERYWHERE), *arguments[end:]]


@contextmanager
def _ending_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process as the system does it, without a traceback of whatever is being imported."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield  # signals are the main thread's, and a background job of a shell ignores this one
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _discard_output() -> None:
    """Point standard output to nowhere, so that the interpreter's last flush does not fail as well."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
