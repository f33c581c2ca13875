"""Free loopback ports.

They are taken from below the kernel's ephemeral range, so that no outgoing connection grabs one between the look and
the bind. A collision with another server stays possible: the launchers try again. They and the stack call it.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from typing import TypeVar

from stoker.local.process import ProcessExitedError

FIRST, LAST = 12000, 22000  # weed's admin needs PORT + 10000 as well, and 32768 is where ephemeral ports begin
WEED_OFFSET = 10000
ATTEMPTS = 5
TAKEN = ("address already in use", "port allocation failed")
"""What a server says whose port another has bound meanwhile; the second is SeaweedFS's own look."""

Server = TypeVar("Server")


def free_ports(count: int) -> list[int]:
    """``count`` different ports P that nobody listens on, nor on P + 10000."""
    found: list[int] = []
    candidates = random.sample(range(FIRST, LAST), LAST - FIRST)
    while len(found) < count:
        port = candidates.pop()
        if is_free(port) and is_free(port + WEED_OFFSET):
            found.append(port)
    return found


def is_free(port: int) -> bool:
    """Whether ``port`` can be bound on the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def starting_ports(count: int, last: list[int], start: Callable[[list[int]], Server]) -> Server:
    """What ``start`` makes of ``count`` free ports: the ``last`` ones if they are free, so that addresses stay.

    Another server may bind one first; then ``start`` is called again with others.
    """
    ports = last if len(last) == count and all(map(is_free, last)) else free_ports(count)
    for left in reversed(range(ATTEMPTS)):
        try:
            return start(ports)
        except ProcessExitedError as exc:
            if left == 0 or not any(words in exc.output.lower() for words in TAKEN):
                raise
            ports = free_ports(count)
    raise AssertionError("unreachable")
