"""A port that another server binds between the look for a free one and the start."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from stoker.local import seaweedfs
from stoker.local.binaries import SEAWEEDFS, find
from stoker.local.ports import free_ports, starting_ports
from stoker.local.process import ProcessExitedError


def test_a_store_whose_port_was_taken_since_the_look_starts_on_another(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for itself, and has words of its own for what it finds."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        own = taken.getsockname()[1]
        seen_free = iter([own])
        monkeypatch.setattr(
            "stoker.local.ports.free_ports",
            lambda count: [next(seen_free, None) or free_ports(1)[0], *free_ports(count - 1)],
        )

        keys = {"access_key": "a" * 20, "secret_key": "s" * 20}
        server = seaweedfs.start(find(SEAWEEDFS, {}), data_dir, **keys, durable=False, last_ports=[])

        server.stop()
        assert next(seen_free, None) is None
        assert own not in server.ports


def test_a_server_that_ends_for_another_reason_is_not_started_again() -> None:
    tries: list[list[int]] = []

    class Broken(ProcessExitedError):
        def __init__(self) -> None:
            self.output = "no space left on device"

    def start(ports: list[int]) -> object:
        tries.append(ports)
        raise Broken

    with pytest.raises(ProcessExitedError):
        starting_ports(1, [], start)
    assert len(tries) == 1
