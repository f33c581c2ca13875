"""Ending: how an attempt is recorded. Store what it made, finish it or give it back, and tell who follows the job.

An engine that is away is waited for; the bytes stay in the spool meanwhile, never more than two results of a seat that
have files, and a few small ones. What
a lost lease leaves behind is discarded here and nowhere else. It claims nothing by itself: the executor asks for the
next job.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence

from stoker import jobs, log
from stoker.crash_points import Point, reach
from stoker.database import is_passing
from stoker.errors import LeaseLost, StorageUnavailable
from stoker.events import EventKind
from stoker.jobs import ClaimRequest, ErrorReport, Failed, Finished, Outcome, Output, Succeeded, Usage
from worker_node import log_file, outputs
from worker_node.attempt import GIVEN_BACK, Attempt, InternalError, StopReason, outcome_without_result
from worker_node.engines import Engines
from worker_node.host import HostResult
from worker_node.patience import Patience
from worker_node.run import Ran

logger = log.get(__name__)


async def outcome_of(engines: Engines, attempt: Attempt, ran: Ran) -> Outcome:
    """What to record. Where the run made files, or a long log, they are stored first."""
    if ran.spill is not None:
        await log_file.store(engines, attempt, ran.spill)
    if not isinstance(ran.ended, HostResult):
        return ran.ended
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        succeeded = await outputs.store(engines.storage, attempt, ran.ended)
    except (StorageUnavailable, LeaseLost) as error:
        return outcome_without_result(attempt.reason, error, attempt.claim)
    except (OSError, LookupError, TypeError, ValueError) as error:
        logger.exception("result_not_stored", **attempt.names)
        return Failed(ErrorReport.of(InternalError(f"the result could not be stored: {error}")))
    finally:
        if ran.has_files:
            await asyncio.to_thread(shutil.rmtree, ran.ended.folder, ignore_errors=True)
    if succeeded.outputs:
        ran.usage.phases["upload"] = loop.time() - began
        await _announce(engines, attempt, succeeded.outputs)
    return succeeded


async def finish(
    engines: Engines, attempt: Attempt, outcome: Outcome, usage: Usage, *, then: ClaimRequest | None = None
) -> Finished | None:
    """Record the attempt's end, with the next claim in the same transaction. None: it was not this attempt's to end."""
    if attempt.reason in GIVEN_BACK and not isinstance(outcome, Succeeded):
        await give_back(engines, attempt, GIVEN_BACK[attempt.reason], usage)
        return None
    patience = Patience(attempt, unless=attempt.lease_lost)
    is_unrecorded = True
    while not attempt.lease_lost.is_set():
        reach(Point.NODE_FINISHING)
        try:
            attempt.ending_at = asyncio.get_running_loop().time()
            finished = await engines.records.finish(attempt.claim.app, attempt.lease, outcome, usage, then)
        except Exception as error:
            if not (is_passing(error) or isinstance(error, TimeoutError)):
                raise
            is_unrecorded = False  # the answer may be all that was lost
            if not await patience.wait("job_not_finished", error):
                break
        else:
            if finished.applied:
                reach(Point.NODE_FINISHED)
                logger.info("job_ended", state=str(finished.state), **attempt.names)
                engines.metrics.finished(attempt.claim, finished, outcome, usage)
                is_final = finished.state is not None and finished.state.is_final
                engines.tell(attempt.claim.job_id, finished.seq, attempt.claim.tenant_id, is_final=is_final)
                if finished.state is not None and not is_final:
                    engines.doorbell.ring(attempt.claim.app)
                return finished
            break
    logger.warning("attempt_discarded", **attempt.names)
    engines.metrics.discarded(attempt.claim)
    if is_unrecorded and attempt.has_stored:
        await outputs.discard(engines.storage, attempt)
    return None


async def _announce(engines: Engines, attempt: Attempt, stored: Sequence[Output]) -> None:
    """An event for each output. The outputs themselves are recorded when the job is finished."""
    events = [
        (
            EventKind.OUTPUT,
            {
                **output.metadata,  # first: these names are ours, and what they say stays when a payload is removed
                "name": output.name,
                "url": outputs.link_of(output),
                "content_type": output.content_type,
                "size_bytes": output.size_bytes,
                "sha256": output.sha256,
                "attempt": attempt.claim.attempt,
            },
        )
        for output in stored
    ]
    try:
        seq = await jobs.append_events(engines.db, attempt.lease, events)
    except LeaseLost:
        attempt.stop(StopReason.LEASE_LOST)
    except Exception as error:
        if not is_passing(error):
            raise
        logger.warning("outputs_not_announced", error=str(error)[:300], **attempt.names)
    else:
        reach(Point.NODE_ANNOUNCED)
        engines.metrics.persisted.labels(EventKind.OUTPUT.value).inc(len(events))
        engines.tell(attempt.claim.job_id, seq, attempt.claim.tenant_id)


async def give_back(engines: Engines, attempt: Attempt, reason: str, usage: Usage) -> None:
    """Give the job back, unharmed, with what it took; another node is rung for."""
    try:
        moved = await jobs.release(engines.db, {attempt.lease: usage}, reason)
    except Exception as error:
        if not is_passing(error):
            raise
        logger.warning("job_not_released", next="its lease runs out", **attempt.names)
        return
    for job in moved:
        reach(Point.NODE_RELEASED)
        logger.info("job_released", **attempt.names)
        engines.tell_given_back(job)
