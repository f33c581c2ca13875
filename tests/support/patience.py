"""Patience: how long a test waits for what must come, and what it says if it does not come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

PATIENCE_S = 60.0


@asynccontextmanager
async def waiting_for(subject: str | Callable[[], str], within_s: float = PATIENCE_S) -> AsyncIterator[None]:
    """Fail where what is inside takes longer. A ``subject`` that is called tells what was seen until then."""
    try:
        async with asyncio.timeout(within_s) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        said = subject if isinstance(subject, str) else subject()
        raise AssertionError(f"waited {within_s:g} s in vain for {said}") from error
