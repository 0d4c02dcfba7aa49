"""Connections for fetching: to public addresses only, and with a deadline even when bytes trickle."""

from __future__ import annotations

import ipaddress
import math
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

__all__ = ["PrivateAddressError", "is_public", "new_pool", "public_addresses", "redact", "within"]

_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")
_SECRET = re.compile(
    r"([?&](?:x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|signature|sig|token"
    r"|access_token|auth|api_?key|key|password|secret)=)[^&#\s]+",
    re.IGNORECASE,
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = tuple[socket.AddressFamily, tuple[Any, ...]]


class PrivateAddressError(Exception):
    """All addresses of the host are loopback, private or reserved."""


class _Limits(threading.local):
    """Limits of connections used by this thread. A connection serves one thread at a time."""

    deadline = math.inf
    allow_private = False


_limits = _Limits()


@contextmanager
def within(deadline: float, *, allow_private: bool) -> Iterator[None]:
    """Apply limits to this thread's connections inside the block; `deadline` is on the clock of `time.monotonic`."""
    _limits.deadline, _limits.allow_private = deadline, allow_private
    try:
        yield
    finally:
        _limits.deadline, _limits.allow_private = math.inf, False


def is_public(address: str) -> bool:
    """Whether an IP address is public, also after unwrapping mapped, 6to4, Teredo and NAT64 addresses."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if embedded is None and ip in _NAT64:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def public_addresses(host: str, port: int, *, allow_private: bool) -> list[Address]:
    """Return the addresses of a host that connections are allowed to.

    Callers connect to these addresses and do not resolve the name again, which defeats DNS rebinding.

    Raises:
        PrivateAddressError: None of the addresses is public.
        socket.gaierror: The name does not resolve.
    """
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    allowed: list[Address] = [
        (family, where) for family, _, _, _, where in found if allow_private or is_public(str(where[0]))
    ]
    if not allowed:
        address = str(found[0][4][0])
        at = "" if host.strip("[]") == address else f"at {address}, "
        raise PrivateAddressError(
            f"{host} is {at}a private, loopback or reserved address; if you trust the data file, set "
            "fetch.allow_private=true"
        )
    return allowed


class _Deadline:
    """Socket mixin: no receive waits past the deadline of the reading thread."""

    def recv_into(self: Any, *args: Any, **options: Any) -> int:
        left = _limits.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time limit has passed")
        timeout = self.gettimeout()
        if timeout is None or left < timeout:
            self.settimeout(left)
        received: int = super().recv_into(*args, **options)  # type: ignore[misc]
        return received


class _Socket(_Deadline, socket.socket):
    pass


class _TLSSocket(_Deadline, ssl.SSLSocket):
    pass


def _connect(connection: HTTPConnection) -> socket.socket:
    """Replace urllib3's connect: try the allowed addresses in turn."""
    host, port = connection.host, connection.port or 80
    try:
        addresses = public_addresses(host, port, allow_private=_limits.allow_private)
    except (socket.gaierror, UnicodeError) as error:
        cause = error if isinstance(error, socket.gaierror) else socket.gaierror(socket.EAI_NONAME, str(error))
        raise NameResolutionError(host, connection, cause) from error
    failure: OSError | None = None
    for family, where in addresses:
        candidate = _Socket(family, socket.SOCK_STREAM)
        try:
            for option in connection.socket_options or ():
                candidate.setsockopt(*option)
            limit = connection.timeout if isinstance(connection.timeout, int | float) else math.inf
            left = min(limit, _limits.deadline - time.monotonic())
            if left <= 0:
                raise TimeoutError("the time limit has passed")
            candidate.settimeout(left if left < math.inf else None)
            candidate.connect(where)
        except OSError as error:
            candidate.close()
            failure = error
        else:
            return candidate
    if isinstance(failure, TimeoutError):
        raise ConnectTimeoutError(connection, f"connecting to {host} took too long") from failure
    raise NewConnectionError(connection, str(failure)) from failure


class _HTTPConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _HTTPSConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def new_pool(*, hosts: int = 64, connections: int = 32) -> urllib3.PoolManager:
    """Make a pool of kept-alive connections with one TLS context.

    A context per request costs 40 ms, since it loads the certificates: the system's, or those in SSL_CERT_FILE.
    """
    context = ssl.create_default_context()
    context.sslsocket_class = _TLSSocket
    pool = urllib3.PoolManager(num_pools=hosts, maxsize=connections, ssl_context=context)
    pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return pool


def redact(text: str) -> str:
    """Replace `user:password@` and secret query values of URLs in a text by `***`."""
    return _SECRET.sub(r"\1***", _USERINFO.sub("***@", text))
