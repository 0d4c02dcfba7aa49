"""`ApiClient`: JSON to and from an OpenAI-compatible HTTP server; what fails is sent again as long as that can help."""

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
    "vLLM and transformers serve answer at http://localhost:8000/v1, Ollama at http://localhost:11434/v1, LM Studio at "
    "http://localhost:1234/v1, llama.cpp at http://localhost:8080/v1"
)

_LONGEST_WAIT: Final = 20.0
_BUSY: Final = frozenset((429, 503))
"""The server has too much to do, or is still starting: not the fault of what it was asked."""
_PASSING: Final = frozenset((408, 409, 425))
_MAX_ANSWER: Final = 16 << 20
"""Bytes. A caption is some hundred."""

T = TypeVar("T")


class RequestFailedError(Exception):
    """One request came to nothing, after as many tries as were allowed; others may fare better.

    Args:
        reason: What happened, for a person.
        kind: `timeout`, `refused` (the server does not want this request, 4xx) or `failed`.
    """

    def __init__(self, reason: str, *, kind: str) -> None:
        super().__init__(reason)
        self.kind = kind


class NotFoundError(CaptionError):
    """The server answers, and has nothing at this path (404, 405), or not the model that was asked for."""


class ApiClient:
    """Speaks to one server. Safe from any number of threads.

    A request that fails as the server's or the network's fault (5xx, a time-out, a connection that breaks, an answer
    that makes no sense) is sent again up to `retries` times, after waits that double or that the server asks for. One
    that is sent back because the server is busy (429, 503) waits without losing a try, up to `patience` seconds in all;
    where the server names a time, nobody asks it before.

    Args:
        url: Where the API begins: `http://localhost:8000/v1`. A host alone is taken to have it at `/v1`.
        key: Sent as `Authorization: Bearer …`; None sends nothing. No other host gets it: redirects are not followed.
        key_from: Where keys come from, for a person whose key is missing or wrong.
        timeout: Seconds that one try may take in all, the model's thinking included.
        retries: Tries after the first.
        patience: Seconds that one request waits for a busy server at most.
        connections: Kept alive at once.

    Raises:
        ConfigError: The URL is none, or an option is out of its range.
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
                raise ConfigError(f"{name}: a number of at least {least} was expected, found {value!r}")
        self.url = _api(url)
        self.timeout, self.retries, self.patience = timeout, retries, patience
        self._key, self._key_from = key, key_from
        self._pool = new_pool(hosts=1, connections=connections)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._not_before = 0.0  # on the clock of time.monotonic: a busy server wants to hear nothing until then

    def get(self, path: str, read: Callable[[Any], T]) -> T:
        """What `read` makes of the JSON that `GET url/path` gives, tried twice at most. Raises as `post` does."""
        return self._ask("GET", path, None, read, retries=min(1, self.retries))

    def post(self, path: str, body: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        """What `read` makes of the JSON that `POST url/path` gives.

        Args:
            path: Below the URL.
            body: What to send, as JSON.
            read: Raises a ValueError about an answer that makes no sense, which is then asked for again.

        Raises:
            RequestFailedError: This request came to nothing.
            CaptionError: No request can come to anything: nobody listens there, it is no such API, it wants a key.
        """
        return self._ask("POST", path, json.dumps(body).encode(), read, retries=self.retries)

    def close(self) -> None:
        """Ends waiting and connections; requests that are under way fail with a CaptionError."""
        self._closed.set()
        self._pool.clear()

    def _ask(self, method: str, path: str, data: bytes | None, read: Callable[[Any], T], *, retries: int) -> T:
        failures = refusals = 0
        busy_since: float | None = None
        while True:
            self._sleep(self._not_before - time.monotonic())
            try:
                return self._try(method, path, data, read)
            except _TryAgainError as problem:
                reason, again = str(problem), problem
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
            failures += 1
            if failures > retries:
                reason += f" (tried {failures} time{'s' if failures > 1 else ''})"
                raise (
                    CaptionError(f"{self.url}: {reason}") if again.gone else RequestFailedError(reason, kind=again.kind)
                )
            wait = backoff(failures, longest=_LONGEST_WAIT) if again.wait is None else min(again.wait, _LONGEST_WAIT)
            self._sleep(wait)

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
                answer = response.read(_MAX_ANSWER)  # no longer one is wanted: what is cut off is no JSON
            except HTTPError as error:
                raise self._judged(error) from error
            finally:
                if response is not None:
                    response.close()  # gives up what was not read to its end; the rest is in the pool already
        if response.status != 200:
            raise self._refused(response, answer, path)
        try:
            return read(json.loads(answer))
        except (ValueError, RecursionError) as error:
            raise _TryAgainError(f"the server's answer makes no sense: {error}") from error

    def _headers(self, with_body: bool) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if with_body:
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return headers

    def _refused(self, response: urllib3.BaseHTTPResponse, answer: bytes, path: str) -> Exception:
        """What an answer other than 200 means: trying again, the end of this request, or that of all."""
        status, said = response.status, self._message(answer)
        reason = f"the server answered {status} {response.reason or ''}".rstrip() + (f": {said}" if said else "")
        if status in _BUSY or status in _PASSING or status >= 500:
            return _TryAgainError(reason, wait=retry_after(response), busy=status in _BUSY)
        if 300 <= status < 400:
            return CaptionError(
                f"{self.url}: it redirects to {response.headers.get('location')}, and redirects are not followed; give "
                "the right address"
            )
        if status in (401, 403):
            sent = "the key" if self._key else "no key was sent: it"
            return CaptionError(f"{self.url}: {reason} ({sent} is taken from {self._key_from})")
        if status in (404, 405):
            return NotFoundError(f"{reason} (to {path})")
        return RequestFailedError(reason, kind="refused")

    def _judged(self, error: HTTPError) -> Exception:
        """What a failure below HTTP means."""
        cause = error.__cause__ or (error.args[0] if error.args else None)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CaptionError(
                f"{self.url}: its TLS certificate is not trusted: {cause.verify_message}; SSL_CERT_FILE can name a "
                "file with further certificates"
            )
        if isinstance(error, NameResolutionError):
            return CaptionError(f"{self.url}: the name of its host does not resolve")
        if isinstance(error, NewConnectionError):
            return _TryAgainError(f"nobody answers there ({cause}); is the server running? {ADDRESSES}", gone=True)
        if isinstance(error, HTTPTimeoutError):
            return _TryAgainError(f"no whole answer within timeout = {self.timeout:g} s", kind="timeout")
        return _TryAgainError(f"the connection broke: {cause or error}")

    def _message(self, answer: bytes) -> str:
        """What a server says about an error, however it wraps it up."""
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
    """A failure that may pass."""

    def __init__(
        self,
        reason: str,
        *,
        kind: str = "failed",
        wait: float | None = None,
        busy: bool = False,
        gone: bool = False,
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.wait = wait
        """Seconds that the server asks for; None where it does not."""
        self.busy = busy
        self.gone = gone
        """Nobody is there: no other request would fare better."""


def _api(url: str) -> str:
    """Where the API begins, from an address as people paste it."""
    try:
        parsed: Url = parse_url(str(url).strip())
    except LocationParseError:
        parsed = Url()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"url: http://… or https://… was expected, found {url!r}. {ADDRESSES}")
    if parsed.auth:
        raise ConfigError("url: it holds a name or password; put the key into an environment variable instead")
    path = (parsed.path or "").rstrip("/")
    for ending in ("/chat/completions", "/models"):
        path = path.removesuffix(ending)
    return parsed._replace(path=path or "/v1", query=None, fragment=None).url
