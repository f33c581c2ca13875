"""The HTTP server: uvicorn, told to end event streams before it waits for its connections to close.

Without that, one open stream would keep a stopping server alive for as long as its client likes.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from api.protocol import Protocol
from stoker import ready

GRACE_S = 10
KEEP_ALIVE_S = 30


class Server(uvicorn.Server):
    """Serves ``app`` on ``sock`` and announces that it does."""

    def __init__(
        self, app: FastAPI, sock: socket.socket, *, certificate: Path | None = None, key: Path | None = None
    ) -> None:
        self._stopping: asyncio.Event = app.state.stopping
        self._sock, self._scheme = sock, "http" if certificate is None else "https"
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACE_S,
                ssl_certfile=certificate,
                ssl_keyfile=key,
            )
        )

    @property
    def url(self) -> str:
        host, port = self._sock.getsockname()[:2]
        return f"{self._scheme}://[{host}]:{port}" if ":" in host else f"{self._scheme}://{host}:{port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            ready.announce({"url": self.url})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping.set()
        await super().shutdown(sockets)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await super().serve(sockets or [self._sock])


def bind(host: str, port: int) -> socket.socket:
    """A listening address; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # By name: asyncio sends small answers at once only where a socket says that it is TCP, else they wait 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    return sock
