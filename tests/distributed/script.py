"""A script with its own worker class: starts two ranks, prints their ids, and waits to be killed."""

from __future__ import annotations

import asyncio
import sys

from worker_node.distributed import DistributedRunner, DistributedWorker


class Mine(DistributedWorker):
    """Lives in ``__main__``."""

    def __call__(self, number: int) -> int:
        """Add the rank."""
        return number + self.rank


async def main() -> None:
    runner = DistributedRunner(Mine, 2)
    await runner.start()
    assert await runner.invoke({"number": 1}) == 1
    print(*(rank.pid for rank in runner.status().ranks), flush=True)
    if "stay" in sys.argv:
        await asyncio.Event().wait()
    await runner.stop()


if __name__ == "__main__":
    asyncio.run(main())
