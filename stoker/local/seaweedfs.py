"""A real SeaweedFS (``weed mini``) of our own: an S3 endpoint for one data folder.

Loopback only, with generated keys; it tells nobody of its existence (its telemetry is off).
``stoker.local.engines`` calls it.
"""

from __future__ import annotations

import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

from stoker.local import s3
from stoker.local.binaries import Binary
from stoker.local.ports import WEED_OFFSET, starting_ports
from stoker.local.process import Command, Process, spawn, stop_leftovers

BUCKET = "outputs"
STOP = signal.SIGTERM
READY_S = 90.0
FRESH_S = 60.0
GRACE_S = 5.0  # one time in ten or so it never ends by itself; a kill loses no finished upload
PORTS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "admin.port",
)


class SeaweedFS:
    """A running server. ``stop`` ends it."""

    def __init__(
        self, process: Process, ports: list[int], address: s3.S3Address, version: str, *, durable: bool
    ) -> None:
        self.process, self.version, self.ports, self.address = process, version, ports, address
        self._durable = durable

    def stop(self) -> None:
        # Where nothing is to be kept, do not wait for the second or more that it takes.
        self.process.stop(grace_s=GRACE_S) if self._durable else self.process.kill()
        _remove_sockets(self.ports)


def start(
    binary: Binary, data_dir: Path, *, access_key: str, secret_key: str, durable: bool, last_ports: list[int]
) -> SeaweedFS:
    """Start SeaweedFS on ``data_dir`` and return once its bucket takes and gives an object."""
    home = data_dir / "seaweedfs"
    home.mkdir(mode=0o700, exist_ok=True)
    stop_leftovers(home, "weed", STOP, grace_s=GRACE_S)
    _remove_sockets(last_ports)

    def attempt(ports: list[int]) -> SeaweedFS:
        process = spawn(
            Command(
                role="seaweedfs",
                argv=[binary.path, "-logtostderr=true", "mini", *_flags(home, ports)],
                cwd=home,
                env={
                    "PATH": "/usr/bin:/bin",
                    "HOME": str(home),  # it looks there for settings of its own
                    "TMPDIR": str(home),
                    "AWS_ACCESS_KEY_ID": access_key,
                    "AWS_SECRET_ACCESS_KEY": secret_key,
                },
                log=data_dir / "log" / "seaweedfs.log",
                stop_signal=STOP,
                death_signal=signal.SIGKILL,  # there would be nobody to see that a polite one did not work
            )
        )
        address = s3.S3Address(f"http://127.0.0.1:{ports[0]}", access_key, secret_key, BUCKET, "us-east-1")
        server = SeaweedFS(process, ports, address, binary.version, durable=durable)
        try:
            process.wait_ready(lambda: s3.stores(address), timeout_s=READY_S)
        except BaseException:
            server.stop()
            raise
        return server

    return starting_ports(len(PORTS), last_ports, attempt)


def _flags(home: Path, ports: list[int]) -> list[str]:
    numbered = dict(zip(PORTS, ports, strict=True))
    settings = {
        "dir": home,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        **numbered,
        # Its own worker looks for the admin's gRPC at this distance, whatever the flag says.
        "admin.port.grpc": numbered["admin.port"] + WEED_OFFSET,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": home / "s3.sock",
        "filer.localSocket": home / "filer.sock",
        "webdav": "false",
        "admin.ui": "false",
        "volume.preStopSeconds": 0,
        "master.telemetry": "false",
        # A resumed raft log elects its only member a moment too late for the volume server, which then sleeps for 5 s.
        "master.resumeState": "false",
        "bucket": BUCKET,
    }
    return [f"-{name}={value}" for name, value in settings.items()]


def _remove_sockets(ports: list[int]) -> None:
    """Remove the gRPC sockets that it makes in /tmp, whatever TMPDIR says, and leaves there.

    Those of ``ports``, on which nothing runs now, and those of runs that were killed and never started again.
    """
    own = {str(name) for port in ports for name in (port, port + WEED_OFFSET)}
    for file in Path("/tmp").glob("seaweedfs-*-grpc-*.sock"):  # noqa: S108 (its choice, not ours)
        with suppress(OSError):  # another user's, or removed by another run of ours
            if file.stem.rsplit("-", 1)[1] in own or _is_dead(file):
                file.unlink()


def _is_dead(file: Path) -> bool:
    """Whether nobody listens on the socket ``file``, and not because it is only just being made."""
    if time.time() - file.stat().st_mtime < FRESH_S:
        return False
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(file))
        except ConnectionRefusedError:
            return True
        return False
