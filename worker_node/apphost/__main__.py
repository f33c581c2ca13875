"""Entry point of an app host: ``python -m worker_node.apphost SOCKET_FD PARENT_PID``, run by ``worker_node.host``."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys

from worker_node.apphost.link import Link
from worker_node.apphost.lossy_log import LossyHandler
from worker_node.apphost.service import Service
from worker_node.distributed.rank import die_with

_FORMAT = "%(levelname)s %(name)s: %(message)s"


async def _serve(fd: int) -> int:
    return await Service(Link(fd, asyncio.get_running_loop()), os.environ).serve()


def main() -> None:
    """Serve until the supervisor says stop, or goes."""
    fd, parent_pid = int(sys.argv[1]), int(sys.argv[2])
    die_with(parent_pid)
    faulthandler.enable()
    # The supervisor adds time, app and process to each line.
    logging.basicConfig(level=logging.INFO, format=_FORMAT, stream=sys.stderr)
    ranks = logging.getLogger("worker_node.distributed.rank")
    ranks.addHandler(LossyHandler(sys.stderr, logging.Formatter(_FORMAT)))
    ranks.propagate = False
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        exit_code = loop.run_until_complete(_serve(fd))
    except SystemExit as error:
        # An app's task called sys.exit. asyncio.run would first cancel every call; then each looks like its own end.
        exit_code = error.code if isinstance(error.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that an app left behind hold nothing up.
    os._exit(exit_code)


if __name__ == "__main__":
    main()
