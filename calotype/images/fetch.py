"""`Fetcher`: fetch images by http(s) URL, within limits of time, size and addresses."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.util import Timeout, make_headers, parse_url

from calotype.core.retry import backoff, retry_after
from calotype.errors import ConfigError, FetchError
from calotype.images.connect import PrivateAddressError, new_pool, redact, within
from calotype.images.formats import HEAD, sniff

if TYPE_CHECKING:
    from calotype.config.dataset import DatasetConfig
    from calotype.images.downloads import Downloads

__all__ = ["Fetcher"]

_RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_CHUNK = 256 * 1024
_DRAIN = 64 * 1024  # bytes of an error page that are read to reuse its connection
_LONGEST_WAIT = 30.0  # seconds between two attempts, whatever Retry-After asks for


class Fetcher:
    """Fetches images by URL. Thread-safe; picklable (a copy starts without connections).

    Threads share kept-alive connections and one TLS context. Each hop of a redirect is checked like the first URL.
    Proxy settings in the environment are not used: a proxy resolves names itself, which evades the check of addresses.

    Args:
        downloads: Cache of fetched images; None fetches each time.
        timeout: Seconds for one URL in all, with redirects, retries and waits. Name resolution counts, but can't be
            interrupted.
        read_timeout: Seconds to wait for a connection, or for the next bytes.
        max_bytes: Largest body, by its Content-Length and by the bytes received, decompressed.
        max_redirects: Most redirects followed.
        retries: Retries after status 408, 425, 429, 500, 502, 503 or 504, a timeout, a refused or broken connection, or
            an incomplete body. Other statuses (403, 404, …) are final.
        allow_private: Also fetch from loopback, private, link-local and reserved addresses. By default these are
            errors: an untrusted data file must not read what only this machine can reach.
        user_agent: The User-Agent header; None is `calotype/<version>`.

    Raises:
        ConfigError: An option is out of range.
    """

    def __init__(
        self,
        *,
        downloads: Downloads | None = None,
        timeout: float = 60.0,
        read_timeout: float = 15.0,
        max_bytes: int = 64 * 1024 * 1024,
        max_redirects: int = 5,
        retries: int = 3,
        allow_private: bool = False,
        user_agent: str | None = None,
    ) -> None:
        for name, value, least in (
            ("timeout", timeout, 0.001),
            ("read_timeout", read_timeout, 0.001),
            ("max_bytes", max_bytes, 1),
            ("max_redirects", max_redirects, 0),
            ("retries", retries, 0),
        ):
            if not isinstance(value, int | float) or not value >= least:
                raise ConfigError(f"{name}: expected a number of at least {least}, not {value!r}")
        self.downloads = downloads
        self.timeout = timeout
        self.read_timeout = read_timeout
        self.max_bytes = max_bytes
        self.max_redirects = max_redirects
        self.retries = retries
        self.allow_private = allow_private
        self.user_agent = user_agent if user_agent is not None else f"calotype/{_version()}"
        self._connections = _Connections()

    @classmethod
    def from_config(cls, options: DatasetConfig) -> Fetcher:
        """Make the fetcher of a dataset, with its `downloads` and `fetch`.

        Raises:
            ConfigError: An option is out of range, or the folder of downloads can't be written.
        """
        from calotype.config.image_files import DownloadsConfig
        from calotype.images.downloads import Downloads

        downloads: Downloads | None = None
        if isinstance(options.downloads, DownloadsConfig):
            downloads = Downloads(**options.downloads.given())
        elif options.downloads is not None:
            downloads = Downloads(options.downloads)
        return cls(downloads=downloads, **({} if options.fetch is None else options.fetch.given()))

    def get(self, url: str) -> bytes:
        """Return the encoded image at `url`, from the cache if possible.

        Raises:
            FetchError: There is no image. Passwords and signatures of the URL are redacted in the message.
        """
        if self.downloads is not None:
            return self.downloads.get(url, self.fetch)
        return self.fetch(url)

    def fetch(self, url: str) -> bytes:
        """Return the encoded image at `url` from the network. Raises as `get` does."""
        deadline = time.monotonic() + self.timeout
        tries = 0
        while True:
            try:
                with within(deadline, allow_private=self.allow_private):
                    return self._attempt(url, deadline)
            except _TryAgainError as problem:
                reason, server_wait = str(problem), problem.wait
            tries += 1
            wait = backoff(tries, longest=_LONGEST_WAIT, server_wait=server_wait)
            after = f" (tried {tries} time{'s' if tries > 1 else ''})"
            if tries > self.retries:
                raise FetchError(redact(url), reason + after)
            if time.monotonic() + wait >= deadline:
                raise FetchError(redact(url), f"{reason}{after}; no more within timeout = {self.timeout:g} s")
            time.sleep(wait)

    def _attempt(self, url: str, deadline: float) -> bytes:
        """Fetch once, following redirects."""
        where = url
        for _ in range(self.max_redirects + 1):
            response = self._request(where, url, deadline)
            try:
                if response.status in _REDIRECTS and "location" in response.headers:
                    _drain(response)
                    where = _joined(where, response.headers["location"])
                    continue
                if response.status != 200:
                    _drain(response)
                    reason = f"the server answered {response.status} {response.reason or ''}".rstrip()
                    if response.status in _RETRIED:
                        raise _TryAgainError(reason, wait=retry_after(response))
                    raise FetchError(redact(url), reason)
                return self._body(response, url)
            except HTTPError as error:
                raise self._error_for(error, url, deadline) from error
            finally:
                if not _spent(response):  # a response read to its end has released its connection
                    response.close()
        raise FetchError(redact(url), f"it redirects more than max_redirects = {self.max_redirects} times")

    def _request(self, where: str, url: str, deadline: float) -> urllib3.BaseHTTPResponse:
        """Send the request of one hop; return the response with its body unread."""
        via = "" if where == url else f"it redirects to {redact(where)}: "
        try:
            parsed = parse_url(where)
        except HTTPError as error:
            raise FetchError(redact(url), f"{via}not a valid URL ({redact(str(error))})") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise FetchError(redact(url), f"{via}only http:// and https:// URLs with a host are fetched")
        headers = {"User-Agent": self.user_agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
        if parsed.auth:  # never sent to another host: a redirect's URL has its own credentials, or none
            headers |= make_headers(basic_auth=unquote(parsed.auth))
        bare = parsed._replace(auth=None).url
        try:
            return self._connections.pool().request(
                "GET",
                bare,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=Timeout(connect=self.read_timeout, read=self.read_timeout),
            )
        except PrivateAddressError as error:
            raise FetchError(redact(url), f"{via}{error}") from None
        except HTTPError as error:
            raise self._error_for(error, url, deadline, via=via) from error
        except ValueError as error:  # a header or path that http.client refuses
            raise FetchError(redact(url), f"{via}{redact(str(error))}") from None

    def _body(self, response: urllib3.BaseHTTPResponse, url: str) -> bytes:
        announced = response.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self.max_bytes:
            raise FetchError(redact(url), f"it announces {int(announced):,} bytes, more than {self._most()}")
        parts, length = [], 0
        while part := response.read(_CHUNK, decode_content=True):
            parts.append(part)
            length += len(part)
            if length > self.max_bytes:
                raise FetchError(redact(url), f"it has more than {self._most()}")
        data = b"".join(parts)
        try:
            sniff(data[:HEAD])
        except ValueError as error:
            kind = response.headers.get("content-type", "none")
            raise FetchError(redact(url), f"the server answered 200 with Content-Type {kind}: {error}") from None
        return data

    def _most(self) -> str:
        return f"max_bytes = {self.max_bytes:,}"

    def _error_for(self, error: HTTPError, url: str, deadline: float, *, via: str = "") -> Exception:
        """Return the error for a failure: `_TryAgainError` if a retry can help, else `FetchError`."""
        if time.monotonic() >= deadline:
            return FetchError(redact(url), f"{via}it took longer than timeout = {self.timeout:g} s")
        cause = error.__cause__ or (error.args[0] if error.args else None)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return FetchError(
                redact(url),
                f"{via}its TLS certificate is not trusted: {cause.verify_message}; SSL_CERT_FILE can name "
                "a file with further certificates",
            )
        if isinstance(error, NameResolutionError):
            again = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN
            reason = f"{via}its host name does not resolve ({cause})"
            return _TryAgainError(reason) if again else FetchError(redact(url), reason)
        if isinstance(error, ReadTimeoutError):
            return _TryAgainError(f"{via}nothing came for read_timeout = {self.read_timeout:g} s")
        if isinstance(error, NewConnectionError):
            return _TryAgainError(f"{via}can't connect: {cause}{_proxy_hint()}")
        if isinstance(error, ConnectTimeoutError):
            return _TryAgainError(f"{via}no connection within read_timeout = {self.read_timeout:g} s{_proxy_hint()}")
        return _TryAgainError(f"{via}{redact(str(cause or error))}")

    def __repr__(self) -> str:
        return f"Fetcher(timeout={self.timeout:g}, max_bytes={self.max_bytes}, downloads={self.downloads!r})"


class _TryAgainError(Exception):
    """A failure that a retry may resolve."""

    def __init__(self, reason: str, *, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait
        """Seconds of the server's Retry-After, or None."""


