"""The one guarded way to reach a URL that a user gave: inputs on a node, webhooks from the control loop.

A name is resolved once, every address must be public, and the connection goes to the address that was checked, so a
name that changes its address in between (DNS rebinding) gains nothing. Proxies of the environment are not used.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote_to_bytes

import anyio
import httpcore2
import httpx2
from httpcore2 import SOCKET_OPTION

from stoker.errors import InvalidFile, PayloadTooLarge

MAX_REDIRECTS = 3
TOTAL_TIMEOUT_S = 600.0
TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
PORTS = frozenset({80, 443})
NOT_IN_HOST = re.compile(r"[^A-Za-z0-9._:-]")
TRANSLATED = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
"""IPv6 ranges that carry an IPv4 address inside, which may be a private one."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What lies at the path now."""

    content_type: str
    size: int


def is_public(address: str) -> bool:
    """Whether anybody on the internet may be meant by ``address``."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if any(ip in network for network in TRANSLATED):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to public addresses only, and to the hosts that the operator named."""

    def __init__(self, allow_private_hosts: frozenset[str]) -> None:
        self._inner = httpcore2.AnyIOBackend()
        self._allowed = allow_private_hosts

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        address = await self._resolve(host, port)
        return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[SOCKET_OPTION] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        raise httpcore2.ConnectError(f"no socket files here: {path}, {timeout}, {socket_options}")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)

    async def _resolve(self, host: str, port: int) -> str:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore2.ConnectError(f"{host!r} has no address") from error
        except (ValueError, OverflowError) as error:  # UnicodeError is one: an empty label, or one over 63 letters
            raise InvalidFile(f"{host[:200]!r} is not the name of a host") from error
        addresses = [str(entry[4][0]) for entry in found]
        if not is_allowed(host, port, self._allowed):
            if port not in PORTS:
                raise InvalidFile(f"port {port} of {host!r} is not reachable from here")
            if not all(is_public(address) for address in addresses):
                raise InvalidFile(f"{host!r} is not a public host", hint="Upload the file with POST /v1/files.")
        return addresses[0]


def is_allowed(host: str, port: int | None, allowed: frozenset[str]) -> bool:
    """Whether the operator named ``host`` or ``host:port``."""
    return host in allowed or f"{host}:{port}" in allowed


def check_link(url: str, allowed: frozenset[str]) -> None:
    """Refuse what could never be reached, without asking anybody: no address is looked up.

    Raises:
        InvalidFile: it is no URL, names no possible host, or is not https and its host not one of ``allowed``.
    """
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError) as error:
        raise InvalidFile(f"not a URL: {error}") from error
    _check_link(parsed, allowed)


def _check_link(url: httpx2.URL, allowed: frozenset[str]) -> None:
    if url.scheme != "https" and not (url.scheme == "http" and is_allowed(url.host, url.port or 80, allowed)):
        raise InvalidFile(f"only https links are used, not {url.scheme!r}")
    if url.userinfo:
        raise InvalidFile("a link may not carry a user name")
    try:
        # The form in which the resolver is asked; it fails for empty labels and for those over 63 letters.
        is_host = NOT_IN_HOST.search(url.raw_host.decode("ascii").encode("idna").decode("ascii")) is None
    except UnicodeError:
        is_host = False
    if not is_host or not url.host or (url.port or 1) not in range(1, 65536):
        raise InvalidFile(f"{url.host[:200]!r} is not the name of a host")


class GuardedTransport(httpx2.AsyncBaseTransport):
    """An httpx2 transport over the guarded backend. Https only, except for the hosts that the operator named."""

    def __init__(self, allow_private_hosts: frozenset[str] = frozenset()) -> None:
        self._allowed = allow_private_hosts
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(trust_env=False),
            max_connections=50,
            keepalive_expiry=5.0,
            network_backend=GuardedBackend(allow_private_hosts),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        _check_link(url, self._allowed)
        raw = httpcore2.Request(
            request.method,
            httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        try:
            answer = await self._pool.handle_async_request(raw)
        except httpcore2.TimeoutException as error:
            raise httpx2.ConnectTimeout(str(error) or "too slow", request=request) from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise httpx2.ConnectError(str(error), request=request) from error
        return httpx2.Response(
            answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions
        )

    async def aclose(self) -> None:
        await self._pool.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, answer: httpcore2.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._answer.aiter_stream():
                yield chunk
        except httpcore2.TimeoutException as error:
            raise httpx2.ReadTimeout(str(error) or "too slow") from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise httpx2.ReadError(str(error)) from error

    async def aclose(self) -> None:
        await self._answer.aclose()


async def fetch(url: str, path: Path, *, max_bytes: int, allow_private_hosts: frozenset[str] = frozenset()) -> Fetched:
    """Write what lies at ``url`` to ``path``.

    Raises:
        InvalidFile: the link may not be followed, or does not answer with 200.
        PayloadTooLarge: it holds more than ``max_bytes``.
    """
    transport = GuardedTransport(allow_private_hosts)
    try:
        async with (
            asyncio.timeout(TOTAL_TIMEOUT_S),
            httpx2.AsyncClient(
                transport=transport,
                timeout=TIMEOUT,
                follow_redirects=True,
                max_redirects=MAX_REDIRECTS,
                trust_env=False,
            ) as client,
            client.stream("GET", url, headers={"accept-encoding": "identity"}) as answer,
        ):
            if answer.status_code != 200:
                raise InvalidFile(f"{url[:200]!r} answered {answer.status_code}")
            size = 0
            async with await anyio.open_file(path, "wb") as file:
                async for chunk in answer.aiter_raw():
                    size += len(chunk)
                    if size > max_bytes:
                        raise PayloadTooLarge(f"{url[:200]!r} holds more than {max_bytes} bytes")
                    await file.write(chunk)
            return Fetched(answer.headers.get("content-type", "application/octet-stream"), size)
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ValueError) as error:
        raise InvalidFile(f"{url[:200]!r} cannot be fetched: {str(error) or type(error).__name__}") from error


def decode_data_uri(text: str, max_bytes: int) -> tuple[bytes, str]:
    """The bytes and the media type of ``data:[type][;base64],...``.

    Raises:
        InvalidFile: it is not such a URI.
        PayloadTooLarge: it holds more than ``max_bytes``.
    """
    head, comma, body = text.partition(",")
    if not comma or not head.lower().startswith("data:"):
        raise InvalidFile("not a data URI", hint="It begins with 'data:', then the type, ';base64,' and the bytes.")
    if len(body) > max_bytes * 3:
        raise PayloadTooLarge(f"the data URI holds more than {max_bytes} bytes")
    kind, *options = head[len("data:") :].split(";")
    raw = unquote_to_bytes(body)
    if "base64" in (option.strip().lower() for option in options):
        try:
            raw = base64.b64decode(raw, validate=True)
        except binascii.Error as error:
            raise InvalidFile("the data URI's base64 is broken") from error
    if len(raw) > max_bytes:
        raise PayloadTooLarge(f"the data URI holds more than {max_bytes} bytes")
    return raw, kind.strip().lower() or "text/plain"
