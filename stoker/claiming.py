"""The claim, as a statement with its values: what a node asks for, and what it is given.

``stoker.jobs`` sends it, alone or in the transaction that ends the job before.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import psycopg
from psycopg.rows import DictRow

from stoker import sql
from stoker.database import Connection
from stoker.job_values import Claim, ClaimRequest, Lease
from stoker.sql import Step

log = logging.getLogger(__name__)


def lock(request: ClaimRequest) -> Step:
    """What comes first in the transaction of a claim by itself."""
    return "lock_app_of_version", {"version_id": request.queues[0].version_id}


def step(request: ClaimRequest, *, after: Lease | None = None) -> Step:
    """The claim. With ``after`` it takes something only if its own transaction has ended that attempt."""
    return "claim+below" if request.least_depth else "claim", {
        "versions": [queue.version_id for queue in request.queues],
        "gpus": [queue.uses_gpus for queue in request.queues],
        "node_id": request.node_id,
        "boot_id": request.boot_id,
        "runner": request.runner,
        "lease_s": request.lease_s,
        "least_depth": request.least_depth,
        "after_job": after and after.job_id,
        "after_attempt": after and after.attempt,
    }


def taken(rows: Sequence[DictRow]) -> Claim | None:
    """What its answer says."""
    return Claim(**rows[0]) if rows else None


async def claim_or_leave_it(tx: Connection, request: ClaimRequest) -> Claim | None:
    """A claim that, should it fail, takes nothing of the transaction with it: the result before it must stand."""
    try:
        async with tx.transaction():
            return taken(await sql.rows(tx, *step(request)))
    except psycopg.Error:
        log.exception("claim after finish failed; the node will look again", extra={"node_id": request.node_id})
        return None
