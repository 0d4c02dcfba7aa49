"""What the tests of images share: photos, colour profiles and TIFFs made here byte by byte, a misbehaving server."""

from __future__ import annotations

import gzip
import io
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calotype.types import ImageRef

# ---------------------------------------------------------------------------------------------------- colour profiles

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])
_D65_XY = (0.3127, 0.3290)


def _xyz(x: float, y: float) -> np.ndarray:
    return np.array([x / y, 1.0, (1 - x - y) / y])


@dataclass(frozen=True)
class Space:
    """An RGB colour space with a D65 white: chromaticities of red, green, blue, and its decoding curve."""

    name: str
    primaries: tuple[tuple[float, float], ...]
    curve: str  # "gamma" (Adobe RGB's 563/256) or "srgb"

    def to_xyz(self) -> np.ndarray:
        columns = np.stack([_xyz(*xy) for xy in self.primaries], axis=1)
        return columns * np.linalg.solve(columns, _xyz(*_D65_XY))

    def decode(self, values: np.ndarray) -> np.ndarray:
        if self.curve == "gamma":
            return values ** (563 / 256)
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)

    def profile(self, version: int = 2) -> bytes:
        """The matrix/TRC ICC profile (ICC.1:2001-04 for v2, ICC.1:2010 for v4)."""
        to_lms = _BRADFORD
        scale = np.diag((to_lms @ _D50) / (to_lms @ _xyz(*_D65_XY)))
        adapt = np.linalg.inv(to_lms) @ scale @ to_lms
        colorants = adapt @ self.to_xyz()
        tags = {
            b"desc": _text_v2(self.name) if version == 2 else _mluc(self.name),
            b"cprt": b"text\0\0\0\0none\0" if version == 2 else _mluc("none"),
            b"wtpt": b"XYZ \0\0\0\0" + _s15(_D50),
            b"rXYZ": b"XYZ \0\0\0\0" + _s15(colorants[:, 0]),
            b"gXYZ": b"XYZ \0\0\0\0" + _s15(colorants[:, 1]),
            b"bXYZ": b"XYZ \0\0\0\0" + _s15(colorants[:, 2]),
        }
        if version == 4:
            tags[b"chad"] = b"sf32\0\0\0\0" + _s15(adapt.ravel())
        trc = self._trc(version)
        return _icc(b"RGB ", b"XYZ ", tags | {b"rTRC": trc, b"gTRC": trc, b"bTRC": trc}, version)

    def _trc(self, version: int) -> bytes:
        if self.curve == "gamma":
            return b"curv\0\0\0\0" + struct.pack(">IH", 1, 563)  # u8Fixed8: 563/256
        if version == 4:  # parametric type 3: the sRGB curve
            return (
                b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + _s15([2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045])
            )
        table = np.round(self.decode(np.linspace(0, 1, 1024)) * 65535).astype(">u2")
        return b"curv\0\0\0\0" + struct.pack(">I", 1024) + table.tobytes()


SRGB = Space("sRGB", ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), "srgb")
ADOBE = Space("Adobe RGB (1998)", ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), "gamma")
P3 = Space("Display P3", ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), "srgb")


