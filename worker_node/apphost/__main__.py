"""Entry point of an app host: ``python -m worker_node.apphost SOCKET_FD PARENT_PID``, run by ``worker_node.host``."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys

from worker_node.apphost.link import Link
from worker_node.apphost.service import Service
from worker_node.distributed.rank import die_with


async def _serve(fd: int) -> int:
    return await Service(Link(fd, asyncio.get_running_loop()), os.environ).serve()


def main() -> None:
    """Serve until the supervisor says stop, or goes."""
    fd, parent_pid = int(sys.argv[1]), int(sys.argv[2])
    die_with(parent_pid)
    faulthandler.enable()
    # The supervisor adds time, app and process to each line.
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    sys.exit(asyncio.run(_serve(fd)))


if __name__ == "__main__":
    main()
