"""A damaged data file is an error that names it, or is read: it never ends, hangs or surprises the process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(900)
def test_damaged_files_of_every_format(tmp_path):
    alone = {"CALOTYPE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    script = Path(__file__).with_name("fuzzing.py")
    command = [sys.executable, "-W", "error", script, tmp_path / "inputs", "300"]
    done = subprocess.run(command, env=os.environ | alone, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr[-2000:]