def to_srgb_by_hand(pixels: np.ndarray, space: Space) -> np.ndarray:
    """The slow obvious conversion: decode, matrix, clip, encode; float64 0 to 255."""
    linear = space.decode(pixels.astype(np.float64) / 255)
    matrix = np.linalg.inv(SRGB.to_xyz()) @ space.to_xyz()
    linear = np.clip(linear @ matrix.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return encoded * 255


def grey_profile(gamma: float) -> bytes:
    trc = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    tags = {
        b"desc": _text_v2(f"Grey {gamma}"),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + _s15(_D50),
        b"kTRC": trc,
    }
    return _icc(b"GRAY", b"XYZ ", tags, 2)


def colourless_cmyk_profile(*, colorimetric: bool = False) -> bytes:
    """A CMYK profile (lut8, two grid points a side) of inks that are all shades of grey: L* falls with the ink.

    With `colorimetric` it has a second table, for the intents that are not perceptual: there, all inks are black.
    """

    def lut(lightness: Callable[[int], int]) -> bytes:
        table = bytearray()
        for corner in range(16):  # the first channel (cyan) changes slowest
            ink = sum(corner >> bit & 1 for bit in range(4))
            table += bytes((lightness(ink), 128, 128))
        head = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + _s15([1, 0, 0, 0, 1, 0, 0, 0, 1])
        ramp = bytes(range(256))
        return head + ramp * 4 + bytes(table) + ramp * 3

    tags = {
        b"desc": _text_v2("Grey inks"),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + _s15(_D50),
        b"A2B0": lut(lambda ink: 255 - min(255, 85 * ink)),
    }
    if colorimetric:
        tags |= {b"A2B1": lut(lambda ink: 0), b"A2B2": lut(lambda ink: 0)}
    return _icc(b"CMYK", b"Lab ", tags, 2, kind=b"prtr")


def _s15(values: Any) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))


def _text_v2(text: str) -> bytes:
    ascii = text.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(ascii)) + ascii + bytes(4 + 4 + 2 + 1 + 67)


def _mluc(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded


def _icc(space: bytes, connection: bytes, tags: dict[bytes, bytes], version: int, kind: bytes = b"mntr") -> bytes:
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    total = start + len(body)
    header = struct.pack(">I4sI4s4s4s", total, bytes(4), version << 24, kind, space, connection)
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _s15(_D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


@pytest.fixture(scope="session")
def icc() -> Any:
    """Makers of colour profiles, and the conversion by hand."""

    class Makers:
        adobe, p3, srgb = ADOBE, P3, SRGB
        by_hand = staticmethod(to_srgb_by_hand)
        grey = staticmethod(grey_profile)
        colourless_cmyk = staticmethod(colourless_cmyk_profile)

    return Makers


# -------------------------------------------------------------------------------------------------------------- files


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A real photo, small, with sides that are no multiple of 8 or 16."""
    data = pytest.importorskip("skimage.data")
    return Image.fromarray(data.astronaut()).resize((203, 149), Image.Resampling.LANCZOS)


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    def encode(image: Image.Image, format: str, **options: Any) -> bytes:
        if format == "HEIF":
            pytest.importorskip("pillow_heif").register_heif_opener()
        file = io.BytesIO()
        image.save(file, format, **options)
        return file.getvalue()

    return encode


@pytest.fixture(scope="session")
def tiff() -> Callable[..., bytes]:
    """A writer of uncompressed one-strip TIFFs, for the kinds that Pillow can't write."""

    def write(
        pixels: np.ndarray, *, photometric: int, order: str = "<", extra: int | None = None, packed_12: bool = False
    ) -> bytes:
        height, width = pixels.shape[:2]
        samples = pixels.shape[2] if pixels.ndim == 3 else 1
        bits = pixels.dtype.itemsize * 8
        body = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        if packed_12:  # two pixels of 12 bits in three bytes, the high bits first; an even width
            bits, pairs = 12, pixels.reshape(-1, 2).astype(np.uint32)
            body = b"".join(int(a << 12 | b).to_bytes(3) for a, b in pairs)
        tags = [(256, 3, [width]), (257, 3, [height]), (258, 3, [bits] * samples), (259, 3, [1])]
        tags += [(262, 3, [photometric]), (273, 4, [8]), (277, 3, [samples]), (278, 3, [height]), (279, 4, [len(body)])]
        tags += [(338, 3, [extra])] if extra is not None else []
        ifd = 8 + len(body)
        late, entries = b"", b""
        for tag, kind, values in tags:
            packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
            if len(packed) > 4:
                where = ifd + 2 + 12 * len(tags) + 4 + len(late)
                late += packed
                packed = struct.pack(order + "I", where)
            entries += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
        head = b"II*\0" if order == "<" else b"MM\0*"
        return (
            head
            + struct.pack(order + "I", ifd)
            + body
            + struct.pack(order + "H", len(tags))
            + entries
            + bytes(4)
            + late
        )

    return write


@pytest.fixture
def ref(tmp_path: Path) -> Callable[..., ImageRef]:
    """Bytes → a reference to a file of them."""

    def make(data: bytes, name: str = "picture.bin") -> ImageRef:
        path = tmp_path / name
        path.write_bytes(data)
        return ImageRef(name=name, path=str(path))

    return make


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path / "calotype-cache"))


