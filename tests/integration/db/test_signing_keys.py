"""What webhooks are signed with, while one key is replaced by the next."""

from __future__ import annotations

import base64

import pytest

from stoker import signing_keys
from stoker.errors import Conflict, NotFound
from tests.support.job_world import World

pytestmark = pytest.mark.anyio

HOUR = 3600.0


async def secrets_of(world: World) -> list[str]:
    signers = await signing_keys.signers(world.db, {world.tenant_id})
    return [signing_keys.as_secret(secret) for secret in signers.secrets.get(world.tenant_id, ())]


async def test_a_tenant_has_no_secret_until_one_is_made_and_then_no_other_tenants(world: World) -> None:
    other = await world.tenant("other")
    before = await secrets_of(world)

    made = await signing_keys.rotate_secret(world.db, world.tenant_id)

    assert before == []
    assert await secrets_of(world) == [made.secret] == await signing_keys.valid_secrets(world.db, world.tenant_id)
    assert (await signing_keys.signers(world.db, {other})).secrets == {}
    assert len(base64.b64decode(made.secret.removeprefix("whsec_"))) == 32


async def test_an_old_secret_signs_on_for_a_day_beside_the_new_one(world: World) -> None:
    old = await signing_keys.rotate_secret(world.db, world.tenant_id)
    await world.set_clock(1)
    new = await signing_keys.rotate_secret(world.db, world.tenant_id)
    both = await secrets_of(world)

    await world.set_clock(24 * HOUR + 2)

    assert both == [old.secret, new.secret]
    assert await secrets_of(world) == [new.secret]


async def test_a_secret_that_got_out_is_void_at_once(world: World) -> None:
    await signing_keys.rotate_secret(world.db, world.tenant_id)

    new = await signing_keys.rotate_secret(world.db, world.tenant_id, at_once=True)

    assert await secrets_of(world) == [new.secret]


async def test_a_third_secret_waits_for_the_first_ones_end(world: World) -> None:
    first = await signing_keys.rotate_secret(world.db, world.tenant_id)
    await signing_keys.rotate_secret(world.db, world.tenant_id)

    with pytest.raises(Conflict):
        await signing_keys.rotate_secret(world.db, world.tenant_id)
    await signing_keys.retire(world.db, first.id, world.tenant_id)
    await signing_keys.rotate_secret(world.db, world.tenant_id)

    assert len(await secrets_of(world)) == 2


async def test_a_secret_is_retired_by_its_own_tenant_alone_and_once(world: World) -> None:
    made = await signing_keys.rotate_secret(world.db, world.tenant_id)

    with pytest.raises(NotFound):
        await signing_keys.retire(world.db, made.id, await world.tenant("other"))
    await signing_keys.retire(world.db, made.id, world.tenant_id)
    with pytest.raises(NotFound):
        await signing_keys.retire(world.db, made.id, world.tenant_id)

    assert await secrets_of(world) == []


async def test_a_new_key_pair_is_published_two_days_before_it_is_the_first_to_sign(world: World) -> None:
    [old] = (await signing_keys.signers(world.db, set())).pairs
    await world.set_clock(1)
    await signing_keys.rotate_pair(world.db)
    both = (await signing_keys.signers(world.db, set())).pairs
    published = await signing_keys.public_keys(world.db)

    # Ten minutes before its end the old one signs no more, and is published still.
    await world.set_clock(48 * HOUR - 590)
    last = await signing_keys.signers(world.db, set())
    still = await signing_keys.public_keys(world.db)
    await world.set_clock(48 * HOUR + 2)

    assert (both[0], len(both), len(published)) == (old, 2, 2)
    assert (last.pairs, len(still)) == ((both[1],), 2)
    assert len(await signing_keys.public_keys(world.db)) == 1


async def test_there_is_always_a_key_pair_that_signs_even_after_the_last_was_retired(world: World) -> None:
    await signing_keys.public_keys(world.db)
    await world.set_clock(1)
    await signing_keys.rotate_pair(world.db)
    old, new = [key.id for key in await signing_keys.list_keys(world.db)]
    await signing_keys.retire(world.db, new)
    await world.set_clock(48 * HOUR - 300)  # the old one signs no more, and is not over

    assert len((await signing_keys.signers(world.db, set())).pairs) == 1
    assert old in await signing_keys.public_keys(world.db)


async def test_each_key_that_is_made_or_ended_is_in_the_audit_log_and_no_secret_is(world: World) -> None:
    made = await signing_keys.rotate_secret(world.db, world.tenant_id)
    await signing_keys.retire(world.db, made.id)

    acts = await world.rows(
        "SELECT action, target, about_tenant, role, data::text AS data FROM audit_log "
        "WHERE action LIKE 'signing_key.%' ORDER BY id"
    )

    assert [(act["action"], act["target"], act["about_tenant"]) for act in acts] == [
        ("signing_key.create", made.id, world.tenant_id),
        ("signing_key.retire", made.id, world.tenant_id),
    ]
    assert {act["role"] for act in acts} == {(await world.rows("SELECT session_user::text AS name"))[0]["name"]}
    assert made.secret.removeprefix("whsec_") not in str(acts)
