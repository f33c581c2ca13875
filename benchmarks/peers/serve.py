"""The process of one peer: ``python -m benchmarks.peers.serve raw|ours|theirs``, orders in, answers out, a line each.

``process`` starts it and asks. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import sys
import traceback

CLASSES = {"raw": "Raw", "ours": "Ours", "theirs": "Theirs"}


async def main() -> None:
    """Answer until there are no more orders."""
    # What libraries print must not come between the answers.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        name = sys.argv[1]
        peer = getattr(importlib.import_module(f"benchmarks.peers.{name}"), CLASSES[name])()
        try:
            while line := await asyncio.to_thread(sys.stdin.readline):
                order = json.loads(line)
                try:
                    said = {"value": await getattr(peer, order.pop("do"))(**order)}
                except Exception:  # noqa: BLE001 - whatever it is, it is the answer
                    said = {"error": traceback.format_exc()}
                print(json.dumps(said), file=answers, flush=True)
        finally:
            with contextlib.suppress(Exception):  # it may be stopped already, or never have started
                await peer.stop()


if __name__ == "__main__":
    asyncio.run(main())
