"""The floor of a call: a round trip through ``zmq.asyncio`` over ipc, to a process that sends back what it gets."""

from __future__ import annotations

import asyncio
import sys
import tempfile

import zmq
import zmq.asyncio

from benchmarks.peers.measures import times_ms

ECHO = """
import sys, zmq
socket = zmq.Context().socket(zmq.DEALER)
socket.connect(sys.argv[1])
socket.send(b"")
while True:
    socket.send(socket.recv())
"""
# About what an empty call is on the wire.
MESSAGE = b"x" * 60


class Raw:
    """A socket and its echo."""

    async def start(self) -> None:
        """Start the echo."""
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        with tempfile.TemporaryDirectory() as folder:
            self._socket.bind(f"ipc://{folder}/raw")
            self._echo = await asyncio.create_subprocess_exec(sys.executable, "-c", ECHO, f"ipc://{folder}/raw")
            self._name, _ = await self._socket.recv_multipart()

    async def noop(self, count: int) -> list[float]:
        """Measure round trips."""

        async def act() -> None:
            await self._socket.send_multipart([self._name, MESSAGE])
            await self._socket.recv_multipart()

        return await times_ms(count, act)

    async def stop(self) -> None:
        """End the echo."""
        self._echo.kill()
        await self._echo.wait()
        self._context.destroy(linger=0)
