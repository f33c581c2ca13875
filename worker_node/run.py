"""Run: one attempt served by its app host, from the call until it returns, raises or is stopped.

It claims, stores and finishes nothing: the executor does. Time limits, cancels and lost leases reach it as the
attempt's ``stopped``, whoever asked.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stoker import job_logs, log
from stoker.errors import JobCancelled, StokerError
from stoker.jobs import Failed, Stopped, Usage
from worker_node.attempt import Attempt, StopReason, outcome_without_result
from worker_node.children import Calls
from worker_node.engines import Engines
from worker_node.host import AppHost, AppReplaced, HostCall, HostResult
from worker_node.inputs import Inputs
from worker_node.log_file import Spill
from worker_node.placement import Placement
from worker_node.reporter import Reporter

COMING = ("starting", "rebuilding")
"""The states of a runner whose time is nobody's: its ranks are not there yet."""

logger = log.get(__name__)


@dataclass(frozen=True)
class Ran:
    """How a run ended: a result that is to be stored, or what to record in its place."""

    ended: HostResult | Failed | Stopped
    usage: Usage
    spill: Spill | None = None
    """What its log was too long for."""

    @property
    def has_files(self) -> bool:
        return isinstance(self.ended, HostResult) and (bool(self.ended.files) or self.has_long_log)

    @property
    def has_long_log(self) -> bool:
        return self.spill is not None and self.spill.is_used


async def run(host: AppHost, engines: Engines, attempt: Attempt, placement: Placement, *, folder: Path) -> Ran:
    """Have the app serve the attempt's job, on its slots if it needs some. ``folder`` is for files of its input, and
    for what its log is too long for.
    """
    claim, loop = attempt.claim, asyncio.get_running_loop()
    files = Inputs(engines.db, engines.storage, claim, folder, allowed_hosts=engines.allowed_hosts)
    gpus = host.size if claim.uses_gpus else 0
    spill = Spill(folder / job_logs.NAME)
    began = loop.time()
    try:
        async with Reporter(engines.db, engines.bus, attempt, engines.metrics, spill) as reporter:
            call = HostCall(
                call_id=f"{claim.job_id}.{claim.attempt}",
                endpoint=claim.endpoint,
                input=claim.input,
                job_id=claim.job_id,
                attempt=claim.attempt,
                on_event=reporter.report,
                fetch=files.fetch,
                call_app=Calls(engines, attempt).call,
            )
            result, waited_s = await _serve(host, attempt, call, placement)
    except StokerError as error:
        if isinstance(error, AppReplaced):
            attempt.stop(StopReason.DRAIN)  # given back as it was: the process ended for another job's sake
        attempt.run_ended(has_result=False)
        took_s = loop.time() - began
        gpu_s = took_s * gpus if placement.is_seated(claim.app) else 0.0  # it has only waited for its slots
        usage = Usage(gpu_seconds=gpu_s, gpus=gpus, phases=_phases(attempt, took_s))
        return Ran(outcome_without_result(attempt.reason, error, claim), usage, spill)
    attempt.run_ended(has_result=True)
    usage = Usage(
        gpu_seconds=result.run_s * gpus,
        gpus=gpus,
        warm=result.warm,
        phases={"cold_start": waited_s + result.cold_start_s, **_phases(attempt, result.run_s)},
        peak_memory_bytes=result.peak_memory_bytes,
    )
    return Ran(result, usage, spill)


def _phases(attempt: Attempt, run_s: float) -> dict[str, float]:
    """The seconds that it only waited, for other apps' jobs or for its seat, apart from those that it worked."""
    children_s = min(attempt.waited_s, run_s)
    waited = {"children": children_s, "ahead": attempt.ahead_s}
    return {"run": run_s - children_s, **{name: seconds for name, seconds in waited.items() if seconds}}


async def _serve(host: AppHost, attempt: Attempt, call: HostCall, placement: Placement) -> tuple[HostResult, float]:
    """The result, and how long its slots were waited for."""
    if attempt.stopped.is_set():
        raise JobCancelled("the job was stopped before its app could take it")
    serving = asyncio.create_task(_call(host, attempt, call, placement))
    stopped = asyncio.create_task(attempt.stopped.wait())
    hurried: asyncio.Task[Literal[True]] | None = None
    try:
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            logger.info("job_stopping", reason=str(attempt.reason), **attempt.names)
            if not await host.cancel(call.call_id):
                return await _give_up(serving)
            hurried = asyncio.create_task(attempt.hurried.wait())
            await asyncio.wait({serving, hurried}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                await host.cancel(call.call_id, within_s=attempt.kill_after_s)
        return await serving
    finally:
        stopped.cancel()
        if hurried is not None:
            hurried.cancel()


async def _call(host: AppHost, attempt: Attempt, call: HostCall, placement: Placement) -> tuple[HostResult, float]:
    loop, waited_s = asyncio.get_running_loop(), 0.0
    if attempt.claim.uses_gpus and not placement.is_seated(attempt.claim.app):
        began = loop.time()
        await placement.seated(attempt.claim.app)
        waited_s = loop.time() - began
    attempt.is_begun = True
    if not attempt.claim.uses_gpus or host.status.runner not in COMING:
        attempt.start_clocks()  # the executor hears when the ranks are coming, which is not the endpoint's time
    return await host.call(call), waited_s


async def _give_up(serving: asyncio.Task[tuple[HostResult, float]]) -> tuple[HostResult, float]:
    """End a call that waits for its slots or its app's process, which may be long in coming."""
    serving.cancel()
    await asyncio.wait([serving])
    if serving.cancelled():
        raise JobCancelled("the job was stopped before its app could take it")
    return serving.result()
