"""A node that is cut off from Postgres or from the object store in the middle of a job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from stoker import App, jobs
from stoker.local.engines import Engines
from stoker.states import JobState
from tests.support.databases import fresh_database
from tests.support.nodes import Desk, NodeProcess, eventually, running_node
from tests.support.proxy import Proxy, proxy

pytestmark = pytest.mark.anyio

APPS = ["tests.apps.well:Echo"]

REFUSE_OUTPUTS = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no output is taken'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON job_outputs FOR EACH ROW EXECUTE FUNCTION refuse()
"""


@pytest.fixture
def database_url(engines: Engines) -> Iterator[str]:
    with fresh_database(engines) as url:
        yield url


@pytest.fixture
def relay(database_url: str) -> Iterator[Proxy]:
    with proxy(_port(database_url)) as relay:
        yield relay


async def test_a_short_loss_of_postgres_costs_neither_a_result_nor_a_log_line(
    engines: Engines, database_url: str, relay: Proxy, desk: Desk, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    slow = {"STOKER_LEASE_S": "60", "STOKER_HEARTBEAT_S": "0.3"}
    with running_node(engines, _through(database_url, relay), tmp_path, APPS, **slow) as node:
        silent = await desk.submit("tests/echo", "/wait", wait_for=str(end))
        talker = await desk.submit("tests/echo", "/wait", wait_for=str(end), last_words="said in the dark")
        await desk.says(silent, "waiting")
        await desk.says(talker, "waiting")

        relay.cut()
        await _logged(node, "postgres_lost")
        end.touch()
        await _logged(node, "job_not_finished")
        await _logged(node, "log_lines_kept")
        relay.mend()

        for job_id in (silent, talker):
            job = await desk.final(job_id)
            assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
    lines = [data["message"] for kind, data in await desk.events(talker) if kind == "log"]
    assert lines == ["waiting", "said in the dark"]


async def test_a_node_that_cannot_renew_stops_its_work_before_another_may_start_it(
    engines: Engines, database_url: str, relay: Proxy, desk: Desk, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    short = {"STOKER_LEASE_S": "6", "STOKER_HEARTBEAT_S": "0.3"}
    with running_node(engines, _through(database_url, relay), tmp_path, APPS, **short) as node:
        job_id = await desk.submit("tests/echo", "/wait", wait_for=str(end))
        await desk.says(job_id, "waiting")

        relay.cut()
        await _logged(node, "job_not_finished")
        assert await jobs.reap(desk.db) == [], "the work stopped while the lease still ran"
        await eventually(lambda: _reaped(desk), lambda: "the lease to run out")
        end.touch()
        relay.mend()

        job = await desk.final(job_id)
    assert job.state is JobState.SUCCEEDED
    assert [attempt.outcome for attempt in job.attempts] == ["lease_lost", "succeeded"]


async def test_work_that_does_not_heed_its_stop_is_gone_before_a_short_lease_ends(
    engines: Engines, database_url: str, relay: Proxy, desk: Desk, tmp_path: Path
) -> None:
    """Its app's process would be asked for longer than the lease has left."""
    short = {"STOKER_LEASE_S": "4", "STOKER_HEARTBEAT_S": "0.3"}
    with running_node(engines, _through(database_url, relay), tmp_path, ["tests.apps.badly:Blocker"], **short) as node:
        job_id = await desk.submit("tests/blocker", path=str(tmp_path / "never"))
        await desk.says(job_id, "blocking")

        relay.cut()
        await _logged(node, "job_not_finished")

        assert "cancel_was_not_heard" in node.log
        assert await jobs.reap(desk.db) == [], "the process was killed while the lease still ran"


async def test_an_outage_longer_than_the_lease_costs_no_result_and_counts_no_crash(
    engines: Engines, database_url: str, relay: Proxy, desk: Desk, tmp_path: Path
) -> None:
    end, never = tmp_path / "end", tmp_path / "never"
    short = {"STOKER_LEASE_S": "6", "STOKER_HEARTBEAT_S": "0.3"}
    with running_node(engines, _through(database_url, relay), tmp_path, APPS, **short) as node:
        done = await desk.submit("tests/echo", "/wait", wait_for=str(end))
        stopped = await desk.submit("tests/echo", "/wait", wait_for=str(never))
        await desk.says(done, "waiting")
        await desk.says(stopped, "waiting")

        relay.cut()
        end.touch()
        await _logged(node, "not_renewed")
        await eventually(lambda: _all_expired(desk), lambda: "the leases to run out")
        relay.mend()

        finished = await desk.final(done)
        again = await desk.until(stopped, lambda job: job.state is JobState.SCHEDULED)
    assert (finished.state, finished.attempt) == (JobState.SUCCEEDED, 1)
    assert [attempt.error["code"] for attempt in again.attempts if attempt.error] == ["unavailable"]
    async with desk.db.connect() as connection:
        counts = "SELECT failures + crashes FROM jobs WHERE id = %(id)s"
        counted = await connection.exec_driver_sql(counts, {"id": stopped})
        assert counted.scalar_one() == 0


async def test_a_result_waits_for_an_object_store_that_is_away(
    engines: Engines, database_url: str, desk: Desk, tmp_path: Path
) -> None:
    with proxy(_port(engines.s3.endpoint_url)) as relay:
        away = replace(engines, s3=replace(engines.s3, endpoint_url=_through(engines.s3.endpoint_url, relay)))
        with running_node(away, database_url, tmp_path, APPS) as node:
            relay.cut()
            job_id = await desk.submit("tests/echo", "/file", text="kept in the spool")
            await _logged(node, "output_not_stored")
            relay.mend()

            job = await desk.final(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
    assert [output.size_bytes for output in job.outputs] == [len("kept in the spool")]


async def test_results_that_cannot_be_stored_do_not_pile_up_and_none_is_made_twice(
    engines: Engines, database_url: str, desk: Desk, tmp_path: Path
) -> None:
    """A seat takes one more job beside the result that waits, and then waits for the store, too."""
    most = 2 * App.max_multiplexing
    with proxy(_port(engines.s3.endpoint_url)) as relay:
        away = replace(engines, s3=replace(engines.s3, endpoint_url=_through(engines.s3.endpoint_url, relay)))
        with running_node(away, database_url, tmp_path, APPS, STOKER_LOOK_S="0.2") as node:
            relay.cut()
            job_ids = [await desk.submit("tests/echo", "/file", text=f"job {number}") for number in range(most + 4)]

            async def kept() -> int | None:
                async with desk.db.connect() as connection:
                    found = await connection.exec_driver_sql("SELECT count(*) FROM job_leases")
                count: int = found.scalar_one()
                return count if count >= most else None

            async def tried_again() -> bool | None:
                return node.log.count("output_not_stored") >= 2 * App.max_multiplexing or None

            await eventually(kept, lambda: f"{most} leases:\n{node.log}")
            await eventually(tried_again, lambda: f"more tries to store:\n{node.log}")  # more would be held by then
            held = await kept()
            spooled = len(list((tmp_path / "nodes").glob("*/spool/*/calls/*")))
            relay.mend()

            done = [await desk.final(job_id) for job_id in job_ids]
    assert held == most
    assert spooled <= most
    assert {(job.state, job.attempt) for job in done} == {(JobState.SUCCEEDED, 1)}


async def test_a_result_that_cannot_be_recorded_costs_its_own_attempt_alone(
    engines: Engines, database_url: str, desk: Desk, tmp_path: Path
) -> None:
    short = {"STOKER_LEASE_S": "3", "STOKER_HEARTBEAT_S": "0.3"}
    with running_node(engines, database_url, tmp_path, APPS, **short) as node:
        await _run(desk, REFUSE_OUTPUTS)
        job_ids = [await desk.submit("tests/echo", "/file", text=f"job {number}") for number in range(6)]
        await _logged(node, "no output is taken")
        await _run(desk, "DROP TRIGGER refuse ON job_outputs")

        async def ended() -> bool | None:
            await jobs.reap(desk.db)
            return all([(await desk.get(job_id)).state.is_final for job_id in job_ids]) or None

        await eventually(ended, lambda: f"the end of all jobs:\n{node.log}")
        assert {(await desk.get(job_id)).state for job_id in job_ids} == {JobState.SUCCEEDED}


async def _run(desk: Desk, statements: str) -> None:
    async with desk.db.begin() as connection:
        await connection.exec_driver_sql(statements)


async def _logged(node: NodeProcess, words: str) -> None:
    async def look() -> bool | None:
        return words in node.log or None

    await eventually(look, lambda: f"{words!r} in the node's log:\n{node.log}")


async def _all_expired(desk: Desk) -> bool | None:
    async with desk.db.connect() as connection:
        found = await connection.exec_driver_sql("SELECT bool_and(expires_at < stoker_now()) FROM job_leases")
        return found.scalar_one() or None


async def _reaped(desk: Desk) -> list[jobs.Moved] | None:
    return await jobs.reap(desk.db) or None


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def _through(url: str, relay: Proxy) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{relay.port}")))
