"""``stoker keys``: make, list and revoke API keys, on the database itself.

This is how the first key comes into being; it needs DATABASE_URL (or the local stack's) and no running API.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from stoker.cli import show
from stoker.cli.extras import require
from stoker.cli.options import AsJson
from stoker.cli.with_database import with_database
from stoker.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

keys = typer.Typer(help="Make, list and revoke API keys.")

Tenant = Annotated[str, typer.Option("--tenant", help="Whose jobs the key sees. Made if it is new.")]


@keys.command()
def create(
    *,
    admin: Annotated[bool, typer.Option("--admin", help="All scopes: run, read and admin.")] = False,
    tenant: Tenant = "default",
    scope: Annotated[list[str] | None, typer.Option(help="run, read or admin; repeatable. Default: run, read.")] = None,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    best_priority: Annotated[int, typer.Option(min=0, max=9, help="The lowest number it may ask for.")] = 0,
    expires_in_days: Annotated[float | None, typer.Option(min=0.001, max=36500, help="Default: never.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown once: only a hash of it is stored."""
    require("sqlalchemy", extra="api")
    from stoker import keys as stored

    if admin and scope:
        raise InvalidRequest("--admin and --scope exclude each other", hint="--admin means all scopes.")
    scopes = stored.SCOPES if admin else frozenset(scope or ("run", "read"))

    until = None if expires_in_days is None else datetime.now(UTC) + timedelta(days=expires_in_days)

    async def act(db: AsyncEngine) -> stored.NewKey:
        return await stored.create(
            db, tenant=tenant, scopes=scopes, name=name, best_priority=best_priority, expires_at=until
        )

    made = with_database(act)
    if as_json:
        show.as_json({"id": made.id, "key": made.key, "tenant": tenant, "scopes": sorted(scopes)})
    else:
        show.line(made.key)


@keys.command("list")
def list_keys(*, as_json: AsJson = False) -> None:
    """List the keys of all tenants."""
    require("sqlalchemy", extra="api")
    from stoker import keys as stored

    rows = with_database(stored.list_keys)
    if as_json:
        show.as_json(
            [
                {
                    "id": row.id,
                    "tenant": row.tenant_name,
                    "name": row.name,
                    "scopes": sorted(row.scopes),
                    "best_priority": row.best_priority,
                    "created_at": row.created_at.isoformat(),
                    "expires_at": row.expires_at and row.expires_at.isoformat(),
                    "revoked_at": row.revoked_at and row.revoked_at.isoformat(),
                }
                for row in rows
            ]
        )
        return
    show.as_table(
        ("id", "tenant", "name", "scopes", "created", "expires", "revoked"),
        [
            (
                row.id,
                row.tenant_name,
                row.name,
                " ".join(sorted(row.scopes)),
                f"{row.created_at:%Y-%m-%d %H:%M}",
                row.expires_at and f"{row.expires_at:%Y-%m-%d %H:%M}",
                row.revoked_at and f"{row.revoked_at:%Y-%m-%d %H:%M}",
            )
            for row in rows
        ],
        empty="There is no key. 'stoker keys create --admin' makes one.",
    )


@keys.command()
def revoke(key_id: Annotated[str, typer.Argument(help="The key's id: what stands before its colon.")]) -> None:
    """End a key for ever."""
    require("sqlalchemy", extra="api")
    from stoker import keys as stored

    async def act(db: AsyncEngine) -> None:
        await stored.revoke(db, key_id)

    with_database(act)
    show.line(f"{key_id} is revoked")
