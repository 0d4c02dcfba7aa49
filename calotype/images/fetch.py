"""`Fetcher`: fetch images by http(s) URL, within limits of time, size and addresses."""

from __future__ import annotations

import os
import socket
import ssl
import time
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING
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
from calotype.images.ahead import FetchAhead
from calotype.images.connect import PrivateAddressError, redact, within
from calotype.images.formats import HEAD, sniff
from calotype.images.hosts import HostDownError
from calotype.images.network import Network
from calotype.images.ranges import Part, content_range, is_encoded, is_usable

if TYPE_CHECKING:
    from calotype.config.dataset import DatasetConfig
    from calotype.images.downloads import Downloads

__all__ = ["Fetcher"]

_RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_CHUNK = 256 * 1024
_DRAIN = 64 * 1024  # bytes of an error page that are read to reuse its connection
_LONGEST_WAIT = 30.0  # seconds between two attempts, whatever Retry-After asks for
_CONNECT = 5.0  # seconds for a connection: a lost packet is sent again after 1 and 3
_WORTH_CLOSING = 16  # a body so many times as long as the wanted part is not read to its end


class Fetcher:
    """Fetches images by URL. Thread-safe; picklable (a copy starts without connections).

    Threads share kept-alive connections and one TLS context. Each hop of a redirect is checked like the first URL.
    Proxy settings in the environment are not used: a proxy resolves names itself, which evades the check of addresses.

    Args:
        downloads: Cache of fetched images; None fetches each time.
        timeout: Seconds for one URL in all, with redirects, retries and waits. Name resolution counts, but can't be
            interrupted.
        read_timeout: Seconds to wait for the next bytes; and for a connection, at most 5.
        max_bytes: Largest body, by its Content-Length and by the bytes received, decompressed.
        max_redirects: Most redirects followed.
        retries: Retries after status 408, 425, 429, 500, 502, 503 or 504, a timeout, a refused or broken connection, or
            an incomplete body. Other statuses (403, 404, …) are final.
        allow_private: Also fetch from loopback, private, link-local and reserved addresses. By default these are
            errors: an untrusted data file must not read what only this machine can reach.
        user_agent: The User-Agent header; None is `calotype/<version>`.
        connections: Images fetched at a time by those that fetch many: scans, loaders, conversions.
        connections_per_host: Requests to one host at a time. If it asks for a pause with Retry-After, all wait; if it
            does not answer (`Hosts` says for how long), its images fail at once.

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
        connections: int = 32,
        connections_per_host: int = 32,
    ) -> None:
        for name, value, least in (
            ("timeout", timeout, 0.001),
            ("read_timeout", read_timeout, 0.001),
            ("max_bytes", max_bytes, 1),
            ("max_redirects", max_redirects, 0),
            ("retries", retries, 0),
            ("connections", connections, 1),
            ("connections_per_host", connections_per_host, 1),
        ):
            if not isinstance(value, int | float) or not value >= least:
                raise ConfigError(f"{name}: expected a number of at least {least}, not {value!r}")
        self.downloads = downloads
        self.timeout = timeout
        self.read_timeout = read_timeout
        self._connect_timeout = min(read_timeout, _CONNECT)
        self.max_bytes = max_bytes
        self.max_redirects = max_redirects
        self.retries = retries
        self.allow_private = allow_private
        self.user_agent = user_agent if user_agent is not None else f"calotype/{_version()}"
        self.connections = connections
        self.connections_per_host = connections_per_host
        self._network = Network(connections, connections_per_host)

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

    @property
    def ahead(self) -> FetchAhead:
        """Fetches ahead for all readers of this process with this fetcher."""
        return self._network.ahead()

    def has(self, url: str) -> bool:
        """Whether the image is in the cache of downloads."""
        return self.downloads is not None and url in self.downloads

    def fetch(self, url: str) -> bytes:
        """Return the encoded image at `url` from the network. Raises as `get` does."""
        return self._fetch(url, None).data

    def fetch_part(self, url: str, start: int, stop: int) -> Part:
        """Return bytes `start` to `stop` - 1 of the image at `url`, fewer at its end, by a range request.

        A server without ranges sends the whole image: then the part begins at 0, and of a long image the connection is
        closed after `stop` bytes. What came whole goes to the cache. Raises as `get` does.
        """
        part = self._fetch(url, (start, stop))
        if self.downloads is not None and len(part.data) == part.total:
            self.downloads.get(url, lambda _: part.data)
        return part

    def _fetch(self, url: str, wanted: tuple[int, int] | None) -> Part:
        """Fetch an image, or its bytes (start, stop), with retries."""
        host, hosts = _host(url), self._network.hosts()
        deadline, tries, begun = 0.0, 0, 0.0
        reason = ""
        while True:
            try:
                with hosts.turn(host, retry=tries > 0):
                    begun = time.monotonic()
                    deadline = deadline or begun + self.timeout  # the wait for the first turn does not count
                    with within(deadline, allow_private=self.allow_private):
                        part = self._attempt(url, deadline, wanted)
                hosts.answered(host)
                return part
            except HostDownError as down:
                raise FetchError(redact(url), f"{reason}; {down}" if reason else str(down), why="host down") from None
            except _TryAgainError as problem:
                reason, why, server_wait = str(problem), problem.why, problem.wait
                if not why.isdecimal():  # the status of an answer
                    hosts.failed(host, begun, reason)
            except FetchError as final:
                if final.why == "timeout":
                    hosts.failed(host, begun, final.reason)
                raise
            tries += 1
            wait = backoff(tries, longest=_LONGEST_WAIT, server_wait=server_wait)
            after = f" (tried {tries} time{'s' if tries > 1 else ''})"
            if server_wait is not None:
                hosts.pause(host, wait)
            if tries > self.retries:
                raise FetchError(redact(url), reason + after, why=why)
            if time.monotonic() + wait >= deadline:
                reason = f"{reason}{after}; no more within timeout = {self.timeout:g} s"
                raise FetchError(redact(url), reason, why=why)
            time.sleep(wait)

    def _attempt(self, url: str, deadline: float, wanted: tuple[int, int] | None) -> Part:
        """Fetch once, following redirects."""
        where = url
        for _ in range(self.max_redirects + 1):
            response = self._request(where, url, deadline, wanted)
            try:
                if wanted is not None and not is_usable(response, wanted[0]):
                    _drain(response)
                    wanted = None  # the next request is for the whole image
                    continue
                if response.status not in (200, 206):
                    self._network.hosts().answered(_host(url))
                if response.status in _REDIRECTS and "location" in response.headers:
                    _drain(response)
                    where = _joined(where, response.headers["location"])
                    continue
                if response.status != 200 and not (response.status == 206 and wanted is not None):
                    _drain(response)
                    reason, why = f"the server answered {response.status} {response.reason or ''}", str(response.status)
                    if response.status in _RETRIED:
                        raise _TryAgainError(reason.rstrip(), why, wait=retry_after(response))
                    raise FetchError(redact(url), reason.rstrip(), why=why)
                return self._body(response, url, wanted)
            except HTTPError as error:
                raise self._error_for(error, url, deadline) from error
            finally:
                if not _spent(response):  # a response read to its end has released its connection
                    response.close()
        reason = f"it redirects more than max_redirects = {self.max_redirects} times"
        raise FetchError(redact(url), reason, why="redirects")

    def _request(
        self, where: str, url: str, deadline: float, wanted: tuple[int, int] | None
    ) -> urllib3.BaseHTTPResponse:
        """Send the request of one hop; return the response with its body unread."""
        via = "" if where == url else f"it redirects to {redact(where)}: "
        try:
            parsed = parse_url(where)
        except HTTPError as error:
            reason = f"{via}not a valid URL ({redact(str(error))})"
            raise FetchError(redact(url), reason, why="no valid URL") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            reason = f"{via}only http:// and https:// URLs with a host are fetched"
            raise FetchError(redact(url), reason, why="no valid URL")
        headers = {"User-Agent": self.user_agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
        if parsed.auth:  # never sent to another host: a redirect's URL has its own credentials, or none
            headers |= make_headers(basic_auth=unquote(parsed.auth))
        if wanted is not None:
            headers["Range"] = f"bytes={wanted[0]}-{wanted[1] - 1}"
        bare = parsed._replace(auth=None).url
        try:
            return self._network.pool().request(
                "GET",
                bare,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=Timeout(connect=self._connect_timeout, read=self.read_timeout),
            )
        except PrivateAddressError as error:
            raise FetchError(redact(url), f"{via}{error}", why="private address") from None
        except HTTPError as error:
            raise self._error_for(error, url, deadline, via=via) from error
        except ValueError as error:  # a header or path that http.client refuses
            raise FetchError(redact(url), f"{via}{redact(str(error))}", why="no valid URL") from None

    def _body(self, response: urllib3.BaseHTTPResponse, url: str, wanted: tuple[int, int] | None) -> Part:
        """Read the body of an image, or of a part of it."""
        announced = response.headers.get("content-length", "")
        total = int(announced) if announced.isdecimal() else None
        start = 0
        if (partial := content_range(response)) is not None:
            start, total = partial
        if total is not None and total > self.max_bytes:
            reason = f"it announces {total:,} bytes, more than max_bytes = {self.max_bytes:,}"
            raise FetchError(redact(url), reason, why="too large")
        # The end of a part: of a long body without ranges, no more is read.
        enough = self.max_bytes + 1
        if wanted is not None and partial is not None:
            enough = wanted[1] - start
        elif wanted is not None and total is not None and not is_encoded(response):
            enough = wanted[1] if total > _WORTH_CLOSING * wanted[1] else enough
        parts, length = [], 0
        while length < enough and (part := response.read(min(_CHUNK, enough - length), decode_content=True)):
            parts.append(part)
            length += len(part)
        if length > self.max_bytes:
            raise FetchError(redact(url), f"it has more than max_bytes = {self.max_bytes:,}", why="too large")
        data = b"".join(parts)
        if start == 0:
            try:
                sniff(data[:HEAD])
            except ValueError as error:
                kind = response.headers.get("content-type", "none")
                reason = f"the server answered {response.status} with Content-Type {kind}: {error}"
                raise FetchError(redact(url), reason, why="no image") from None
        return Part(data, start, total if total is not None and enough <= self.max_bytes else start + length)

    def _error_for(self, error: HTTPError, url: str, deadline: float, *, via: str = "") -> Exception:
        """Return the error for a failure: `_TryAgainError` if a retry can help, else `FetchError`."""
        if time.monotonic() >= deadline:
            reason = f"{via}it took longer than timeout = {self.timeout:g} s"
            return FetchError(redact(url), reason, why="timeout")
        cause = error.__cause__ or (error.args[0] if error.args else None)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return FetchError(
                redact(url),
                f"{via}its TLS certificate is not trusted: {cause.verify_message}; SSL_CERT_FILE can name "
                "a file with further certificates",
                why="TLS certificate",
            )
        if isinstance(error, NameResolutionError):
            again = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN
            reason = f"{via}its host name does not resolve ({cause})"
            return (
                _TryAgainError(reason, "no such host") if again else FetchError(redact(url), reason, why="no such host")
            )
        if isinstance(error, ReadTimeoutError):
            return _TryAgainError(f"{via}nothing came for read_timeout = {self.read_timeout:g} s", "timeout")
        if isinstance(error, NewConnectionError):
            return _TryAgainError(f"{via}can't connect: {cause}{_proxy_hint()}", "no connection")
        if isinstance(error, ConnectTimeoutError):
            reason = f"{via}no connection within {self._connect_timeout:g} s{_proxy_hint()}"
            return _TryAgainError(reason, "timeout")
        return _TryAgainError(f"{via}{redact(str(cause or error))}", "broken connection")

    def __repr__(self) -> str:
        return f"Fetcher(timeout={self.timeout:g}, max_bytes={self.max_bytes}, downloads={self.downloads!r})"


class _TryAgainError(Exception):
    """A failure that a retry may resolve."""

    def __init__(self, reason: str, why: str, *, wait: float | None = None) -> None:
        super().__init__(reason)
        self.why = why
        """As `ImageError.why`."""
        self.wait = wait
        """Seconds of the server's Retry-After, or None."""


def _host(url: str) -> str:
    """Return the host and port of a URL, without credentials."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2].lower()


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
