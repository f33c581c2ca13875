"""App hosts that have the same GPUs by turns: whoever comes finds their memory free."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.host.conftest import serving
from worker_node.gpus import memory_used

pytestmark = pytest.mark.anyio

APP = f"{Path(__file__).parent}/apps.py:Hog"
GIB = 100
"""More than half of an H200's memory: two apps at a time do not fit."""


async def test_two_apps_take_most_of_the_same_gpus_memory_by_turns(tmp_path: Path, world_size: int):
    async with serving(tmp_path) as serve:
        apps = [await serve(APP, world_size=world_size) for _ in range(2)]
        for app in [*apps, *apps]:
            app.host.place(list(range(world_size)))

            result = await app.call(gib=GIB)
            held = memory_used()
            await app.host.vacate()
            left = memory_used()

            assert result.result["ranks"] == world_size
            assert min(held.values()) > GIB * 2**30
            assert max(left.values()) < 2**30
            assert app.host.status.runner == "none"
