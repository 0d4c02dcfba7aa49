"""Files that are changed in place: replaced as a whole, kept before bulk changes, and by one process at a time."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from calotype.errors import EditError

try:
    import fcntl
except ImportError:  # Windows has none: there, who edits with two programs at once has to see to it
    fcntl = None  # type: ignore[assignment]

__all__ = ["HOUSE", "back_up", "locked", "replace_file", "replace_files"]

HOUSE: Final = ".calotype"
"""Hidden folder beside the data for what belongs to it and is no data: backups, the ledger of captions, the lock."""
_AT_ONCE: Final = 32
"""Files written at a time."""


def replace_file(path: Path, data: bytes) -> None:
    """Gives a file new contents, or makes it: whoever reads it meanwhile, or after a crash, gets the old or the new.

    A link stays a link, to a new file; rights stay as they were.

    Raises:
        EditError: The folder can't be written to, or the disk is full.
    """
    replace_files({path: data})


def replace_files(files: Mapping[Path, bytes]) -> None:
    """The same for several. All are on the disk before the first takes its place.

    Raises:
        EditError: A folder can't be written to, or the disk is full.
    """
    targets = [Path(os.path.realpath(path)) for path in files]
    rights = 0o666 & ~_umask()
    ready: list[Path] = []

    def write(target: Path, data: bytes) -> Path:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".calotype-")
        ready.append(Path(name))
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(target.stat().st_mode & 0o7777 if target.exists() else rights)
        return Path(name)

    try:
        # The disk makes what many wait for at once lasting in one go: 20,000 files in a quarter of the time.
        with ThreadPoolExecutor(min(_AT_ONCE, len(targets) or 1)) as pool:
            written = list(pool.map(write, targets, files.values()))
        for name, target in zip(written, targets, strict=True):
            name.replace(target)
    except OSError as error:
        place = error.filename2 or Path(error.filename or targets[0]).parent
        raise EditError(f"{place}: can't be written: {error.strerror}; nothing of it was changed") from error
    finally:
        for name in ready:
            name.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def back_up(files: Iterable[Path], root: Path) -> Path:
    """Copies files as they are to a new folder `root/.calotype/backups/<time>`, under their places below `root`.

    Files that are not there yet are passed over; those outside `root` go to its folder `outside`.

    Returns:
        The new folder.

    Raises:
        EditError: They can't be copied, so the change that they are copied for must not begin.
    """
    backups = root / HOUSE / "backups"
    try:
        backups.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=backups, prefix=datetime.now().strftime("%Y-%m-%d_%H-%M-%S_")))
        folder.chmod(0o777 & ~_umask())
        for file in files:
            if not file.is_file():
                continue
            inside = file.is_relative_to(root)
            place = folder / (file.relative_to(root) if inside else Path("outside", *file.parts[1:]))
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, place)
    except OSError as error:
        raise EditError(f"{backups}: no backup can be made: {error.strerror}; nothing was changed") from error
    return folder


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Only one process or thread at a time is inside, for one `root`.

    Raises:
        EditError: Nothing can be written there.
    """
    place = root / HOUSE / "lock"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        file = place.open("ab")
    except OSError as error:
        raise EditError(f"{root}: captions can't be changed here: {error.strerror}") from error
    with file:
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