# ------------------------------------------------------------------------------------------------------------- server


@dataclass
class Server:
    """A real HTTP server on loopback that behaves as its paths say."""

    url: str
    picture: bytes
    requests: Counter[str] = field(default_factory=Counter)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of the last request for each path."""
    connections: int = 0
    """Accepted so far."""
    active: int = 0
    """Requests that wait for their answer."""
    most_active: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    closing: threading.Event = field(default_factory=threading.Event)
    gathered: threading.Condition = field(default_factory=threading.Condition)


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None: ...

        def send(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            headers = {"content_type": "image/jpeg", "content_length": str(len(body))} | headers
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def trickle(self, byte: bytes, pause: float) -> None:
            while not server.closing.wait(pause):
                self.wfile.write(byte)
                self.wfile.flush()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            server.requests[path] += 1
            server.headers[path] = {name.lower(): value for name, value in self.headers.items()}
            name, _, rest = path.strip("/").partition("/")
            try:
                getattr(self, f"do_{name}", self.do_missing)(rest)
            except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
                self.close_connection = True

        def do_missing(self, rest: str) -> None:
            self.send(404, b"<html>nothing here</html>", content_type="text/html")

        def do_picture(self, rest: str) -> None:
            self.send(200, server.picture)

        def do_ranged(self, rest: str) -> None:
            """`/ranged/a.png`: the image of that name, or the range of it that is asked for."""
            body = server.state["images"][rest]
            first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", "bytes=0-999999999")).groups()
            start, stop = int(first), min(int(last) + 1, len(body))
            server.state.setdefault("sent", []).append((rest, stop - start))
            if "range" not in self.headers:
                self.send(200, body)
            elif start >= len(body):
                self.send(416)
            else:
                self.send(206, body[start:stop], content_range=f"bytes {start}-{stop - 1}/{len(body)}")

        def do_odd(self, rest: str) -> None:
            server.state["odd"](self.send, self.headers)

        def do_together(self, rest: str) -> None:
            """`/together/32/a`: no answer before so many requests wait for one."""
            with server.gathered:
                server.active += 1
                server.most_active = max(server.active, server.most_active)
                server.gathered.notify_all()
                server.gathered.wait_for(lambda: server.most_active >= int(rest.split("/")[0]), timeout=20)
                server.active -= 1
            self.send(200, server.picture)

        def do_status(self, rest: str) -> None:
            self.send(int(rest), b"so it is")

        def do_flaky(self, rest: str) -> None:
            """`/flaky/503/2`: that status twice, then the image."""
            status, times = rest.split("/")[:2]
            after = server.state.get("retry_after")
            if server.requests[self.path] <= int(times):
                self.send(int(status), b"later", **({"retry_after": after} if after else {}))
            else:
                self.send(200, server.picture)

        def do_silent(self, rest: str) -> None:
            server.closing.wait(20)
            self.close_connection = True

        def do_slowbody(self, rest: str) -> None:
            self.send_response(200)
            self.send_header("content-length", "1000000")
            self.end_headers()
            self.wfile.write(server.picture[:100])
            self.trickle(b"x", 0.02)

        def do_slowheader(self, rest: str) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
            self.trickle(b"x", 0.02)

        def do_endless(self, rest: str) -> None:
            self.send_response(200)
            self.send_header("connection", "close")
            self.end_headers()
            self.close_connection = True
            self.wfile.write(server.picture)
            while not server.closing.is_set():
                self.wfile.write(bytes(65536))

        def do_huge(self, rest: str) -> None:
            self.send_response(200)
            self.send_header("content-length", str(10**12))
            self.end_headers()
            self.wfile.write(server.picture)
            self.close_connection = True

        def do_cut(self, rest: str) -> None:
            """`/cut/1`: the first time only half of what was announced comes; `/cut/99`: nearly always."""
            self.send_response(200)
            self.send_header("content-length", str(len(server.picture)))
            self.end_headers()
            half = server.requests[self.path] <= int(rest)
            self.wfile.write(server.picture[: len(server.picture) // 2] if half else server.picture)
            self.close_connection = half

        def do_cutchunk(self, rest: str) -> None:
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(f"{len(server.picture):x}\r\n".encode() + server.picture[:1000])
            self.close_connection = True

        def do_hangup(self, rest: str) -> None:
            """Promises to keep the connection, and closes it after a moment."""
            self.send(200, server.picture)
            self.close_connection = True

        def do_chunked(self, rest: str) -> None:
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for start in range(0, len(server.picture), 777):
                part = server.picture[start : start + 777]
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")

        def do_gzip(self, rest: str) -> None:
            self.send(200, gzip.compress(server.picture), content_encoding="gzip")

        def do_gzipbomb(self, rest: str) -> None:
            self.send(200, gzip.compress(server.picture + bytes(50_000_000)), content_encoding="gzip")

        def do_html(self, rest: str) -> None:
            self.send(200, b"<!DOCTYPE html><html>please log in</html>", content_type="text/html; charset=utf-8")

        def do_empty(self, rest: str) -> None:
            self.send(200)

        def do_mistyped(self, rest: str) -> None:
            self.send(200, server.picture, content_type="text/html")

        def do_loop(self, rest: str) -> None:
            self.send(302, location=self.path)

        def do_hops(self, rest: str) -> None:
            """`/hops/3`: three redirects, then the image."""
            self.send(302, location=f"/hops/{int(rest) - 1}" if int(rest) > 1 else "/picture/hopped")

        def do_to(self, rest: str) -> None:
            self.send(302, b"moved", location=server.state["to"])

        def do_garbage(self, rest: str) -> None:
            self.wfile.write(b"this is not HTTP at all\r\n\r\n")
            self.close_connection = True

    return Handler


@pytest.fixture
def serve(photo: Image.Image, encode: Callable[..., bytes]) -> Iterator[Callable[..., Server]]:
    """Starts servers: `serve()` or `serve(host="127.0.0.2")`, `serve(certificate=(pem, key))`."""
    running: list[tuple[Server, ThreadingHTTPServer, threading.Thread]] = []

    def start(*, host: str = "127.0.0.1", certificate: tuple[Path, Path] | None = None) -> Server:
        server = Server(url="", picture=encode(photo, "JPEG", quality=90))

        class Counting(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def get_request(self) -> tuple[socket.socket, Any]:
                accepted = super().get_request()
                server.connections += 1
                return accepted

            def handle_error(self, *_: Any) -> None: ...  # clients hang up here on purpose

        http = Counting((host, 0), _handler(server))
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            http.socket = context.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
        server.url = f"{'https' if certificate else 'http'}://{host}:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        running.append((server, http, thread))
        return server

    yield start
    for server, http, thread in running:
        server.closing.set()
        http.shutdown()
        http.server_close()
        thread.join(5)
    time.sleep(0.02)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-made certificate for 127.0.0.1, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "cert.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-out", str(pem), "-keyout", str(key)], check=True, capture_output=True)
    return pem, key