class _Connections:
    """The connection pool of this process. Copies and forked children make a new one: sockets can't be shared."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._pool: urllib3.PoolManager | None = None

    def pool(self) -> urllib3.PoolManager:
        if self._owner != os.getpid():
            self.__init__()  # type: ignore[misc]  # the parent's lock may have been held when it forked
        with self._lock:
            if self._pool is None:
                self._pool = new_pool()
            return self._pool

    def __reduce__(self) -> Any:
        return _Connections, ()


def _spent(response: urllib3.BaseHTTPResponse) -> bool:
    return isinstance(response, urllib3.HTTPResponse) and response.isclosed()


def _joined(base: str, location: str) -> str:
    try:
        return urljoin(base, location)
    except ValueError:  # an invalid IPv6 address; the next hop raises the error
        return location


def _drain(response: urllib3.BaseHTTPResponse) -> None:
    """Read the rest of a short response, so that its connection can be reused."""
    length = 0
    while length <= _DRAIN and (part := response.read(_DRAIN, decode_content=False)):
        length += len(part)


def _proxy_hint() -> str:
    """Return a hint for machines behind a proxy."""
    for name in ("https_proxy", "http_proxy", "all_proxy"):
        if os.environ.get(name) or os.environ.get(name.upper()):
            return f" ({name.upper()} is set, but proxies are not used)"
    return ""


@cache
def _version() -> str:
    try:
        return metadata.version("calotype")
    except metadata.PackageNotFoundError:
        return "0"
