"""Stoker's own processes in a tenth of the time: forked from one that has imported their modules.

For tests that kill and start them again and again: most of a start is imports. What is forked runs the part's own
``main`` in a session of its own, dies with the process that forked it, and that one with the test's.
``Prepared`` is for the test, ``python -m tests.support.prepared FD`` is the process that forks.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from stoker.ready import VARIABLE

MAINS = {"api": "api.__main__", "api.control": "api.control.__main__", "worker_node": "worker_node.__main__"}
# What their libraries import only when they are used.
LATER = (
    "boto3.session", "botocore.client", "botocore.credentials", "celery.app.amqp", "celery.app.control",
    "celery.apps.worker", "celery.concurrency.base", "celery.worker.components", "celery.worker.consumer",
    "celery.worker.control", "celery.worker.strategy", "kombu.transport.redis", "redis.asyncio",
    "sqlalchemy.dialects.postgresql.psycopg", "uvicorn.lifespan.on", "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.auto", "uvloop", "orjson", "anyio._backends._asyncio",
)  # fmt: skip
PR_SET_PDEATHSIG = 1


class Prepared:
    """Forks parts on demand."""

    def __init__(self) -> None:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock = mine
        self._asking = threading.Lock()  # answers come in turn, and do not say whose they are
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._sock.close()
        self._process.kill()
        self._process.wait()

    def start(self, module: str, arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> tuple[int, int]:
        """Start a part: its process id, and the pipe through which it says that it is ready."""
        reader, writer = os.pipe()
        asked = {"module": module, "arguments": list(arguments), "environ": dict(environ), "log": str(log)}
        with self._asking:
            socket.send_fds(self._sock, [json.dumps(asked).encode()], [writer])
            os.close(writer)
            return int(self._sock.recv(64)), reader


def main() -> None:
    """Fork until the test ends; a child runs its part."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    mains = {name: importlib.import_module(module).main for name, module in MAINS.items()}
    for name in LATER:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    server = os.getpid()
    while True:
        message, fds, _, _ = socket.recv_fds(sock, 1_000_000, 1)
        if not message:
            return
        asked = json.loads(message)
        pid = os.fork()
        if pid == 0:
            become(asked, fds[0], server, sock)
            part: Callable[[], int] = mains[asked["module"]]
            sys.exit(part())
        os.close(fds[0])
        sock.send(str(pid).encode())


def become(asked: Mapping[str, object], ready: int, server: int, sock: socket.socket) -> None:
    """Make the forked process what a spawned one would be."""
    sock.close()
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != server:
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(str(asked["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    environ, arguments = asked["environ"], asked["arguments"]
    assert isinstance(environ, dict)
    assert isinstance(arguments, list)
    os.environ.clear()
    os.environ.update(environ)
    os.environ[VARIABLE] = str(ready)
    sys.argv[1:] = arguments


if __name__ == "__main__":
    main()
