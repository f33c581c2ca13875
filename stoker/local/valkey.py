"""A real Valkey server of our own, for one data folder.

Loopback only, with a generated password that appears in no process list; what it holds survives a stop.
``stoker.local.engines`` calls it.
"""

from __future__ import annotations

import signal
from pathlib import Path

import redis

from stoker.local.binaries import Binary
from stoker.local.ports import starting_ports
from stoker.local.process import Command, Process, spawn, stop_leftovers

STOP = signal.SIGTERM
READY_S = 60.0

SETTINGS = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "daemonize": "no",
    "maxmemory-policy": "noeviction",  # a doorbell or an event that vanishes silently would be a lie
    "save": '""',
}


class Valkey:
    """A running server. ``stop`` ends it."""

    def __init__(self, process: Process, port: int, password: str, version: str) -> None:
        self.process, self.version, self.ports = process, version, [port]
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"

    def stop(self) -> None:
        self.process.stop()


def start(binary: Binary, data_dir: Path, *, password: str, durable: bool, last_ports: list[int]) -> Valkey:
    """Start Valkey on ``data_dir`` and return once it has loaded its data and answers."""
    home = data_dir / "valkey"
    home.mkdir(mode=0o700, exist_ok=True)
    stop_leftovers(home, "valkey-server", STOP)

    def attempt(ports: list[int]) -> Valkey:
        process = spawn(
            Command(
                role="valkey",
                argv=[binary.path, _write_settings(home, ports[0], password, durable=durable)],
                cwd=home,
                env={"PATH": "/usr/bin:/bin"},
                log=data_dir / "log" / "valkey.log",
                stop_signal=STOP,
                death_signal=STOP,
            )
        )
        server = Valkey(process, ports[0], password, binary.version)
        try:
            process.wait_ready(lambda: _answers(server.url), timeout_s=READY_S)
        except BaseException:
            process.stop()
            raise
        return server

    return starting_ports(1, last_ports, attempt)


def _write_settings(home: Path, port: int, password: str, *, durable: bool) -> Path:
    settings = SETTINGS | {
        "port": str(port),
        "dir": f'"{home}"',
        "requirepass": password,
        "appendonly": "yes" if durable else "no",
        "appendfsync": "everysec",
    }
    file = home / "valkey.conf"
    file.touch(mode=0o600)
    file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    return file


def _answers(url: str) -> bool:
    client = redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=5)
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):  # not up yet, or loading its data
        return False
    finally:
        client.close()
