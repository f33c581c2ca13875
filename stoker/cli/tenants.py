"""``stoker tenants``: see tenants, their share, cap and limits, and change them, on the database itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from stoker.cli import show
from stoker.cli.extras import require
from stoker.cli.options import AsJson
from stoker.cli.with_database import with_database
from stoker.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from stoker.tenants import TenantRow

tenants = typer.Typer(help="See tenants, and set their share and their cap.")


@tenants.command("list")
def list_tenants(*, as_json: AsJson = False) -> None:
    """List tenants."""
    require("sqlalchemy", extra="api")
    from stoker import tenants as stored

    _show(with_database(stored.list_tenants), as_json=as_json)


@tenants.command("set")
def set_limits(
    tenant: Annotated[str, typer.Argument(help="The tenant's name.")],
    *,
    weight: Annotated[float | None, typer.Option(help="Its share: twice the weight, twice the GPU-seconds.")] = None,
    max_running: Annotated[int | None, typer.Option(min=1, help="How many jobs of a queue may run at once.")] = None,
    uncapped: Annotated[bool, typer.Option("--uncapped", help="Take the cap away.")] = False,
    max_requests_per_s: Annotated[
        float | None, typer.Option(min=0, help="How often its keys may ask, all together; 0: no limit.")
    ] = None,
    max_waiting: Annotated[int | None, typer.Option(min=0, help="How many of its jobs may wait; 0: no limit.")] = None,
    as_json: AsJson = False,
) -> None:
    """Set a tenant's share, cap and limits, from the next claim and the next request on."""
    require("sqlalchemy", extra="api")
    from stoker import tenants as stored

    if uncapped and max_running is not None:
        raise InvalidRequest("--uncapped and --max-running exclude each other", hint="Give one of them.")

    given = {"max_requests_per_s": max_requests_per_s, "max_waiting": max_waiting}
    admission = {name: value or None for name, value in given.items() if value is not None}

    async def act(db: AsyncEngine) -> TenantRow:
        return await stored.set_limits(
            db, tenant, weight=weight, max_running=max_running, uncapped=uncapped, admission=admission
        )

    _show([with_database(act)], as_json=as_json)


def _show(rows: list[TenantRow], *, as_json: bool) -> None:
    if as_json:
        show.as_json([{"name": row.name, **asdict(row.limits)} for row in rows])
        return
    show.as_table(
        ("tenant", "weight", "max running", "max requests/s", "max waiting"),
        [
            (
                row.name,
                f"{row.limits.weight:g}",
                row.limits.max_running,
                row.limits.max_requests_per_s,
                row.limits.max_waiting,
            )
            for row in rows
        ],
        empty="There is no tenant. 'stoker keys create --admin' makes the first.",
    )
