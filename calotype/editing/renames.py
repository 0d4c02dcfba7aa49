"""Renames that `os` lacks: an exchange of two files, and a rename that never replaces a file."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any, Final

__all__ = ["exchange", "exchange_in_steps", "rename_new"]

_AT_FDCWD: Final = -100
"""Relative paths are relative to the working folder."""
_NO_REPLACE: Final = 1
_EXCHANGE: Final = 2
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})
"""Error numbers of kernels and file systems without these renames."""


def exchange(one: Path, other: Path) -> bool:
    """Exchange two files atomically.

    Returns:
        False: this system or file system can't.

    Raises:
        FileNotFoundError: One does not exist.
    """
    return _rename(one, other, _EXCHANGE)


def exchange_in_steps(one: Path, other: Path) -> None:
    """Exchange two files by several renames: what another program saves as `other` between them is lost.

    Raises:
        FileNotFoundError: One does not exist.
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
    """Rename a file unless the new name exists.

    Returns:
        False: it exists, and the file was not renamed.
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
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(target))


@cache
def _renameat2() -> Any:
    """Return the function of the C library; None: it has none."""
    if os.name != "posix":
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return call
