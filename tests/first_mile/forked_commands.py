"""Runs commands of calotype, each in a fork of this process, which imports what they share once for all of them.

    python forked_commands.py MODULE …        # the modules to import first

A line of standard input is one job in JSON: `arguments`, `folder` to run in, `packages` to put on sys.path, and
`columns`, the width of a terminal, or null for pipes. The answer is a line with its exit `status`, and what it wrote:
`stdout` and `stderr`, or all of it as `stdout` where there is a terminal.
"""

import fcntl
import importlib
import json
import os
import pty
import struct
import sys
import tempfile
import termios


def run(job):
    """In the child: does not return."""
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(job["folder"])
    sys.path[:0] = job["packages"]
    sys.argv = ["calotype", *job["arguments"]]
    from calotype.cli import main

    main()
    raise SystemExit(0)


def in_pipes(job):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            run(job)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return {"status": status, "stdout": out.read().decode(), "stderr": err.read().decode()}


def in_a_terminal(job):
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, job["columns"], 0, 0))
        os.environ["TERM"] = "xterm-256color"
        run(job)
    written = bytearray()
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # EIO: the last process that had it open has ended
            break
        if not part:
            break
        written += part
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"status": status, "stdout": written.decode(), "stderr": ""}


def serve():
    for module in sys.argv[1:]:
        importlib.import_module(module)
    replies = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        job = json.loads(line)
        reply = in_pipes(job) if job["columns"] is None else in_a_terminal(job)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    serve()
