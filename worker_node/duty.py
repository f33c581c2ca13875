"""Duties: what a node does for as long as it lives. It knows none of them; the node has it keep them up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from stoker import log
from stoker.database import is_unreachable

PAUSE_S = 1.0

logger = log.get(__name__)


async def keep_up(duty: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a duty for ever: a surprise in one turn of it must not leave the node without it."""
    while True:
        try:
            await duty()
        except Exception as error:
            if is_unreachable(error):
                logger.debug("duty_paused", duty=duty.__name__, error=str(error)[:300])
            else:
                logger.exception("duty_failed", duty=duty.__name__, next="begins again")
            await asyncio.sleep(PAUSE_S)
