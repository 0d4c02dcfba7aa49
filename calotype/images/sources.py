"""`read_source`: the bytes of an image from a file, a byte range, an LMDB value or a URL."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import unquote, urlsplit

from calotype.errors import FetchError, ImageError, MissingDependencyError
from calotype.images.connect import PrivateAddressError, public_addresses, redact
from calotype.images.locks import ForkSafeLock
from calotype.images.positioned_file import PositionedFile
from calotype.images.ranges import RemoteFile
from calotype.types import ImageRef

if TYPE_CHECKING:
    from calotype.images.fetch import Fetcher

__all__ = ["local_path", "open_source", "read_source"]

_FSSPEC: Final = {"ftp": "ftp", "ftps": "ftp", "s3": "s3", "gs": "gs", "gcs": "gs", "hf": "hf"}
"""Scheme → fsspec's protocol. An allowlist: fsspec's other protocols, and chains of them, are unsafe for untrusted data
files."""


def read_source(ref: ImageRef, fetcher: Fetcher, check: Callable[[int], None]) -> bytes:
    """Return the encoded image.

    Args:
        ref: The image.
        fetcher: Fetches a URL, within its limits.
        check: Called with the length before a local file is read; raises if it is too long.

    Raises:
        ImageError: The file, range or key does not exist; for a URL, a FetchError.
        MissingDependencyError: LMDB or fsspec is not installed.
    """
    path = local_path(ref)
    if path is None:
        return _read_url(ref, fetcher)
    if ref.key is not None:
        return _read_lmdb(ref, path, ref.key, check)
    with _open_file(ref, path) as descriptor:
        start, length = _extent(ref, path, descriptor)
        check(length)
        data = _pread(descriptor, length, start)
    if len(data) < length:
        raise ImageError(
            ref.name, f"{path} was truncated while it was read: got {len(data)} of {length} bytes", kind="truncated"
        )
    return data


@contextmanager
def open_source(ref: ImageRef, fetcher: Fetcher, check: Callable[[int], None]) -> Iterator[tuple[BinaryIO, int]]:
    """Open a seekable file of the encoded image; return it with its length.

    Reads lazily from local files and, unless it is in the fetcher's downloads, by range requests from http(s) URLs.
    """
    path = local_path(ref)
    if path is None and _is_web(ref) and ref.url is not None and not fetcher.has(ref.url):
        remote = RemoteFile(partial(fetcher.fetch_part, ref.url))
        yield io.BufferedReader(remote), remote.length
        return
    if path is None or ref.key is not None:
        data = read_source(ref, fetcher, check)
        yield io.BytesIO(data), len(data)
        return
    with _open_file(ref, path) as descriptor:
        start, length = _extent(ref, path, descriptor)
        check(length)
        yield io.BufferedReader(_Range(descriptor, start, length)), length


def local_path(ref: ImageRef) -> str | None:
    """Return the path of the file that an image is in; None for a URL of a server."""
    if ref.path is not None:
        return ref.path
    if ref.url is not None and ref.url.startswith("file://"):
        return unquote(urlsplit(ref.url).path)
    return None


@contextmanager
def _open_file(ref: ImageRef, path: str) -> Iterator[int]:
    try:
        # Non-blocking: a pipe must not hang the reader.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise ImageError(ref.name, f"no such file: {path}", kind="missing_file") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ImageError(ref.name, f"{path!r} can't be opened: {reason}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _extent(ref: ImageRef, path: str, descriptor: int) -> tuple[int, int]:
    """Return (offset, length) of the image in its file, in bytes."""
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode):
        raise ImageError(ref.name, f"{path} is not a regular file (a folder, pipe or device)")
    length = info.st_size - ref.offset if ref.size is None else ref.size
    if ref.offset < 0 or length < 0 or ref.offset + length > info.st_size:
        raise ImageError(
            ref.name,
            f"bytes {ref.offset} to {ref.offset + length} lie outside {path}, which has {info.st_size}: "
            "it was truncated or changed since it was indexed",
            kind="truncated",
        )
    return ref.offset, length


def _pread(descriptor: int, length: int, position: int) -> bytes:
    """Read `length` bytes, fewer only at the end of the file. One system call reads at most 2 GiB."""
    data = os.pread(descriptor, length, position)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), position + len(data))
        if not more:
            break
        data += more
    return data


class _Range(PositionedFile):
    """Bytes [start, start + length) of an open file, as a file."""

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        super().__init__(length)
        self._descriptor, self._start = descriptor, start

    def read_at(self, position: int, length: int) -> bytes:
        return os.pread(self._descriptor, max(min(length, self.length - position), 0), self._start + position)


_environments: dict[str, tuple[int, Any]] = {}
"""Path → (process that opened it, environment)."""
_environments_lock = ForkSafeLock()


def _read_lmdb(ref: ImageRef, path: str, key: bytes, check: Callable[[int], None]) -> bytes:
    try:
        import lmdb
    except ImportError:
        raise MissingDependencyError("lmdb", extra="lmdb", purpose="to read images out of LMDB") from None
    try:
        # Once per process: LMDB forbids opening an environment twice, and it does not survive a fork.
        with _environments_lock:
            owner, environment = _environments.get(path, (0, None))
            if owner != os.getpid():
                if environment is not None:
                    environment.close()
                environment = lmdb.open(
                    path, subdir=Path(path).is_dir(), readonly=True, lock=False, create=False, readahead=False
                )
                _environments[path] = os.getpid(), environment
        with environment.begin(buffers=True) as transaction:
            value = transaction.get(key)
            if value is not None:
                check(len(value))
                value = bytes(value)
    except lmdb.Error as error:
        raise ImageError(ref.name, f"the LMDB environment {path} can't be read: {error}") from error
    if value is None:
        raise ImageError(ref.name, f"the LMDB environment {path} has no key {key!r}", kind="missing_file")
    found: bytes = value
    return found


def _scheme(ref: ImageRef) -> str:
    return (ref.url or "").partition("://")[0].lower()


def _is_web(ref: ImageRef) -> bool:
    return _scheme(ref) in ("http", "https")


def _read_url(ref: ImageRef, fetcher: Fetcher) -> bytes:
    if ref.url is None:
        raise ImageError(ref.name, "the reference has neither a path nor a URL")
    if _is_web(ref):
        return fetcher.get(ref.url)
    scheme = _scheme(ref)
    if scheme not in _FSSPEC or "::" in ref.url:
        known = ", ".join(sorted({"http", "https", "file", *_FSSPEC}))
        raise FetchError(redact(ref.url), f"this URL scheme is not supported (supported: {known})")

    def fetch(url: str) -> bytes:
        return _read_fsspec(url, scheme, fetcher)

    return fetcher.downloads.get(ref.url, fetch) if fetcher.downloads is not None else fetch(ref.url)


def _read_fsspec(url: str, scheme: str, fetcher: Fetcher) -> bytes:
    try:
        import fsspec
    except ImportError:
        raise MissingDependencyError("fsspec", extra="hub", purpose=f"to read {scheme}:// URLs") from None
    shown = redact(url)
    try:
        if scheme in ("ftp", "ftps"):
            parts = urlsplit(url)
            public_addresses(parts.hostname or "", parts.port or 21, allow_private=fetcher.allow_private)
            options: dict[str, Any] = {"timeout": fetcher.read_timeout, "skip_instance_cache": True}
            if scheme == "ftps":
                options["tls"] = True
            filesystem, path = fsspec.core.url_to_fs("ftp" + url[len(scheme) :], **options)
        else:
            filesystem, path = fsspec.core.url_to_fs(_FSSPEC[scheme] + url[len(scheme) :])
        with filesystem.open(path, "rb") as file:
            data: bytes = file.read(fetcher.max_bytes + 1)
    except ImportError as error:  # fsspec is installed, the file system's package is not
        raise FetchError(shown, f"{scheme}:// needs another package: {error}") from error
    except PrivateAddressError as error:
        raise FetchError(shown, str(error)) from None
    except FileNotFoundError:
        raise FetchError(shown, "there is no such file") from None
    except Exception as error:  # each file system raises its own types
        raise FetchError(shown, redact(f"{type(error).__name__}: {error}")) from None
    if len(data) > fetcher.max_bytes:
        raise FetchError(shown, f"it is longer than max_bytes = {fetcher.max_bytes:,}")
    return data
