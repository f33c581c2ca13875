"""API keys."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from stoker import keys
from stoker.errors import InvalidRequest, NotFound, Unauthenticated
from tests.support.job_world import World

pytestmark = pytest.mark.anyio


async def test_a_key_speaks_for_its_tenant_with_its_scopes(world: World) -> None:
    made = await keys.create(world.db, tenant="lab", scopes=frozenset({"run", "read"}), name="ci", best_priority=3)

    caller = await keys.verify(world.db, made.key)

    assert caller == keys.Caller(made.id, made.tenant_id, "lab", frozenset({"run", "read"}), 3)
    assert len(made.id) == 15
    assert made.key.startswith(made.id + ":")


async def test_the_secret_is_not_stored(world: World) -> None:
    made = await keys.create(world.db, scopes=frozenset({"run"}))
    secret = made.key.partition(":")[2]

    rows = await world.rows("SELECT t::text AS row, encode(secret_sha256, 'escape') AS digest FROM api_keys t")

    assert len(secret) == 43
    assert not [row for row in rows if secret in row["row"] or secret in row["digest"]]


@pytest.mark.parametrize(
    "bad", ["", ":", "sk_", "nothing", "sk_nothing:x", "{id}", "{id}:", "{id}:wrong", "\0:\0", "é:ü"]
)
async def test_what_is_not_a_key_is_refused(world: World, bad: str) -> None:
    made = await keys.create(world.db, scopes=frozenset({"run"}))

    with pytest.raises(Unauthenticated):
        await keys.verify(world.db, bad.format(id=made.id))


async def test_a_key_ends_when_it_is_revoked(world: World) -> None:
    made = await keys.create(world.db, scopes=frozenset({"run"}))

    await keys.revoke(world.db, made.id)

    with pytest.raises(Unauthenticated):
        await keys.verify(world.db, made.key)
    listed = {one.id: one.revoked_at for one in await keys.list_keys(world.db, made.tenant_id)}
    assert listed[made.id] is not None


async def test_a_key_ends_when_its_time_is_over(world: World) -> None:
    made = await keys.create(world.db, scopes=frozenset({"run"}), expires_at=world.began + timedelta(seconds=60))

    await world.set_clock(59)
    assert (await keys.verify(world.db, made.key)).key_id == made.id
    await world.set_clock(60)
    with pytest.raises(Unauthenticated):
        await keys.verify(world.db, made.key)


async def test_another_tenants_key_is_not_listed_and_cannot_be_revoked(world: World) -> None:
    other = await world.tenant("other")
    [mine] = await keys.list_keys(world.db, world.tenant_id)

    with pytest.raises(NotFound):
        await keys.revoke(world.db, mine.id, other)
    assert mine.id not in {one.id for one in await keys.list_keys(world.db, other)}
    assert len(await keys.list_keys(world.db)) == 2


@pytest.mark.parametrize("scopes", [set(), {"everything"}, {"run", "root"}])
async def test_only_scopes_that_exist_are_given(world: World, scopes: set[str]) -> None:
    with pytest.raises(InvalidRequest):
        await keys.create(world.db, scopes=frozenset(scopes))


async def test_a_new_tenant_is_made_once(world: World) -> None:
    made = await asyncio.gather(*(keys.create(world.db, tenant="lab", scopes=frozenset({"run"})) for _ in range(4)))

    assert len({one.tenant_id for one in made}) == 1
