"""Tenants: the share of an app that each gets, how much it may run at once, how often ask and how much keep waiting.

Keys speak for tenants (``stoker.keys`` makes both). The API and the command line call this for admins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import sql
from stoker.database import reading, transaction
from stoker.errors import InvalidRequest, NotFound
from stoker.keys import Caller
from stoker.tables import tenants
from stoker.tables.columns import NO_CAP

LEAST_WEIGHT, MOST_WEIGHT = 0.001, 1000.0
LEAST_RATE = 0.001


@dataclass(frozen=True)
class Limits:
    """A tenant of twice the ``weight`` gets twice the GPU-seconds where both want them.

    ``max_running`` counts the jobs of one lane, the tenant's part of a queue, ``max_waiting`` all that are queued or
    scheduled; None is no limit.
    """

    weight: float = 1.0
    max_running: int | None = None
    max_requests_per_s: float | None = None
    max_waiting: int | None = None


@dataclass(frozen=True)
class TenantRow:
    """A tenant as a list shows it."""

    id: UUID
    name: str
    limits: Limits


async def list_tenants(db: AsyncEngine) -> list[TenantRow]:
    """All tenants by name."""
    async with reading(db) as tx:
        found = (await tx.execute(select(tenants).order_by(tenants.c.name))).mappings().all()
    return [TenantRow(row["id"], row["name"], _limits(dict(row))) for row in found]


async def find(db: AsyncEngine, name: str) -> UUID:
    """The id of the tenant of this name.

    Raises:
        NotFound: there is none.
    """
    async with reading(db) as tx:
        found: UUID | None = (await tx.execute(select(tenants.c.id).where(tenants.c.name == name))).scalar_one_or_none()
    if found is None:
        raise NotFound(f"there is no tenant {name[:200]!r}", hint="A tenant is made with its first key.")
    return found


async def set_limits(
    db: AsyncEngine,
    name: str,
    *,
    weight: float | None = None,
    max_running: int | None = None,
    uncapped: bool = False,
    admission: Mapping[str, float | None] | None = None,
    by: Caller | None = None,
) -> TenantRow:
    """Change a tenant and all its lanes, from the next claim on; what is None stays. ``uncapped`` takes the cap away.

    ``admission`` may name ``max_requests_per_s`` and ``max_waiting``, where None takes a limit away.

    Raises:
        NotFound: there is no such tenant.
        InvalidRequest: a weight or a cap that cannot be.
    """
    if weight is not None and not (math.isfinite(weight) and LEAST_WEIGHT <= weight <= MOST_WEIGHT):
        raise InvalidRequest(f"a weight is between {LEAST_WEIGHT} and {MOST_WEIGHT:g}", hint="The default is 1.")
    if max_running is not None and not 1 <= max_running < NO_CAP:
        raise InvalidRequest("a cap is at least 1", hint="To let nothing run, pause the app or revoke the keys.")
    admission = admission or {}
    _check_admission(admission)
    async with transaction(db) as tx:
        # Before its row, which each new key and lane of the tenant waits for. Behind it no lane is new, and all but
        # those made since are locked already.
        await sql.run(tx, "lock_apps_of_tenant", {"name": name})
        held = await sql.row(tx, "hold_tenant", {"name": name})
        if held is None:
            raise NotFound(f"there is no tenant {name[:200]!r}", hint="A tenant is made with its first key.")
        limits = _limits(held)
        if weight is not None:
            limits = replace(limits, weight=weight)
        if max_running is not None or uncapped:
            limits = replace(limits, max_running=max_running)
        if (waiting := admission.get("max_waiting", limits.max_waiting)) is not None:
            waiting = int(waiting)
        limits = replace(
            limits,
            max_requests_per_s=admission.get("max_requests_per_s", limits.max_requests_per_s),
            max_waiting=waiting,
        )
        await sql.run(tx, "lock_apps_of_tenant", {"name": name})
        values = {
            "tenant_id": held["id"],
            "name": held["name"],
            "weight": limits.weight,
            "max_running": NO_CAP if limits.max_running is None else limits.max_running,
            "max_requests_per_s": limits.max_requests_per_s,
            "max_waiting": limits.max_waiting,
            "by_tenant": by and by.tenant_id,
            "by_key": by and by.key_id,
        }
        await sql.run(tx, "set_tenant", values)
    return TenantRow(held["id"], held["name"], limits)


def _check_admission(admission: Mapping[str, float | None]) -> None:
    for name, value in admission.items():
        if name not in ("max_requests_per_s", "max_waiting"):
            raise InvalidRequest(f"a tenant has no limit {name!r}", hint="Set max_requests_per_s or max_waiting.")
        least = LEAST_RATE if name == "max_requests_per_s" else 1
        if value is not None and not least <= value < NO_CAP:
            raise InvalidRequest(f"{name} is at least {least:g}", hint="To let nobody in, revoke the keys.")


def _limits(row: Mapping[str, Any]) -> Limits:
    cap = row["max_running"]
    return Limits(row["weight"], None if cap == NO_CAP else cap, row["max_requests_per_s"], row["max_waiting"])
