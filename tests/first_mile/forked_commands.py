"""Runs commands of calotype, each in a fork of this process, which imports what they share once for all of them.

A line of standard input is one job in JSON: `arguments`, `folder` to run in, `packages` to put on sys.path. The answer
is a line with its exit `status`, `stdout` and `stderr`.
"""

import importlib
import json
import os
import sys
import tempfile


def run(job):
    """In the child: does not return."""
    os.chdir(job["folder"])
    sys.path[:0] = job["packages"]
    sys.argv = ["calotype", *job["arguments"]]
    from calotype.cli import main

    main()
    raise SystemExit(0)


def serve():
    for package in ("cli", "check", "convert", "previews", "loader.build", "data.builder"):  # no extra is needed
        importlib.import_module(f"calotype.{package}")
    replies = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        job = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if child == 0:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                run(job)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            out.seek(0)
            err.seek(0)
            reply = {"status": status, "stdout": out.read().decode(), "stderr": err.read().decode()}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    serve()
