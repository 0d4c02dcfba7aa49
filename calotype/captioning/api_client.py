"""`ApiClient`: JSON requests to an OpenAI-compatible HTTP server, with retries."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, NameResolutionError, NewConnectionError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError
from urllib3.util import Timeout, Url, parse_url

from calotype.core.retry import FIRST_WAIT, backoff, retry_after
from calotype.errors import CaptionError, ConfigError
from calotype.images.connect import new_pool, within

__all__ = ["ADDRESSES", "ApiClient", "NotFoundError", "RequestFailedError"]

ADDRESSES: Final = (
    "vLLM and transformers serve listen at http://localhost:8000/v1, Ollama at http://localhost:11434/v1, LM Studio at "
    "http://localhost:1234/v1, llama.cpp at http://localhost:8080/v1"
)

_LONGEST_WAIT: Final = 20.0
_BUSY: Final = frozenset((429, 503))
"""The server is overloaded or still starting; the request is not at fault."""
_TRANSIENT: Final = frozenset((408, 409, 425))
_MAX_ANSWER: Final = 16 << 20
"""Maximum bytes of a response. A caption has a few hundred."""

T = TypeVar("T")


class RequestFailedError(Exception):
    """One request failed after all retries; others may succeed.

    Args:
        reason: What happened, as a readable message.
        kind: `timeout`, `refused` (the server rejects this request, 4xx) or `failed`.
    """

    def __init__(self, reason: str, *, kind: str) -> None:
        super().__init__(reason)
        self.kind = kind


class NotFoundError(CaptionError):
    """The server has nothing at this path (404, 405), or lacks the requested model."""


class ApiClient:
    """A client of one server. Thread-safe.

    A request that fails because of the server or the network (5xx, timeout, broken connection, invalid response) is
    retried up to `retries` times, with exponential backoff or the server's `Retry-After`. While the server is busy
    (429, 503), a request waits up to `patience` seconds in all without using retries; `Retry-After` delays all threads.

    Args:
        url: Base URL of the API: `http://localhost:8000/v1`. A host alone means `/v1` there.
        key: Sent as `Authorization: Bearer …`, unless None. Redirects are not followed, so no other host gets it.
        key_from: Where the key was read from, for the error about a missing or wrong key.
        timeout: Seconds per attempt, including generation.
        retries: Attempts after the first.
        patience: Maximum seconds that one request waits for a busy server.
        connections: Size of the connection pool.

    Raises:
        ConfigError: The URL is not valid, or an option is out of its range.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None,
        key_from: str,
        timeout: float,
        retries: int,
        patience: float,
        connections: int,
    ) -> None:
        for name, value, least in (("timeout", timeout, 0.001), ("retries", retries, 0), ("patience", patience, 0)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
                raise ConfigError(f"{name}: found {value!r}, expected a number of at least {least}")
        self.url = _api(url)
        self.timeout, self.retries, self.patience = timeout, retries, patience
        self._key, self._key_from = key, key_from
        self._pool = new_pool(hosts=1, connections=connections)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._not_before = 0.0  # time.monotonic() before which no request is sent to a busy server

    def get(self, path: str, read: Callable[[Any], T]) -> T:
        """Send `GET url/path`, and return its JSON parsed by `read`. At most two attempts. Raises as `post` does."""
        return self._ask("GET", path, None, read, retries=min(1, self.retries))

    def post(self, path: str, body: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        """Send `POST url/path`, and return its JSON parsed by `read`.

        Args:
            path: Path below the URL.
            body: The request, as JSON.
            read: Parses the response; a ValueError means an invalid one, which is retried.

        Raises:
            RequestFailedError: This request failed.
            CaptionError: No request can succeed: the server is unreachable, has no such API, or needs a key.
        """
        return self._ask("POST", path, json.dumps(body).encode(), read, retries=self.retries)

    def close(self) -> None:
        """Interrupt waits and close connections; requests in progress raise a CaptionError."""
        self._closed.set()
        self._pool.clear()

    def _ask(self, method: str, path: str, data: bytes | None, read: Callable[[Any], T], *, retries: int) -> T:
        """Send a request until it succeeds or its retries are used up."""
        failures = refusals = 0
        busy_since: float | None = None
        while True:
            self._sleep(self._not_before - time.monotonic())
            try:
                return self._try(method, path, data, read)
            except _TryAgainError as problem:
                reason, again = str(problem), problem
            # Busy server: wait without using a retry, up to `patience` seconds.
            now = time.monotonic()
            if again.busy:
                refusals += 1
                busy_since = now if busy_since is None else busy_since
                wait = (
                    max(again.wait, FIRST_WAIT) if again.wait is not None else backoff(refusals, longest=_LONGEST_WAIT)
                )
                if now + wait > busy_since + self.patience:
                    raise RequestFailedError(f"{reason}: longer than patience = {self.patience:g} s", kind="failed")
                if again.wait is not None:
                    with self._lock:
                        self._not_before = max(self._not_before, now + wait)
                self._sleep(wait)
                continue
            # Other failures: retry with backoff.
            failures += 1
            if failures > retries:
                reason += f" (tried {failures} time{'s' if failures > 1 else ''})"
                raise (
                    CaptionError(f"{self.url}: {reason}")
                    if again.unreachable
                    else RequestFailedError(reason, kind=again.kind)
                )
            self._sleep(backoff(failures, longest=_LONGEST_WAIT, server_wait=again.wait))

    def _sleep(self, seconds: float) -> None:
        if self._closed.wait(max(0.0, seconds)):
            raise CaptionError(f"{self.url}: closed")

    def _try(self, method: str, path: str, data: bytes | None, read: Callable[[Any], T]) -> T:
        with within(time.monotonic() + self.timeout, allow_private=True):
            response: urllib3.BaseHTTPResponse | None = None
            try:
                response = self._pool.request(
                    method,
                    f"{self.url}/{path}",
                    body=data,
                    headers=self._headers(data is not None),
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    timeout=Timeout(self.timeout),
                )
                answer = response.read(_MAX_ANSWER)  # a longer one is cut off, and is then not valid JSON
            except HTTPError as error:
                raise self._judged(error) from error
            finally:
                if response is not None:
                    response.close()  # closes a connection with unread data; others return to the pool
        if response.status != 200:
            raise self._refused(response, answer, path)
        try:
            return read(json.loads(answer))
        except (ValueError, RecursionError) as error:
            raise _TryAgainError(f"the server's response is not valid: {error}") from error

    def _headers(self, with_body: bool) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if with_body:
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return headers

    def _refused(self, response: urllib3.BaseHTTPResponse, answer: bytes, path: str) -> Exception:
        """Return the exception for a status other than 200: retry, failed request, or end of the run."""
        status, said = response.status, self._message(answer)
        reason = f"the server answered {status} {response.reason or ''}".rstrip() + (f": {said}" if said else "")
        if status in _BUSY or status in _TRANSIENT or status >= 500:
            return _TryAgainError(reason, wait=retry_after(response), busy=status in _BUSY)
        if 300 <= status < 400:
            return CaptionError(
                f"{self.url}: it redirects to {response.headers.get('location')}, and redirects are not followed; set "
                "url to the final address"
            )
        if status in (401, 403):
            sent = "the key" if self._key else "no key was sent: it"
            return CaptionError(f"{self.url}: {reason} ({sent} is taken from {self._key_from})")
        if status in (404, 405):
            return NotFoundError(f"{reason} (to {path})")
        return RequestFailedError(reason, kind="refused")

    def _judged(self, error: HTTPError) -> Exception:
        """Return the exception for a failure below HTTP."""
        cause = error.__cause__ or (error.args[0] if error.args else None)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CaptionError(
                f"{self.url}: its TLS certificate is not trusted: {cause.verify_message}; set SSL_CERT_FILE to a "
                "file of more certificates"
            )
        if isinstance(error, NameResolutionError):
            return CaptionError(f"{self.url}: the host name does not resolve")
        if isinstance(error, NewConnectionError):
            return _TryAgainError(f"no server is listening ({cause}); is it running? {ADDRESSES}", unreachable=True)
        if isinstance(error, HTTPTimeoutError):
            return _TryAgainError(f"no complete response within timeout = {self.timeout:g} s", kind="timeout")
        return _TryAgainError(f"the connection broke: {cause or error}")

    def _message(self, answer: bytes) -> str:
        """Return the error message in a response."""
        try:
            said = json.loads(answer)
        except ValueError:
            said = answer.decode("utf-8", "replace")
        for key in ("error", "message", "detail"):
            if isinstance(said, dict) and said.get(key):
                said = said[key]
        text = " ".join((said if isinstance(said, str) else json.dumps(said)).split())
        if self._key:
            text = text.replace(self._key, "***")
        return text if len(text) <= 300 else f"{text[:299]}…"

    def __repr__(self) -> str:
        return f"ApiClient({self.url!r})"


class _TryAgainError(Exception):
    """A transient failure."""

    def __init__(
        self,
        reason: str,
        *,
        kind: str = "failed",
        wait: float | None = None,
        busy: bool = False,
        unreachable: bool = False,
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.wait = wait
        """Seconds of `Retry-After`; None without one."""
        self.busy = busy
        self.unreachable = unreachable
        """Whether there is no connection, so that other requests would fail, too."""


def _api(url: str) -> str:
    """Return the base URL of the API for a URL as users enter it."""
    try:
        parsed: Url = parse_url(str(url).strip())
    except LocationParseError:
        parsed = Url()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"url: found {url!r}, expected http://… or https://…. {ADDRESSES}")
    if parsed.auth:
        raise ConfigError("url: it contains a name or password; set the key in an environment variable instead")
    path = (parsed.path or "").rstrip("/")
    for ending in ("/chat/completions", "/models"):
        path = path.removesuffix(ending)
    return parsed._replace(path=path or "/v1", query=None, fragment=None).url
