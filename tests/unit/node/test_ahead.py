"""The job that a seat has claimed ahead: taken in its turn, or given back."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.claims import a_claim
from worker_node.ahead import Ahead
from worker_node.attempt import Attempt

pytestmark = pytest.mark.anyio


class Given:
    """What was given back."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.came = asyncio.Event()

    async def back(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)
        self.came.set()


def claimed() -> Attempt:
    return Attempt(a_claim(), safe_until=asyncio.get_running_loop().time() + 60)


async def of(attempt: Attempt | None, after: asyncio.Event | None = None) -> Attempt | None:
    if after is not None:
        await after.wait()
    return attempt


async def test_what_was_claimed_is_taken_in_its_turn() -> None:
    given, attempt = Given(), claimed()
    ahead = Ahead(given.back, 1.0)
    ahead.begin(of(attempt))

    assert await ahead.taken() is attempt
    assert await ahead.taken() is None
    await ahead.settle()
    assert given.attempts == []


async def test_what_waits_for_too_long_is_given_back() -> None:
    given, attempt = Given(), claimed()
    ahead = Ahead(given.back, 0.01)
    ahead.begin(of(attempt))

    await asyncio.wait_for(given.came.wait(), 10)
    assert given.attempts == [attempt]
    assert await ahead.taken() is None


async def test_a_claim_that_was_dropped_on_its_way_is_given_back_when_it_is_made() -> None:
    given, attempt, made = Given(), claimed(), asyncio.Event()
    ahead = Ahead(given.back, 1.0)
    ahead.begin(of(attempt, made))
    ahead.drop()

    assert await ahead.taken() is None
    assert given.attempts == []
    made.set()
    await ahead.settle()
    assert given.attempts == [attempt]


async def test_only_short_runs_are_followed_by_a_claim_ahead_and_none_after_one_in_vain() -> None:
    ahead = Ahead(Given().back, 0.05)
    assert (ahead.pays(0.049), ahead.pays(0.051)) == (True, False)

    ahead.begin(of(None))
    await ahead.taken()

    assert not ahead.pays(0.001)


async def test_what_was_claimed_first_is_taken_first_and_what_found_nothing_is_passed_over() -> None:
    given, first, second, last = Given(), claimed(), claimed(), claimed()
    ahead = Ahead(given.back, 1.0)
    for attempt in (first, None, second, last):
        ahead.begin(of(attempt))

    assert [await ahead.taken(), await ahead.taken()] == [first, second]
    ahead.drop()
    await ahead.settle()
    assert given.attempts == [last]


async def test_a_seat_that_had_to_wait_claims_one_more_while_that_is_not_long() -> None:
    made, ahead = asyncio.Event(), Ahead(Given().back, 0.05)
    assert not ahead.lacks_one(0.001)

    ahead.begin(of(claimed(), made))
    asyncio.get_running_loop().call_soon(made.set)
    await ahead.taken()
    assert ahead.lacks_one(0.001)
    assert not ahead.lacks_one(0.06)

    for _ in range(3):
        ahead.begin(of(claimed()))
    assert ahead.lacks_one(0.01)
    assert not ahead.lacks_one(0.02)  # the last of them would begin after 0.08 s
    ahead.begin(of(claimed()))
    assert not ahead.lacks_one(0.001)
    await ahead.settle()


async def test_it_can_be_left_out() -> None:
    assert not Ahead(Given().back, 0.0).pays(0.0)
