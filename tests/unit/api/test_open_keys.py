"""What a key is held for: broken off by the key's end alone, and by whoever else may."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import cast
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api import open_keys
from api.open_keys import Hold, OpenKeys
from stoker import keys
from stoker.errors import Unauthenticated
from stoker.keys import Caller
from tests.support.patience import waiting_for

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


async def test_a_look_that_fails_is_not_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_: AsyncEngine, key_ids: Iterable[str]) -> set[str]:
        return set(key_ids)

    async def fail(*_: object) -> set[str]:
        monkeypatch.setattr(keys, "ended", answer)
        raise ValueError("an answer that nobody expected")

    monkeypatch.setattr(open_keys, "LOOK_S", 0.0)
    monkeypatch.setattr(keys, "ended", fail)
    caller = Caller("key_1", uuid4(), "acme", frozenset({"run"}), best_priority=0)
    with OpenKeys(cast("AsyncEngine", None)).hold(caller) as hold:
        async with waiting_for("the end of a key that was revoked", 10):
            with pytest.raises(Unauthenticated):
                await wait(hold, asyncio.Event())
