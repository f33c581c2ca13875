"""Every row of the table against a real API, control loop and node: refused, with nothing stored, and told to no log.

The table is in ``kinds``; docs/security.md counts its rows.
"""

from __future__ import annotations

import pytest

from tests.integration.security.rows import HUSH, Row
from tests.integration.security.table import ROWS
from tests.integration.security.wire import Answer
from tests.integration.security.world import World

pytestmark = pytest.mark.anyio

SENT: set[str] = set()


async def attack(world: World, row: Row) -> None:
    SENT.add(row.id)
    before, inside = world.was or await world.stored(), world.inside
    world.was = {}  # if this one leaves something, the next is not to blame

    came = await row.act(world)

    row.refusal(world, came)
    after = world.was = await world.stored()
    assert {name for name in before if before[name] != after[name]} <= row.refusal.stores
    assert world.inside == inside, "something inside was reached"
    if isinstance(came, Answer):
        assert came.status < 500
        assert not [secret for secret in world.victims if secret in came.told]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
async def test_it_is_refused(world: World, row: Row) -> None:
    await attack(world, row)


async def test_after_all_of_it_no_secret_is_in_a_log_and_everything_answers(world: World) -> None:
    for row in ROWS:
        if row.id not in SENT:
            await attack(world, row)

    logs = world.logs()
    hidden = world.secrets | {HUSH}
    told = [line for text in logs.values() for line in text.splitlines() if any(secret in line for secret in hidden)]
    acts = await world.audited()

    assert set(logs) == {"api", "api.control", "worker_node"}
    assert all(logs.values())
    assert told == []
    assert not [secret for secret in hidden if secret in acts]
    assert "unexpected_error" not in "".join(logs.values())
    assert (await world.run({"text": "well"}))["state"] == "succeeded"
