"""What the end of an app's process means for the calls in it, those that waited for another app among them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from stoker.errors import CrashedBeside, WorkerCrashed
from stoker.ids import new_id
from worker_node.apphost import protocol
from worker_node.host_call import PendingCall
from worker_node.host_calls import HostCalls
from worker_node.host_values import AppAnswer, AppCall, AppReplaced, AppSpec, HostCall

pytestmark = pytest.mark.anyio

MOST = 4


@pytest.fixture
async def calls(tmp_path: Path) -> HostCalls:
    """Those of a process that is up."""
    return calls_of(tmp_path, alone_s=5.0)


def calls_of(spool: Path, alone_s: float) -> HostCalls:
    made = HostCalls(AppSpec("tests.apps.well:Echo", None, spool, {}, alone_s), lambda _: None, lambda: None)
    made.came_up()
    return made


def begin(calls: HostCalls, job_id: UUID, *, waits: bool = False) -> PendingCall:
    async def fetch(_url: str) -> Path:
        return await asyncio.Future()

    async def call_app(_asked: AppCall) -> AppAnswer:
        return await asyncio.Future()

    call = HostCall(str(job_id), "/", {}, job_id, 1, lambda _: None, fetch, call_app)
    pending = calls.begin(call, uses_gpus=False)
    if waits:
        calls.take(protocol.CallApp(call.call_id, 0, "tests/other", "/", "{}", None))
    return pending


async def crash(calls: HostCalls) -> None:
    """The process dies, and another takes its place."""
    calls.went_down("it died", WorkerCrashed("it died"), was_killed=False)
    await asyncio.sleep(0)  # whoever awaited them has heard of it
    calls.came_up()


def fate(pending: PendingCall) -> type[BaseException]:
    return type(pending.outcome.exception())


async def test_a_call_that_waits_may_have_killed_the_process_as_well_as_the_one_beside_it(calls: HostCalls) -> None:
    parent, other = begin(calls, new_id(), waits=True), begin(calls, new_id())

    await crash(calls)

    assert (fate(parent), fate(other)) == (CrashedBeside, CrashedBeside)
    assert calls.are_one_at_a_time


async def test_a_suspect_that_waits_is_alone_for_a_while_and_is_charged_if_the_process_dies(calls: HostCalls) -> None:
    job_id = new_id()
    begin(calls, job_id, waits=True)
    begin(calls, new_id())
    await crash(calls)
    again = begin(calls, job_id, waits=True)

    had_room = calls.have_room(uses_gpus=False, most=MOST)
    await crash(calls)

    assert not had_room
    assert fate(again) is WorkerCrashed


async def test_a_suspect_that_waited_alone_makes_room_for_its_child_and_is_not_blamed_for_it(tmp_path: Path) -> None:
    calls = calls_of(tmp_path, alone_s=1e-9)
    parent_id, child_id = new_id(), new_id()
    begin(calls, parent_id, waits=True)
    begin(calls, child_id)
    await crash(calls)
    parent = begin(calls, parent_id, waits=True)

    has_room = calls.have_room(uses_gpus=False, most=MOST)
    child = begin(calls, child_id)
    await crash(calls)

    assert has_room
    assert (fate(parent), fate(child)) == (AppReplaced, WorkerCrashed)


async def test_calls_that_wait_take_no_room_where_nobody_is_suspected(calls: HostCalls) -> None:
    for _ in range(3 * MOST):
        begin(calls, new_id(), waits=True)

    assert calls.have_room(uses_gpus=False, most=MOST)
