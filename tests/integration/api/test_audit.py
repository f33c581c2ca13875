"""The audit log: each act of an admin, with who did it, in the transaction of the act; for its own tenant."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import keys, tenants
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi
from tests.support.tenants import Tenant, make_client

pytestmark = pytest.mark.anyio


async def acts(admin: httpx2.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await admin.get("/v1/audit", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["acts"]
    return found


@pytest.fixture
async def lab(api: RunningApi) -> Tenant:
    return await make_client(api, "admin")


async def test_each_act_of_an_admin_is_logged_with_its_key_and_without_a_secret(
    lab: Tenant, node: ActingNode, app: str
) -> None:
    async with lab.http as admin:
        key = (await admin.post("/v1/keys", json={"scopes": ["read"]})).json()
        await admin.delete(f"/v1/keys/{key['id']}")
        secret = (await admin.post("/v1/webhooks/secrets", json={})).json()
        await admin.delete(f"/v1/webhooks/secrets/{secret['id']}")
        await admin.post(f"/v1/queues/{app}/pause")
        await admin.post(f"/v1/queues/{app}/resume")
        await admin.post(f"/v1/queues/{app}", json={"max_running": 2})
        await admin.post(f"/v1/nodes/{node.node_id}/drain")
        found = list(reversed(await acts(admin)))

    assert [(act["action"], act["target"]) for act in found[1:]] == [
        ("key.create", key["id"]),
        ("key.revoke", key["id"]),
        ("signing_key.create", secret["id"]),
        ("signing_key.retire", secret["id"]),
        ("app.pause", app),
        ("app.resume", app),
        ("app.set", app),
        ("node.drain", node.node_id),
    ]
    assert found[0]["action"] == "key.create"  # on the database itself: the tenant's first
    assert found[0]["key_id"] is None
    assert {act["key_id"] for act in found[1:]} == {lab.key.partition(":")[0]}
    assert all(act["role"] for act in found)
    for hidden in (key["key"].partition(":")[2], secret["secret"]):
        assert hidden not in str(found)


async def test_a_tenant_sees_what_others_did_to_it_and_nothing_of_the_rest(
    lab: Tenant, admin: httpx2.AsyncClient, db: AsyncEngine
) -> None:
    [name] = [row.name for row in await tenants.list_tenants(db) if row.id == lab.id]
    await admin.post(f"/v1/tenants/{name}", json={"weight": 2})
    await admin.post("/v1/keys", json={"scopes": ["read"]})

    async with lab.http as http:
        seen = await acts(http)

    assert [act["action"] for act in seen] == ["tenant.set", "key.create"]
    assert seen[0]["data"]["weight"] == 2


async def test_the_log_is_read_in_pages(lab: Tenant) -> None:
    async with lab.http as admin:
        for _ in range(3):
            await admin.post("/v1/keys", json={"scopes": ["read"]})
        whole = await acts(admin)
        first = await acts(admin, limit=2)
        second = await acts(admin, limit=2, before=first[-1]["id"])

    assert [*first, *second] == whole


async def test_an_act_that_cannot_be_logged_is_not_done(db: AsyncEngine, lab: Tenant) -> None:
    await lab.http.aclose()
    async with db.begin() as connection:
        await connection.execute(text("ALTER TABLE audit_log ADD CONSTRAINT closed CHECK (false) NOT VALID"))
    try:
        with pytest.raises(DBAPIError):
            await keys.create(db, tenant="never", scopes=frozenset({"run"}))
        with pytest.raises(DBAPIError):
            await keys.revoke(db, lab.key.partition(":")[0])
    finally:
        async with db.begin() as connection:
            await connection.execute(text("ALTER TABLE audit_log DROP CONSTRAINT closed"))

    assert "never" not in {row.name for row in await tenants.list_tenants(db)}
    assert (await keys.verify(db, lab.key)).tenant_id == lab.id


async def test_only_admins_read_it(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/v1/audit")).status_code == 403


async def test_a_node_that_is_not_there_cannot_be_drained(admin: httpx2.AsyncClient) -> None:
    answer = await admin.post("/v1/nodes/nobody/drain")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
