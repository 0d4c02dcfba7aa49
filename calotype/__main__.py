"""`python -m calotype`: the command of the same name."""

from calotype.cli import run_process

run_process()
