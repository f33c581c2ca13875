"""``stoker webhooks``: what webhooks are signed with, on the database itself.

Secrets belong to tenants, key pairs to the installation. A tenant's own admins make secrets over the API, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stoker.cli import show
from stoker.cli.extras import require
from stoker.cli.options import AsJson
from stoker.cli.with_database import with_database
from stoker.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from stoker.signing_keys import NewSecret

webhooks = typer.Typer(help="Make, list, rotate and retire what webhooks are signed with.")

Tenant = Annotated[str, typer.Argument(help="The tenant's name.")]
AtOnce = Annotated[bool, typer.Option("--at-once", help="The one before is void now, not in a day or two.")]


@webhooks.command("list")
def list_keys(*, as_json: AsJson = False) -> None:
    """List key pairs and the secrets of all tenants; of a pair its public key, of a secret nothing."""
    require("sqlalchemy", extra="api")
    from stoker import signing_keys

    found = with_database(signing_keys.list_keys)
    if as_json:
        show.as_json(
            [
                {
                    "id": key.id,
                    "kind": key.kind,
                    "tenant": key.tenant,
                    "created_at": key.created_at.isoformat(),
                    "retired_at": key.retired_at and key.retired_at.isoformat(),
                    "public_key": key.shown,
                }
                for key in found
            ]
        )
        return
    show.as_table(
        ("id", "kind", "tenant", "created", "retired", "public key"),
        [
            (
                key.id,
                key.kind,
                key.tenant,
                f"{key.created_at:%Y-%m-%d %H:%M}",
                key.retired_at and f"{key.retired_at:%Y-%m-%d %H:%M}",
                key.shown,
            )
            for key in found
        ],
        empty="Nothing was signed yet. 'stoker webhooks rotate TENANT' makes a secret.",
    )


@webhooks.command()
def secret(tenant: Tenant) -> None:
    """Show a tenant's secrets: one, or two while one is replaced by the other."""
    require("sqlalchemy", extra="api")
    from stoker import signing_keys, tenants

    async def act(db: AsyncEngine) -> list[str]:
        return await signing_keys.valid_secrets(db, await tenants.find(db, tenant))

    for found in with_database(act):
        show.line(found)


@webhooks.command()
def rotate(
    tenant: Annotated[str | None, typer.Argument(help="Whose secret; without, name --key-pair.")] = None,
    *,
    key_pair: Annotated[bool, typer.Option("--key-pair", help="The installation's ed25519 key pair.")] = False,
    at_once: AtOnce = False,
) -> None:
    """Make a new secret of a tenant, its first one too, or a new key pair. Both old and new are valid for a while."""
    require("sqlalchemy", extra="api")
    from stoker import signing_keys, tenants

    if (tenant is None) is not key_pair:
        raise InvalidRequest("a tenant's secret or the key pair?", hint="Name the tenant, or give --key-pair.")

    async def act(db: AsyncEngine) -> NewSecret | None:
        if tenant is None:
            await signing_keys.rotate_pair(db, at_once=at_once)
            return None
        return await signing_keys.rotate_secret(db, await tenants.find(db, tenant), at_once=at_once)

    made = with_database(act)
    show.line("there is a new key pair" if made is None else made.secret)


@webhooks.command()
def retire(key_id: Annotated[str, typer.Argument(help="As 'list' shows it.")]) -> None:
    """End a secret or a key pair now: nothing is signed with it any more."""
    require("sqlalchemy", extra="api")
    from stoker import signing_keys

    async def act(db: AsyncEngine) -> None:
        await signing_keys.retire(db, key_id)

    with_database(act)
    show.line(f"{key_id} is retired")
