"""The least HTTP client that can POST: a kept connection, bytes made once. What it takes is the server's time."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit


class Posts:
    """One request at a time on each connection; as many connections as callers at once."""

    def __init__(self, url: str, headers: dict[str, str], body: dict[str, Any]) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        content = json.dumps(body).encode()
        told = {**headers, "host": parts.netloc, "content-type": "application/json", "content-length": len(content)}
        lines = [f"POST {parts.path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())]
        self._request = "\r\n".join(lines).encode() + b"\r\n\r\n" + content
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self) -> Any:
        """Send it and return the answer's JSON.

        Raises:
            ValueError: the answer is not 202.
        """
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        content = await reader.readexactly(int(length.split(b":")[1]))
        self._idle.append((reader, writer))
        if b" 202 " not in head.partition(b"\r\n")[0]:
            raise ValueError(f"{head!r} {content!r}")
        return json.loads(content)
