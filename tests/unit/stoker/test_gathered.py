"""What is asked for while a transaction is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import psycopg
import pytest

from stoker.gathered import Gathered

pytestmark = pytest.mark.anyio


class Act:
    """Does what it is told, when it is let."""

    def __init__(self, most: int = 10, limit_s: float = 60.0) -> None:
        self.batches: list[list[str]] = []
        self.may_end = asyncio.Event()
        self.gathered = Gathered[str, str](self.do, most=most, limit_s=limit_s)

    async def do(self, items: Sequence[str]) -> list[str]:
        self.batches.append(list(items))
        await self.may_end.wait()
        if "refused" in items:
            raise ValueError("one of them")
        if "away" in items:
            raise psycopg.OperationalError("the server is away")
        return [item.upper() for item in items]

    def ask(self, *items: str) -> list[asyncio.Task[str]]:
        return [asyncio.create_task(self.gathered.ask("key", item)) for item in items]


async def begun(act: Act, batches: int) -> None:
    async with asyncio.timeout(10):
        while len(act.batches) < batches:  # noqa: ASYNC110 - a task says so
            await asyncio.sleep(0)


async def test_the_first_waits_for_nobody_and_the_others_go_together() -> None:
    act = Act(most=2)
    asked = act.ask("a", "b", "c", "d")
    await begun(act, 1)
    act.may_end.set()

    assert await asyncio.gather(*asked) == ["A", "B", "C", "D"]
    assert act.batches == [["a"], ["b", "c"], ["d"]]


async def test_keys_do_not_wait_for_each_other() -> None:
    act = Act()
    asked = [asyncio.create_task(act.gathered.ask(key, key)) for key in ("a", "b")]
    await begun(act, 2)
    act.may_end.set()

    assert await asyncio.gather(*asked) == ["A", "B"]


async def test_what_is_refused_as_a_whole_is_tried_one_by_one() -> None:
    act = Act()
    asked = act.ask("a", "b", "refused", "c")
    await begun(act, 1)
    act.may_end.set()
    told = await asyncio.gather(*asked, return_exceptions=True)

    assert [str(answer) for answer in told] == ["A", "B", "one of them", "C"]


async def test_an_outage_is_told_to_all_and_tried_by_none() -> None:
    act = Act()
    asked = act.ask("a", "b", "away")
    await begun(act, 1)
    act.may_end.set()
    told = await asyncio.gather(*asked, return_exceptions=True)

    assert [str(answer) for answer in told] == ["A", "the server is away", "the server is away"]
    assert act.batches == [["a"], ["b", "away"]]


async def test_a_silent_connection_ends_with_its_time_and_stops_nobody_after_it() -> None:
    act = Act(limit_s=0.01)
    told = await asyncio.gather(*act.ask("a", "b"), return_exceptions=True)
    assert [type(answer) for answer in told] == [TimeoutError, TimeoutError]

    act.may_end.set()
    assert await act.gathered.ask("key", "c") == "C"


async def test_what_nobody_waits_for_any_more_is_not_done() -> None:
    act = Act()
    first, given_up, last = act.ask("a", "b", "c")
    await begun(act, 1)
    given_up.cancel()
    await asyncio.wait([given_up])
    act.may_end.set()

    assert await asyncio.gather(first, last) == ["A", "C"]
    assert act.batches == [["a"], ["c"]]


async def test_nobody_waits_for_ever_where_the_process_ends() -> None:
    act = Act()
    asked = act.ask("a", "b")
    await begun(act, 1)
    for acting in act.gathered._acting:
        acting.cancel()

    told = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)
    assert [type(answer) for answer in told] == [asyncio.CancelledError] * 2
