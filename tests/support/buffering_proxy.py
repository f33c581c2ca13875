"""An HTTP proxy that does to answers what proxies on the way do, unless their headers forbid it.

Like nginx it keeps what comes until a buffer is full, but not where ``X-Accel-Buffering: no`` says so. Like proxies
that compress it takes an answer whole, but not where ``Cache-Control`` has ``no-transform``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

BUFFER_BYTES = 4096


def _must_pass_at_once(head: bytes) -> bool:
    fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if b": " in line)
    return fields.get(b"x-accel-buffering") == b"no" and b"no-transform" in fields.get(b"cache-control", b"")


@asynccontextmanager
async def buffering_proxy(target_port: int) -> AsyncIterator[int]:
    """The port on which it listens."""
    relays: set[asyncio.Task[None]] = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", target_port)
        asking = asyncio.create_task(_pass_on(reader, there_writer))
        try:
            head = await there_reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            kept, at_once = b"", _must_pass_at_once(head)
            while data := await there_reader.read(65536):
                kept += data
                if at_once or len(kept) >= BUFFER_BYTES:
                    writer.write(kept)
                    await writer.drain()
                    kept = b""
            writer.write(kept)
        except (OSError, asyncio.IncompleteReadError):
            return  # one side has gone
        finally:
            asking.cancel()
            for each in (writer, there_writer):
                each.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(relay(reader, writer))
        relays.add(task)
        task.add_done_callback(relays.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(relays):
            task.cancel()
        await asyncio.gather(*relays, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
