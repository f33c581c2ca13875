"""Jobs that are submitted at the same time."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from stoker import apps
from stoker.database import make_engine
from stoker.errors import InvalidRequest
from stoker.jobs import Submitted
from stoker.submits import Submits
from tests.support.job_world import World, manifest

pytestmark = pytest.mark.anyio

TRANSACTIONS = "SELECT count(DISTINCT xmin::text) FROM jobs"


async def test_jobs_that_come_at_the_same_time_share_a_transaction(world: World) -> None:
    submits = Submits(world.db)
    asked = [submits.submit(world.new_job(input={"n": n}, priority=9 - n % 3)) for n in range(20)]
    told = await asyncio.gather(*asked)

    stored = await world.rows("SELECT id, input FROM jobs")
    assert {row["id"]: row["input"]["n"] for row in stored} == {job.job_id: n for n, job in enumerate(told)}
    assert await world.value(TRANSACTIONS) == 2  # whoever is first waits for nobody
    assert [(job.created, job.fresh and job.fresh.queue_position is not None) for job in told] == [(True, True)] * 20
    assert await world.value("SELECT count(*) FROM job_events") == 20
    assert await world.rows("SELECT prio, has_ready FROM queue_lanes") == [{"prio": 7, "has_ready": True}]


async def test_a_job_that_postgres_refuses_costs_the_others_nothing(world: World) -> None:
    submits = Submits(world.db)
    first = submits.submit(world.new_job())  # the others wait for its transaction, and so come together
    asked = [submits.submit(world.new_job(tags=("a\0b",) if n == 2 else ())) for n in range(5)]
    told = await asyncio.gather(first, *asked, return_exceptions=True)

    assert [type(answer) for answer in told] == [Submitted] * 3 + [psycopg.DataError] + [Submitted] * 2
    assert await world.value("SELECT count(*) FROM jobs") == 5


async def test_a_job_that_cannot_be_stored_is_refused_before_it_is_put_to_others(world: World) -> None:
    with pytest.raises(InvalidRequest):
        await Submits(world.db).submit(world.new_job(input={"text": "a\0b"}))
    assert await world.value("SELECT count(*) FROM jobs") == 0


async def test_lanes_do_not_wait_for_each_other(world: World) -> None:
    other = await apps.publish(world.db, manifest("acme/other"))
    submits = Submits(world.db)
    asked = [submits.submit(world.new_job(version=version)) for version in (world.default, other) for _ in range(3)]
    await asyncio.gather(*asked)

    assert await world.value(TRANSACTIONS) == 4
    assert await world.value("SELECT count(*) FROM queue_lanes WHERE has_ready") == 2


async def test_all_hear_that_postgres_is_away(world: World) -> None:
    nowhere = make_engine("postgresql://nobody@127.0.0.1:1/none", application_name="test")
    submits = Submits(nowhere)
    told = await asyncio.gather(*(submits.submit(world.new_job()) for _ in range(5)), return_exceptions=True)

    assert [type(answer) for answer in told] == [psycopg.OperationalError] * 5


async def test_whoever_gives_up_takes_nobody_with_them(world: World) -> None:
    submits = Submits(world.db)
    asked = [asyncio.create_task(submits.submit(world.new_job())) for _ in range(3)]
    await asyncio.sleep(0)  # all are on their way
    asked[0].cancel()
    told = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(answer) for answer in told] == [asyncio.CancelledError, Submitted, Submitted]


async def test_a_key_is_a_job_of_its_own(world: World) -> None:
    submits = Submits(world.db)
    told = await asyncio.gather(*(submits.submit(world.new_job(idempotency_key="once")) for _ in range(4)))

    assert len({job.job_id for job in told}) == 1
    assert sorted(job.created for job in told) == [False, False, False, True]


async def test_a_lane_that_is_gone_since_it_was_heard_of_is_made_again(world: World) -> None:
    submits = Submits(world.db)
    first = await submits.submit(world.new_job())
    await world.rows("DELETE FROM jobs WHERE id = :id", id=first.job_id)
    await world.rows("DELETE FROM queue_lanes")

    again = [await submits.submit(world.new_job()) for _ in range(2)]

    assert [job.created for job in again] == [True, True]
    assert await world.rows("SELECT has_ready FROM queue_lanes") == [{"has_ready": True}]
