"""Tenants' weights and caps over HTTP."""

from __future__ import annotations

import httpx2
import pytest

from tests.support.api_server import RunningApi
from tests.support.tenants import make_client

pytestmark = pytest.mark.anyio


async def test_an_admin_sets_a_tenants_weight_and_cap(admin: httpx2.AsyncClient, api: RunningApi) -> None:
    tenant = await make_client(api, "run", tenant="lab one")
    await tenant.http.aclose()

    set_both = await admin.post("/v1/tenants/lab one", json={"weight": 2.5, "max_running": 3})
    uncapped = await admin.post("/v1/tenants/lab one", json={"max_running": None})
    listed = {row["name"]: row for row in (await admin.get("/v1/tenants")).json()["tenants"]}

    assert set_both.json() == {"name": "lab one", "weight": 2.5, "max_running": 3}
    assert uncapped.json() == listed["lab one"] == {"name": "lab one", "weight": 2.5, "max_running": None}


@pytest.mark.parametrize("body", [{"weight": 0}, {"weight": -1}, {"max_running": 0}, {"waight": 2}])
async def test_limits_that_cannot_be_are_refused(admin: httpx2.AsyncClient, body: dict[str, object]) -> None:
    answer = await admin.post("/v1/tenants/default", json=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


async def test_only_admins_see_and_set_tenants(admin: httpx2.AsyncClient, http: httpx2.AsyncClient) -> None:
    seen, changed = await http.get("/v1/tenants"), await http.post("/v1/tenants/default", json={"weight": 5})
    unknown = await admin.post("/v1/tenants/nobody", json={"weight": 5})

    assert [seen.status_code, changed.status_code, unknown.status_code] == [403, 403, 404]
