"""Keep the messages, warnings and progress bars of other libraries off the screen."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Final

__all__ = ["is_quiet", "quiet_libraries"]

_BARS: Final = "HF_HUB_DISABLE_PROGRESS_BARS"

_SETTINGS: Final = {
    _BARS: "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "RAY_LOG_TO_DRIVER": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",  # of TensorFlow, which tensorboard imports where it is installed
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # without it Ray warns of this very setting
}
"""Environment variables that the libraries read when they are imported."""


def quiet_libraries() -> None:
    """Show only errors of other libraries, and none of their progress bars; calotype's own messages stay.

    Call it before they are imported. Environment variables and warning filters that the user has set win. Processes
    started later inherit the variables.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", module=r"(?!calotype(\.|$))", append=True)
    logging.getLogger().setLevel(logging.ERROR)  # noqa: TID251 - theirs
    logging.getLogger("calotype").setLevel(logging.WARNING)  # noqa: TID251 - only its level


def is_quiet() -> bool:
    """Return whether the libraries' progress bars are off, by `quiet_libraries` or by the user."""
    return os.environ.get(_BARS, "").lower() in ("1", "on", "yes", "true")
