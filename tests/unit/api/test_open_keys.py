"""What a key is held for: broken off by the key's end alone, and by whoever else may."""

from __future__ import annotations

import asyncio

import pytest

from api.open_keys import Hold
from stoker.errors import Unauthenticated

pytestmark = pytest.mark.anyio


async def wait(hold: Hold, begun: asyncio.Event, *, loses_a_cancel: bool = False) -> None:
    with hold:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not loses_a_cancel:
                raise


async def test_a_wait_ends_with_its_key_and_its_task_is_not_cancelled_by_it() -> None:
    hold, begun = Hold(), asyncio.Event()

    async def try_to() -> int:
        with pytest.raises(Unauthenticated):
            await wait(hold, begun)
        await asyncio.sleep(0)  # a cancel that was left over would come here
        current = asyncio.current_task()
        assert current is not None
        return current.cancelling()

    task = asyncio.create_task(try_to())
    await begun.wait()
    hold.end()
    hold.end()

    assert await task == 0
    with pytest.raises(Unauthenticated), hold:
        pytest.fail("nothing more is waited for")


async def test_a_cancel_that_was_lost_ends_the_wait_as_well() -> None:
    hold, begun = Hold(), asyncio.Event()
    task = asyncio.create_task(wait(hold, begun, loses_a_cancel=True))
    await begun.wait()

    hold.end()

    with pytest.raises(Unauthenticated):
        await task


@pytest.mark.parametrize("key_ends", [False, True])
async def test_who_cancels_the_wait_itself_cancels_it(key_ends: bool) -> None:
    hold, begun = Hold(), asyncio.Event()
    task = asyncio.create_task(wait(hold, begun))
    await begun.wait()

    task.cancel()
    if key_ends:
        hold.end()
    await asyncio.wait([task])

    assert task.cancelled()
