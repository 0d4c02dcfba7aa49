"""What other libraries log, warn and draw stays off the screen of the command; calotype's own messages do not."""

from __future__ import annotations

import os
import subprocess
import sys

from calotype.core import quiet

_NOISE = """
import logging, sys, warnings
from calotype.core.quiet import quiet_libraries
from calotype.terminal import get_logger, log_to_stderr
if sys.argv[1] == "quiet":
    quiet_libraries()
log_to_stderr()
import huggingface_hub.utils
from huggingface_hub.utils import logging as hub
hub.get_logger("huggingface_hub.file_download").warning("hub: is slow")
logging.getLogger("accelerate").warning("accelerate: is odd")
logging.getLogger("accelerate").error("accelerate: is broken")
exec(compile("import warnings; warnings.warn('peft: will change', FutureWarning)", "x", "exec"), {"__name__": "peft"})
for _ in huggingface_hub.utils.tqdm(range(3), desc="a bar"):
    pass
get_logger("calotype.loader").warning("ours: is short")
"""


def _said(how: str) -> str:
    # Without the variables that a command has set in the tests' own process.
    env = {name: value for name, value in os.environ.items() if name not in quiet._SETTINGS}
    done = subprocess.run([sys.executable, "-c", _NOISE, how], capture_output=True, text=True, check=True, env=env)
    return done.stdout + done.stderr


def test_only_errors_and_our_own_messages_are_printed():
    assert _said("quiet").splitlines() == ["accelerate: is broken", "ours: is short"]


def test_without_it_all_is_printed():
    found = _said("loud")
    assert all(part in found for part in ("hub: is slow", "accelerate: is odd", "peft: will change", "a bar", "ours"))
