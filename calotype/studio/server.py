"""The server: static files, images and the API behind the guard, on a loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from calotype.errors import ConfigError
from calotype.studio.api import ERROR_HANDLERS, api_routes
from calotype.studio.connections import new_server
from calotype.studio.guard import Codes, Guard, new_token
from calotype.studio.studio import Studio
from calotype.studio.thumbnails import image_version, stamp
from calotype.types import ImageRef

__all__ = ["create_app", "serve"]

_TYPES: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}
_PAGE: Final = Path(__file__).with_name("page")
_PALETTE: Final = Path(__file__).parent.with_name("previews") / "palette.css"
"""The palette of the preview page, whose package imports torch."""
_IMMUTABLE: Final = "private, max-age=31536000, immutable"
_REVALIDATE: Final = "private, no-cache"


def create_app(studio: Studio, *, token: str, codes: Codes, port: int) -> ASGIApp:
    """Return the ASGI app.

    Args:
        studio: Started and stopped with the app.
        token: Token that authorizes requests.
        codes: Codes that are exchanged for the token.
        port: The port of the app.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        studio.start()
        asyncio.get_running_loop().run_in_executor(None, studio.thumbnails.prune)
        try:
            yield
        finally:
            await asyncio.to_thread(studio.stop)

    images = _Images(studio)
    app = Starlette(
        routes=[
            Route("/", _file(_PAGE / "index.html")),
            *(Route(f"/static/{file.name}", _file(file)) for file in _static_files()),
            Route("/thumb/{number}", images.thumbnail),
            Route("/image/{number}", images.view),
            *api_routes(studio),
        ],
        exception_handlers=ERROR_HANDLERS,
        lifespan=lifespan,
    )
    return Guard(app, token=token, codes=codes, port=port)


def serve(
    studio: Studio, *, port: int = 0, ready: Callable[[str], None], again: Callable[[str], None] = lambda address: None
) -> None:
    """Serve until Ctrl-C.

    Args:
        studio: The dataset under review.
        port: On 127.0.0.1; 0 picks a free one.
        ready: Called with the URL to open, once the port is bound. The URL is valid for one browser.
        again: Called with the URL for the next browser, each time a URL is used.

    Raises:
        ConfigError: The port can't be bound.
    """
    with _listen(port) as listening:
        port = listening.getsockname()[1]

        def address(code: str) -> str:
            return f"http://127.0.0.1:{port}/?code={code}"

        codes = Codes(lambda code: again(address(code)))
        server = new_server(create_app(studio, token=new_token(), codes=codes, port=port))
        listening.listen(128)  # connections queue until the server runs
        ready(address(codes.current))
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn shuts down, then raises it again
            server.run(sockets=[listening])


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it allows two servers on one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"--port: 127.0.0.1:{port} can't be bound: {error.strerror}; set another --port, or 0 for a free one"
        ) from error
    return listening


def _static_files() -> list[Path]:
    return [*(file for file in _PAGE.iterdir() if file.suffix in _TYPES), _PALETTE]


def _file(file: Path) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint for a static file, which is read once, when the server starts."""
    data, media_type = file.read_bytes(), _TYPES[file.suffix]

    async def endpoint(request: Request) -> Response:
        return Response(data, media_type=media_type, headers={"Cache-Control": _REVALIDATE})

    return endpoint


class _Images:
    """Serves images by row number."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._turns = asyncio.Semaphore(os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="calotype-studio-images")

    async def thumbnail(self, request: Request) -> Response:
        """Return a JPEG of at most 320 pixels per side."""
        return await self._answer(request, self._studio.thumbnails.thumbnail)

    async def view(self, request: Request) -> Response:
        """Return a JPEG of at most 2048 pixels per side."""
        return await self._answer(request, self._studio.thumbnails.view)

    async def _answer(self, request: Request, make: Callable[[ImageRef], bytes]) -> Response:
        digits = request.path_params["number"]
        number = int(digits) if digits.isdecimal() and len(digits) < 12 else len(self._studio.rows)
        if number >= len(self._studio.rows):
            raise HTTPException(404)
        ref = self._studio.rows.refs[number]
        version = image_version(ref, stamp(ref))
        headers = {
            "ETag": f'"{version}"',
            "Cache-Control": _IMMUTABLE if request.query_params.get("v") == version else _REVALIDATE,
        }
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        async with self._turns:
            if await request.is_disconnected():  # the page has scrolled on
                return Response(status_code=499)
            data = await asyncio.get_running_loop().run_in_executor(self._pool, make, ref)
        return Response(data, media_type="image/jpeg", headers=headers)
