"""A script with its own worker class: starts two ranks, prints their ids, and waits to be killed.

With STALL in the environment its ranks never become ready: each prints its id where STALL says, and stays there.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading

from worker_node.distributed import DistributedRunner, DistributedWorker, RankLog

STALL = os.environ.get("STALL")


def stall() -> None:
    print(os.getpid(), flush=True)
    threading.Event().wait()


def pass_on(log: RankLog) -> None:
    if log.message.isdigit():
        print(log.message, flush=True)


if __name__ != "__main__" and STALL == "import":
    stall()


class Mine(DistributedWorker):
    """Lives in ``__main__``."""

    def setup(self) -> None:
        """Be ready, or never."""
        if STALL == "setup":
            stall()

    def __call__(self, number: int) -> int:
        """Add the rank."""
        return number + self.rank


async def main() -> None:
    runner = DistributedRunner(Mine, 2, on_log=pass_on)
    await runner.start()
    assert await runner.invoke({"number": 1}) == 1
    print(*(rank.pid for rank in runner.status().ranks), flush=True)
    if "stay" in sys.argv:
        await asyncio.Event().wait()
    await runner.stop()


if __name__ == "__main__":
    asyncio.run(main())
