"""The loop: each duty at its own pace, none in another's way.

A duty that fails is logged and tried again; one that Postgres keeps waiting is silent until it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from api.control.metrics import ControlMetrics
from stoker import log
from stoker.database import is_unreachable

PAUSE_AFTER_FAILURE_S = 1.0

logger = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Duty:
    """Something to do every ``every_s`` seconds. Two replicas may do it at once."""

    name: str
    every_s: float
    run: Callable[[], Awaitable[None]]


async def run_duties(duties: Sequence[Duty], stopping: asyncio.Event, metrics: ControlMetrics | None = None) -> None:
    """Do all of them until ``stopping`` is set; what runs then is finished."""
    async with asyncio.TaskGroup() as group:
        for duty in duties:
            group.create_task(_repeat(duty, stopping, metrics or ControlMetrics()))


async def _repeat(duty: Duty, stopping: asyncio.Event, metrics: ControlMetrics) -> None:
    is_down = False
    while not stopping.is_set():
        pause_s = duty.every_s
        try:
            with metrics.duty_seconds.labels(duty.name).time():
                await duty.run()
            if is_down:
                logger.info("duty_back", duty=duty.name)
            is_down = False
        except Exception as error:
            pause_s = max(pause_s, PAUSE_AFTER_FAILURE_S)
            metrics.duty_failures.labels(duty.name).inc()
            if not is_unreachable(error):
                logger.exception("duty_failed", duty=duty.name, next="tried again")
            elif not is_down:
                is_down = True
                logger.warning("duty_waits_for_postgres", duty=duty.name, reason=str(error)[:200])
        await _pause(stopping, pause_s)


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return
