"""The server: the page's files, the images, the routes of the API, behind the guard, on a loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.resources import files
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
from calotype.studio.pictures import picture_version, stamp
from calotype.studio.studio import Studio
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
_PALETTE: Final = Path(str(files("calotype.previews").joinpath("palette.css")))
"""The studio wears the preview page's colours."""
_FOR_EVER: Final = "private, max-age=31536000, immutable"
_ASK_AGAIN: Final = "private, no-cache"


def create_app(studio: Studio, *, token: str, codes: Codes, port: int) -> ASGIApp:
    """The whole thing as an ASGI app.

    Args:
        studio: Is started and stopped with the app.
        token: Whoever has it may ask.
        codes: Whoever has one gets the token.
        port: Where the app will listen.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        studio.start()
        asyncio.get_running_loop().run_in_executor(None, studio.pictures.prune)
        try:
            yield
        finally:
            await asyncio.to_thread(studio.stop)

    shown = _Shown(studio)
    app = Starlette(
        routes=[
            Route("/", _file(_PAGE / "index.html")),
            *(Route(f"/static/{file.name}", _file(file)) for file in _static_files()),
            Route("/thumb/{number}", shown.thumbnail),
            Route("/picture/{number}", shown.view),
            *api_routes(studio),
        ],
        exception_handlers=ERROR_HANDLERS,
        lifespan=lifespan,
    )
    return Guard(app, token=token, codes=codes, port=port)


def serve(
    studio: Studio, *, port: int = 0, ready: Callable[[str], None], again: Callable[[str], None] = lambda address: None
) -> None:
    """Serves until Ctrl-C.

    Args:
        studio: What to serve.
        port: On 127.0.0.1; 0 takes a free one.
        ready: Called with the address to open, once the port is ours. It lets one browser in.
        again: Called with the address for the next one, when an address has been used.

    Raises:
        ConfigError: The port is taken, or not to be had.
    """
    with _listen(port) as listening:
        port = listening.getsockname()[1]

        def address(code: str) -> str:
            return f"http://127.0.0.1:{port}/?code={code}"

        codes = Codes(lambda code: again(address(code)))
        server = new_server(create_app(studio, token=new_token(), codes=codes, port=port))
        listening.listen(128)  # whoever opens the address before the server runs waits for it
        ready(address(codes.current))
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn ends well, and then raises what ended it
            server.run(sockets=[listening])


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two servers have one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"--port: 127.0.0.1:{port} can't be had: {error.strerror}; --port names another, 0 takes any that is free"
        ) from error
    return listening


def _static_files() -> list[Path]:
    return [*(file for file in _PAGE.iterdir() if file.suffix in _TYPES), _PALETTE]


def _file(file: Path) -> Callable[[Request], Awaitable[Response]]:
    """One of the page's own files, as it was when the server started."""
    data, media_type = file.read_bytes(), _TYPES[file.suffix]

    async def endpoint(request: Request) -> Response:
        return Response(data, media_type=media_type, headers={"Cache-Control": _ASK_AGAIN})

    return endpoint


class _Shown:
    """Gives images by the numbers of rows."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._turns = asyncio.Semaphore(os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="calotype-studio-pictures")

    async def thumbnail(self, request: Request) -> Response:
        """At most 320 pixels a side."""
        return await self._answer(request, self._studio.pictures.thumbnail)

    async def view(self, request: Request) -> Response:
        """At most 2048 pixels a side."""
        return await self._answer(request, self._studio.pictures.view)

    async def _answer(self, request: Request, make: Callable[[ImageRef], bytes]) -> Response:
        digits = request.path_params["number"]
        number = int(digits) if digits.isdecimal() and len(digits) < 12 else len(self._studio.rows)
        if number >= len(self._studio.rows):
            raise HTTPException(404)
        ref = self._studio.rows.refs[number]
        version = picture_version(ref, stamp(ref))
        headers = {
            "ETag": f'"{version}"',
            "Cache-Control": _FOR_EVER if request.query_params.get("v") == version else _ASK_AGAIN,
        }
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        async with self._turns:
            if await request.is_disconnected():  # scrolled away
                return Response(status_code=499)
            data = await asyncio.get_running_loop().run_in_executor(self._pool, make, ref)
        return Response(data, media_type="image/jpeg", headers=headers)
