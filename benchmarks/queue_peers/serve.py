"""The caller's process of one system: ``python -m benchmarks.queue_peers.serve NAME``, orders in, answers out.

``caller`` starts it and asks. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import traceback
from typing import Any

from benchmarks.queue_peers import measures
from benchmarks.queue_peers.system import System

MEASURES = {each.__name__: each for each in (measures.paced, measures.followed, measures.end_to_end, measures.burst)}


async def main() -> None:
    """Answer until there are no more orders."""
    # What libraries print must not come between the answers.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        system: System = importlib.import_module(f"benchmarks.queue_peers.{sys.argv[1]}_system").make()
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                said: dict[str, Any] = {"value": await obey(system, **json.loads(line))}
            except Exception:  # noqa: BLE001 - whatever it is, it is the answer
                said = {"error": traceback.format_exc()}
            print(json.dumps(said), file=answers, flush=True)


async def obey(system: System, do: str, **wanted: Any) -> Any:
    """Carry out an order: a measure, or a method of the system's own."""
    if do in MEASURES:
        return await MEASURES[do](system, **wanted)
    return await getattr(system, do)(**wanted)


if __name__ == "__main__":
    asyncio.run(main())
