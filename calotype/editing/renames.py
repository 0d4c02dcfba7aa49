"""Renames that `os` lacks: those that exchange two files, and one that never replaces a file."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any, Final

__all__ = ["exchange", "exchange_in_steps", "rename_new"]

_HERE: Final = -100
"""AT_FDCWD: relative paths are relative to the working folder."""
_NO_REPLACE: Final = 1
_EXCHANGE: Final = 2
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})
"""What kernels and file systems without these renames answer."""


def exchange(one: Path, other: Path) -> bool:
    """Exchange two files in one step, so that whatever either holds at that moment is kept.

    Returns:
        False: this system, or file system, can't do it.

    Raises:
        FileNotFoundError: One is not there.
    """
    return _rename(one, other, _EXCHANGE)


def exchange_in_steps(one: Path, other: Path) -> None:
    """The same where the system can't: what a program saves as `other` between the steps is lost.

    Raises:
        FileNotFoundError: One is not there.
    """
    aside = one.with_name(f"{one.name}-old")
    try:
        os.link(other, aside)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        shutil.copy2(other, aside)
    one.replace(other)
    aside.replace(one)


def rename_new(source: Path, target: Path) -> bool:
    """Rename a file to a name that is free.

    Returns:
        False: the name is taken, and the file stays where it is.
    """
    try:
        if _rename(source, target, _NO_REPLACE):
            return True
    except FileExistsError:
        return False
    if os.path.lexists(target):
        return False
    source.replace(target)
    return True


def _rename(source: Path, target: Path, flags: int) -> bool:
    call = _renameat2()
    if call is None:
        return False
    if call(_HERE, os.fsencode(source), _HERE, os.fsencode(target), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(target))


@cache
def _renameat2() -> Any:
    """The function of the C library; None where there is none."""
    if os.name != "posix":
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return call
