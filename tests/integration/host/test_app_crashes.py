"""Apps that misbehave: they end their own calls and disturb nothing else."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stoker.errors import AppDefinitionError, CrashedBeside, JobCancelled, WorkerCrashed
from stoker.ids import new_id
from tests.integration.host.conftest import Serve
from tests.support.processes import Watched
from worker_node import host_ranks, host_remains
from worker_node.host import AppReplaced
from worker_node.host_process import HostProcess
from worker_node.host_remains import RanksRemain

pytestmark = pytest.mark.anyio

SUPERVISOR = """
import asyncio, os, sys
from pathlib import Path
from worker_node.host import AppHost, AppSpec

async def main():
    spec = AppSpec(sys.argv[1], 2, Path(sys.argv[2]), dict(os.environ))
    host = AppHost(spec, on_change=lambda status: None)
    host.place(None)
    await host.start()
    await host.warm_up()
    print("pids", *[host.status.pid, *host.status.rank_pids], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_an_app_that_blocks_its_event_loop_disturbs_no_other_app(serve: Serve, tmp_path: Path) -> None:
    rude, plain = await serve("Rude"), await serve("Plain")
    go = tmp_path / "go"
    blocked = asyncio.create_task(rude.call(what="block", path=str(go)))
    await rude.until(lambda: len(rude.events) == 1)

    others = [(await plain.call(what=str(number))).result["what"] for number in range(5)]
    still_blocked = not blocked.done()
    go.touch()

    assert others == ["0", "1", "2", "3", "4"]
    assert still_blocked
    assert (await blocked).result["pid"] == rude.host.status.pid


async def test_an_app_that_does_not_give_its_slots_up_loses_its_ranks_and_no_call(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_ranks, "VACATE_S", 0.1)
    ranked = await serve("Ranked", world_size=1)
    helper = (await ranked.call(what="helper")).result["pid"]
    pid, ranks = ranked.host.status.pid, Watched([*ranked.host.status.rank_pids, helper])
    blocked = asyncio.create_task(ranked.call("/light", what="block", path=str(tmp_path / "go")))
    await ranked.until(lambda: {"about": "block"} in [event.data for event in ranked.events])

    await ranked.host.vacate()
    have_ended = ranks.have_ended(within_s=0)
    ranked.host.place(None)
    is_blocked = not blocked.done()
    (tmp_path / "go").touch()
    light = await blocked
    again = await ranked.call()

    assert (have_ended, is_blocked) == (True, True)
    assert light.result == {"what": "block"}
    assert again.result["calls"] == 1, "the ranks of its next place are not ended with those of the last"
    assert (ranked.host.status.pid, ranked.host.status.restarts) == (pid, 0)


async def test_an_eviction_that_left_ranks_says_so_until_they_are_gone(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_ranks, "VACATE_S", 0.1)
    rude = await serve("Rude")
    blocked = asyncio.create_task(rude.call(what="block beside a rank", path=str(tmp_path / "go")))
    await rude.until(lambda: len(rude.events) == 1)

    monkeypatch.setattr(host_remains, "KERNEL_S", 0)
    with pytest.raises(RanksRemain):
        await rude.host.vacate()
    monkeypatch.setattr(host_remains, "KERNEL_S", 60)
    await rude.host.vacate()

    (tmp_path / "go").touch()
    await blocked


async def test_an_app_whose_ranks_were_broken_is_served_again_after_it_gave_its_slots_up(serve: Serve) -> None:
    rude = await serve("Rude")
    await rude.call(what="broken ranks")
    before = rude.host.status.runner, rude.host.can_start(True)

    await rude.host.vacate()
    after = rude.host.status.runner, rude.host.can_start(True)
    await rude.call(what="broken ranks")  # what was still to be said of those that have ended

    assert (before, after) == (("broken", False), ("none", True))
    assert rude.host.can_start(True)


@pytest.mark.parametrize("what", ["block", "deaf"])
async def test_a_cancel_that_an_app_does_not_heed_ends_its_process(serve: Serve, tmp_path: Path, what: str) -> None:
    rude = await serve("Rude")
    pid = rude.host.status.pid
    call = asyncio.create_task(rude.call(call_id="mine", what=what, path=str(tmp_path / "never")))
    await rude.until(lambda: len(rude.events) == 1)

    await rude.host.cancel("mine")
    with pytest.raises(JobCancelled):
        await call

    assert (await rude.call()).result["pid"] != pid
    assert rude.host.status.restarts == 1


async def test_a_call_beside_one_that_does_not_heed_its_cancel_is_not_blamed(serve: Serve, tmp_path: Path) -> None:
    rude = await serve("Rude")
    never = str(tmp_path / "never")
    stubborn = asyncio.create_task(rude.call(call_id="stubborn", what="deaf", path=never))
    beside = asyncio.create_task(rude.call(call_id="beside", what="deaf", path=never))
    await rude.until(lambda: len(rude.events) == 2)

    await rude.host.cancel("stubborn")
    with pytest.raises(JobCancelled):
        await stubborn
    with pytest.raises(AppReplaced) as caught:
        await beside

    assert (caught.value.crash, caught.value.retryable) == (False, True)


@pytest.mark.parametrize(("what", "code"), [("exit", "7"), ("background exit", "5"), ("fork", "9")])
async def test_an_app_that_exits_fails_its_calls_and_is_started_again(
    serve: Serve, tmp_path: Path, what: str, code: str
) -> None:
    rude = await serve("Rude")
    pid = rude.host.status.pid

    with pytest.raises(WorkerCrashed, match=f"exit code {code}"):
        await rude.call(what=what, path=str(tmp_path / "never"))

    assert (await rude.call()).result["pid"] != pid


async def test_calls_that_shared_a_process_that_died_are_told_apart_from_one_that_was_alone(
    serve: Serve, tmp_path: Path
) -> None:
    rude = await serve("Rude")
    never, guilty, innocent = str(tmp_path / "never"), new_id(), new_id()
    beside = asyncio.create_task(rude.call(job_id=innocent, what="deaf", path=never))
    await rude.until(lambda: len(rude.events) == 1)

    with pytest.raises(CrashedBeside, match="exit code 7 while it served 2 jobs"):
        await rude.call(job_id=guilty, what="exit")
    with pytest.raises(CrashedBeside):
        await beside
    await rude.until(lambda: rude.host.status.restarts == 1 and rude.host.status.state == "ready")
    was_careful = rude.host.serves_one_at_a_time
    again = asyncio.create_task(rude.call(job_id=innocent, what="block", path=str(tmp_path / "go")))
    await rude.until(lambda: len(rude.events) == 3)
    could_take_another = rude.host.can_start(False)
    (tmp_path / "go").touch()
    await again
    with pytest.raises(WorkerCrashed, match="exit code 7"):
        await rude.call(job_id=guilty, what="exit")

    assert (was_careful, could_take_another) == (True, False)


async def test_an_app_serves_several_calls_again_when_no_suspect_is_left(serve: Serve) -> None:
    rude = await serve("Rude")
    jobs = [new_id(), new_id()]
    calls = [asyncio.create_task(rude.call(job_id=job_id, what="deaf", path="/never")) for job_id in jobs]
    await rude.until(lambda: len(rude.events) == 2)
    os.kill(rude.host.status.pid, signal.SIGKILL)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    for job_id in jobs:
        careful = rude.host.serves_one_at_a_time
        await rude.call(job_id=job_id)

    assert [type(outcome) for outcome in outcomes] == [CrashedBeside, CrashedBeside]
    assert careful
    assert not rude.host.serves_one_at_a_time


async def test_an_app_that_writes_to_the_private_socket_is_started_again(serve: Serve) -> None:
    rude = await serve("Rude")
    pid = rude.host.status.pid

    with pytest.raises(WorkerCrashed):
        await rude.call(what="scribble")

    assert (await rude.call()).result["pid"] != pid


async def test_what_an_app_prints_goes_to_the_log_and_never_to_the_socket(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    rude = await serve("Rude")

    result = await rude.call(what="print")
    again = await rude.call()
    await rude.host.stop(2)

    printed = "".join(capfd.readouterr())
    assert result.result == again.result
    assert "garbage" in printed
    assert "and more" in printed


async def test_an_app_host_that_is_killed_comes_back_warm(serve: Serve) -> None:
    ranked = await serve("Ranked", world_size=1)
    await ranked.host.warm_up()
    before = ranked.host.status

    rank = Watched(before.rank_pids)

    os.kill(before.pid, signal.SIGKILL)
    await ranked.until(lambda: ranked.host.status.restarts == 1 and ranked.host.status.runner == "warm")

    assert rank.have_ended(within_s=10)
    assert ranked.host.status.pid != before.pid
    assert (await ranked.call()).result["calls"] == 1


async def test_what_a_rank_started_ends_with_an_app_host_that_is_killed(serve: Serve) -> None:
    ranked = await serve("Ranked", world_size=1)
    helper = Watched([(await ranked.call(what="helper")).result["pid"]])

    os.kill(ranked.host.status.pid, signal.SIGKILL)
    await ranked.until(lambda: ranked.host.status.restarts == 1)

    assert helper.have_ended(within_s=10)


async def test_an_app_host_that_the_machine_cannot_start_at_once_is_started_later(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = await serve("Plain")
    tries: list[str] = []

    def stingy(name: str, *rest: Any) -> HostProcess:
        tries.append(name)
        if len(tries) == 1:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return HostProcess(name, *rest)

    monkeypatch.setattr("worker_node.host.HostProcess", stingy)
    os.kill(plain.host.status.pid, signal.SIGKILL)
    await plain.until(lambda: plain.host.status.restarts == 1 and plain.host.status.state == "ready")

    assert len(tries) == 2
    assert (await plain.call(what="back")).result["what"] == "back"


async def test_an_app_host_that_died_comes_back_when_what_its_ranks_held_is_free(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = await serve("Plain")
    asked, freed = asyncio.Event(), asyncio.Event()

    async def session_ends(_leader: int, _within_s: float) -> bool:
        asked.set()
        return await freed.wait()

    monkeypatch.setattr(host_remains, "session_ends", session_ends)
    os.kill(plain.host.status.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        await asked.wait()
    meanwhile = plain.host.status.state
    freed.set()
    await plain.until(lambda: plain.host.status.state == "ready")

    assert (meanwhile, plain.host.status.restarts) == ("down", 1)


async def test_killing_the_supervisor_leaves_no_process(tmp_path: Path) -> None:
    app = f"{Path(__file__).parent}/serving.py:Ranked"
    command = [sys.executable, "-c", SUPERVISOR, app, str(tmp_path / "spool")]
    supervisor = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    while (line := (await asyncio.to_thread(supervisor.stdout.readline)).split())[0] not in ("pids", b"pids"):
        pass  # what the supervisor logs
    pids = [int(pid) for pid in line[1:]]

    watched = Watched(pids)

    supervisor.kill()
    supervisor.communicate()

    assert len(pids) == 3
    assert watched.have_ended(within_s=10)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import nothing_of_this_name", "nothing_of_this_name"),
        ("raise SystemExit(4)", "SystemExit: 4"),
        ("import os; print('last words', flush=True); os._exit(6)", "exit code 6"),
        ("Served = 3", "no App called Served"),
        ("from stoker import App\nclass Served(App): pass", "Served has no name"),
    ],
)
async def test_an_app_that_cannot_be_served_says_why_when_the_node_starts(
    serve: Serve, tmp_path: Path, source: str, says: str
) -> None:
    (tmp_path / "users_app.py").write_text(source)

    with pytest.raises(AppDefinitionError, match=says) as caught:
        await serve(f"{tmp_path}/users_app.py:Served")

    assert caught.value.hint
