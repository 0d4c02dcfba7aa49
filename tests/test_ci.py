"""`.ci/run` with commands of the test's own on the PATH: what it does where there is no browser."""

import os
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / ".ci" / "run"


@pytest.fixture
def machine(tmp_path):
    """A PATH with the few commands that the script takes, and others that note what they are called with."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("bash", "dirname", "mktemp", "tail", "rm", "id", "env", "touch", "chmod"):
        (commands / name).symlink_to(next(p for d in ("/usr/bin", "/bin") if (p := Path(d) / name).exists()))
    note = f'#!/bin/bash\necho "$(basename "$0") $* [$PYTEST_ADDOPTS]" >> {tmp_path}/called\n'.replace(
        '$(basename "$0")', "${0##*/}"
    )

    def command(name, body="exit 0"):
        (commands / name).write_text(f"{note}{body}\n")
        (commands / name).chmod(0o755)

    def run(**environment):
        (tmp_path / "called").unlink(missing_ok=True)
        done = subprocess.run(
            [RUN], env={"PATH": str(commands), "HOME": str(tmp_path), **environment}, capture_output=True, text=True
        )
        called = (tmp_path / "called").read_text().splitlines() if (tmp_path / "called").exists() else []
        return done, [line.partition(" [")[0] for line in called], called

    command("make")
    return run, command, commands


@pytest.mark.skipif(os.getuid() != 0, reason="the script asks whether it may install")
def test_without_a_browser_it_fails_before_anything_else(machine):
    run, command, commands = machine
    command("apt-get", 'echo "Unable to fetch some archives" >&2; exit 100')
    done, called, _ = run()
    assert done.returncode == 1 and called == ["apt-get update"]
    assert "Unable to fetch some archives" in done.stderr and "Chromium is not installed" in done.stderr
    assert "CALOTYPE_CI_WITHOUT_BROWSER=1" in done.stderr.splitlines()[-1]
    command("apt-get", f"[ $1 = update ] || (echo '#!/bin/bash' > {commands}/chromium; chmod +x {commands}/chromium)")
    done, called, raw = run()
    assert done.returncode == 0 and called[0] == "apt-get update" and called[-2:] == ["make test", "make check"]
    assert raw[-2].endswith("[ -rs]") and "NOT TESTED" not in done.stderr


def test_only_who_says_so_runs_without_and_the_last_line_says_what_was_left_out(machine):
    run, _, _ = machine
    done, called, _ = run()
    assert done.returncode == 1 and called == []
    done, called, _ = run(CALOTYPE_CI_WITHOUT_BROWSER="1")
    assert done.returncode == 0 and called == ["make test", "make check"]
    assert done.stderr.splitlines()[-1].startswith("NOT TESTED: the pages in a browser")
    failing = machine[1]
    failing("make", "exit 2")
    done, called, _ = run(CALOTYPE_CI_WITHOUT_BROWSER="1")
    assert done.returncode == 2 and called == ["make test"]
