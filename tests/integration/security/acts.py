"""How hostile requests are made. ``$names`` in them stand for what ``World`` has made: ids, tokens, addresses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import pytest

from stoker.errors import InvalidFile
from stoker.fetch import GuardedBackend
from tests.integration.security.wire import Answer, exchange
from tests.integration.security.world import World

Headers = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class Http:
    """One request. ``key`` names who sends it; ``body`` may be JSON; ``chunks`` go one by one, and no length is told.

    ``length`` is a Content-Length that lies. ``ends``: the sender closes its side when it has sent all.
    """

    method: str
    target: str
    body: Any = None
    headers: Headers = ()
    key: str | None = "stranger"
    chunks: tuple[bytes, ...] = ()
    length: int | None = None
    ends: bool = False
    host: str | None = "$host"

    async def __call__(self, world: World) -> Answer | None:
        return await exchange(world.address, self.pieces(world), ends=self.ends)

    def pieces(self, world: World) -> Iterator[bytes]:
        body = self._content(world)
        headers = [(name, value) for name, value in self.headers]
        named = {name.lower() for name, _ in headers}
        if self.host is not None and "host" not in named:
            headers.insert(0, ("host", self.host))
        if self.key is not None:
            headers.append(("authorization", f"Key {world.keys[self.key]}"))
        if self.body is not None and "content-type" not in named:
            headers.append(("content-type", "application/json"))
        if self.chunks:
            headers.append(("transfer-encoding", "chunked"))
        elif body or self.length is not None or self.method in ("POST", "PUT"):
            headers.append(("content-length", str(len(body) if self.length is None else self.length)))
        if "connection" not in named:
            headers.append(("connection", "close"))
        lines = [f"{self.method} {world.filled(self.target)} HTTP/1.1".encode("utf-8", "surrogateescape")]
        lines += [name.encode() + b": " + _bytes(world, value) for name, value in headers]
        yield b"\r\n".join(lines) + b"\r\n\r\n" + body
        for chunk in self.chunks:
            yield b"%x\r\n%s\r\n" % (len(chunk), chunk)
        if self.chunks:
            yield b"0\r\n\r\n"

    def _content(self, world: World) -> bytes:
        if isinstance(self.body, bytes):
            return self.body.replace(b"$app", world.names["app"].encode())
        return b"" if self.body is None else world.filled(json.dumps(self.body)).encode()


@dataclass(frozen=True)
class Raw:
    """Bytes as they stand."""

    request: bytes
    ends: bool = False

    async def __call__(self, world: World) -> Answer | None:
        return await exchange(world.address, _bytes(world, self.request), ends=self.ends)


@dataclass(frozen=True)
class Input:
    """A job whose app is handed the file that ``link`` names: the real node is to fetch it. The job as it ended."""

    link: str
    endpoint: str = "/digest"
    name: str = "file"

    async def __call__(self, world: World) -> dict[str, Any]:
        return await world.run({self.name: {"url": world.filled(self.link)}}, endpoint=self.endpoint)


@dataclass(frozen=True)
class Called:
    """A job that ends, and owes ``url`` its webhook: the real control loop is to call it. The delivery."""

    url: str

    async def __call__(self, world: World) -> dict[str, Any]:
        return await world.delivery_to(world.filled(self.url))


@dataclass(frozen=True)
class Connects:
    """The guard itself, asked for ``host`` where each look-up gives the next of ``answers``. True: it refused.

    No name server is asked, and nothing connects: where it would is what is looked at.
    """

    host: str
    answers: tuple[tuple[str, ...], ...]
    port: int = 443
    allowed: frozenset[str] = frozenset()

    async def __call__(self, world: World) -> bool:
        connected, looked_up = list[str](), iter(self.answers)
        loop = asyncio.get_running_loop()

        async def look_up(host: str, port: int, **_: int) -> Iterable[Any]:
            return [(0, 0, 0, "", (address, port)) for address in next(looked_up)]

        async def connect(host: str, *_: object, **__: object) -> None:
            connected.append(host)
            raise httpcore2.ConnectError("no connection leaves this test")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "getaddrinfo", look_up)
            patch.setattr(httpcore2.AnyIOBackend, "connect_tcp", lambda _, *given, **named: connect(*given, **named))
            try:
                await GuardedBackend(self.allowed).connect_tcp(self.host, self.port)
            except InvalidFile:
                assert connected == []
                return True
            except httpcore2.ConnectError:
                pass
        # One look-up: it connects to what it has checked, whatever the name means by now.
        return connected == [self.answers[0][0]] and len(self.answers) > 1


@dataclass(frozen=True)
class Uploaded:
    """``content`` uploaded by a face, ``native``, ``fal``, ``placed`` or ``presigned``, and read by its link."""

    face: str
    content: bytes
    content_type: str
    file_name: str = "picture.png"

    async def __call__(self, world: World) -> Answer:
        link = await getattr(self, f"_{self.face}")(world)
        place = urlsplit(link)
        request = f"GET {place.path}?{place.query} HTTP/1.1\r\nhost: {place.netloc}\r\nconnection: close\r\n\r\n"
        read = await exchange((str(place.hostname), int(place.port or 80)), request.encode())
        assert read is not None
        assert read.body == self.content
        return read

    async def _native(self, world: World) -> str:
        made = await self._send(world, "POST", f"/v1/files?file_name={self.file_name}", self.content)
        return str((await self._get(world, f"/v1/files/{made['id']}")).json()["download_url"])

    async def _presigned(self, world: World) -> str:
        asked = {"file_name": self.file_name, "content_type": self.content_type, "size_bytes": len(self.content)}
        made = (await _answered(Http("POST", "/v1/files/uploads", asked), world)).json()
        await world.put(made["upload"]["url"], self.content, made["upload"]["headers"])
        return str((await self._get(world, f"/v1/files/{made['file']['id']}")).json()["download_url"])

    async def _fal(self, world: World) -> str:
        token = f"Bearer {await world.upload_token('stranger')}"
        given = (("authorization", token), ("x-fal-file-name", self.file_name))
        made = await self._send(world, "POST", "/cdn/files/upload", self.content, key=None, headers=given)
        return await self._followed(world, made["access_url"])

    async def _placed(self, world: World) -> str:
        asked = {"file_name": self.file_name, "content_type": self.content_type}
        made = (await _answered(Http("POST", "/rest/storage/upload/initiate", asked), world)).json()
        await self._send(world, "PUT", urlsplit(made["upload_url"]).path, self.content, key=None)
        return await self._followed(world, made["file_url"])

    async def _followed(self, world: World, link: str) -> str:
        answer = await _answered(Http("GET", urlsplit(link).path, key=None), world)
        assert answer.status == 302
        assert answer.header("x-content-type-options") == "nosniff"
        return answer.header("location")

    async def _send(
        self,
        world: World,
        method: str,
        target: str,
        body: bytes,
        *,
        headers: Headers = (),
        key: str | None = "stranger",
    ) -> dict[str, Any]:
        given = (("content-type", self.content_type), *headers)
        made: dict[str, Any] = (await _answered(Http(method, target, body, given, key), world)).json()
        return made

    async def _get(self, world: World, target: str) -> Answer:
        return await _answered(Http("GET", target), world)


async def _answered(request: Http, world: World) -> Answer:
    answer = await request(world)
    assert answer is not None
    assert answer.status < 400, answer
    return answer


def _bytes(world: World, text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return world.filled(text.decode("latin-1")).encode("latin-1")
    return world.filled(text).encode()
