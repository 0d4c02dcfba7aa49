"""`Guard`: ASGI middleware that authorizes requests, limits their bodies, and sets the security headers of responses.

Every page that is open in the browser and every user of the machine can reach a server on the loopback address.
`Guard` checks:

- a random token, which only the browser's cookie has, against other users;
- `Host`, against DNS rebinding;
- `Origin` and `Sec-Fetch-Site`, against requests of other pages, which carry the cookie too (a page on another port of
  this machine is the same "site", so `SameSite` is not enough).

Other users may read a URL in the process list or the browser's history. So the printed URL has a code that is valid
once, and is exchanged for the cookie.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["MAX_BODY_BYTES", "Codes", "Guard", "error", "new_token"]

MAX_BODY_BYTES: Final = 1 << 20
"""Maximum bytes of a request body. They are counted while reading, too: the length header may be missing."""

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_READS: Final = ("GET", "HEAD")

_NO_TOKEN: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>calotype studio</title>
<h1>calotype studio</h1>
<p>This page needs the newest address that <code>calotype studio</code> printed, with its <code>?code=…</code>: each
lets one browser in, once.</p>
</html>
"""


def new_token() -> str:
    """Return a random token of 256 bits."""
    return secrets.token_urlsafe(32)


def error(status: int, kind: str, message: str, **more: object) -> JSONResponse:
    """Return an error response, in the format of all errors."""
    return JSONResponse({"error": {"kind": kind, "message": message, **more}}, status_code=status)


class Codes:
    """Single-use codes, one at a time.

    Args:
        used: Called with the next code each time a code is used.
    """

    def __init__(self, used: Callable[[str], None] = lambda code: None) -> None:
        self.current = new_token()
        self._used = used

    def use(self, code: str) -> bool:
        """Check a code; a valid one is replaced by the next."""
        if not hmac.compare_digest(code.encode(), self.current.encode()):
            return False
        self.current = new_token()
        self._used(self.current)
        return True


class Guard:
    """ASGI middleware around the whole app.

    Args:
        app: Handles the authorized requests.
        token: Token of this run of the server.
        codes: Codes that are exchanged for the cookie with the token.
        port: The server's port.
    """

    def __init__(self, app: ASGIApp, *, token: str, codes: Codes, port: int) -> None:
        self._app, self._token, self._codes = app, token, codes
        self._hosts = frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost"))
        self._cookie = f"calotype-studio-{port}"  # cookies ignore ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # websockets are not supported
        answer = self._refusal(scope) or self._app
        await answer(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the response to a request that is not passed to the app; None for others."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return error(403, "host", "this is not the address of calotype studio")
        given = parse_qs(scope["query_string"].decode("latin-1")).get("code")
        if scope["path"] == "/" and given and scope["method"] == "GET":
            return self._enter(given[0], hosts[0], headers)
        if any(origin != f"http://{hosts[0]}" for origin in headers.getlist("origin")):
            return error(403, "origin", "the request comes from another page")
        # `none`: the URL was typed, or opened by another program. Such requests may only read.
        allowed = ("same-origin", "none") if scope["method"] in _READS else ("same-origin",)
        if headers.get("sec-fetch-site", "same-origin") not in allowed:
            return error(403, "origin", "the request comes from another page")
        if not self._knows_token(headers):
            if scope["path"] == "/":
                return HTMLResponse(_NO_TOKEN, status_code=401)
            return error(401, "token", "the token is missing: open the address that calotype studio printed")
        if scope["method"] in _READS:
            return None
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return error(415, "media_type", "expected a body of Content-Type application/json")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            return error(413, "too_large", f"the body is larger than {MAX_BODY_BYTES:,} bytes: send it in parts")
        return None

    def _enter(self, code: str, host: str, headers: Headers) -> Response:
        answer = RedirectResponse(f"http://{host}/", status_code=303)
        if self._knows_token(headers):  # the same URL again in the same browser
            return answer
        if not self._codes.use(code):
            return HTMLResponse(_NO_TOKEN, status_code=401)
        answer.set_cookie(self._cookie, self._token, path="/", httponly=True, samesite="strict")
        return answer

    def _knows_token(self, headers: Headers) -> bool:
        given = [headers.get("authorization", "").removeprefix("Bearer ")]
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        if self._cookie in cookies:
            given.append(cookies[self._cookie].value)
        return any(hmac.compare_digest(one.encode(), self._token.encode()) for one in given)


def _with_headers(send: Send) -> Send:
    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return add
