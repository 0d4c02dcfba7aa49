"""The command `calotype` in the tests' own process: what it prints and its status, without 5 s of imports each time."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any
from unittest import mock

import pytest

from calotype.cli import main


def calotype(*arguments: Any, code: int = 0, **env: str) -> tuple[str, str]:
    """Standard output and standard error of `calotype ARGUMENTS`, which ends with this status."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        mock.patch.dict(os.environ),  # the command sets what other libraries read
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        patch.setattr(sys, "argv", ["calotype", *map(str, arguments)])
        for name, value in env.items():
            patch.setenv(name, value)
        main()
    assert (ended.value.code or 0) == code, f"{ended.value.code}\n{out.getvalue()}\n{err.getvalue()}"
    assert "Traceback" not in err.getvalue()
    return out.getvalue(), err.getvalue()
