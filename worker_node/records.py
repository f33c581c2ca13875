"""Records: attempts of one app that end at the same time on this node are recorded together.

Each end by itself costs a commit and the app's lock. A node has one for all its apps; what an end does is
``stoker.jobs``'s, and when to try again is ``ending``'s.
"""

from __future__ import annotations

import asyncio
from functools import partial

import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import jobs
from stoker.database import is_passing
from stoker.gathered import Gathered
from stoker.jobs import ClaimRequest, End, Failed, Finished, Lease, Outcome, Usage

COMMIT_S = 10.0
"""A network that swallows packets answers nothing at all."""
MOST = 8
"""How many attempts a transaction ends: the app is locked meanwhile."""


class Records:
    """All methods belong on the node's loop."""

    def __init__(self, db: AsyncEngine) -> None:
        self._db = db
        self._gathered = Gathered[End, Finished](partial(jobs.finish_alike, db), most=MOST, limit_s=COMMIT_S)

    async def finish(
        self, app: str, lease: Lease, outcome: Outcome, usage: Usage, then: ClaimRequest | None
    ) -> Finished:
        """As ``jobs.finish``.

        Raises:
            TimeoutError: it took too long; it may have been done.
        """
        if not isinstance(outcome, Failed):
            try:
                return await self._gathered.ask(app, End(lease, outcome, usage, then))
            except psycopg.Error as error:
                if is_passing(error):
                    raise
        async with asyncio.timeout(COMMIT_S):  # what is refused for its claim's sake is recorded without
            return await jobs.finish(self._db, lease, outcome, usage, then=then)
