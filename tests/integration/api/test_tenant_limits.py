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

    rest = {"max_requests_per_s": None, "max_waiting": None}
    assert set_both.json() == {"name": "lab one", "weight": 2.5, "max_running": 3, **rest}
    assert uncapped.json() == listed["lab one"] == {"name": "lab one", "weight": 2.5, "max_running": None, **rest}


async def test_an_admin_sets_and_takes_away_a_tenants_limits(admin: httpx2.AsyncClient, api: RunningApi) -> None:
    tenant = await make_client(api, "run", tenant="lab two")
    await tenant.http.aclose()

    first = await admin.post("/v1/tenants/lab two", json={"max_requests_per_s": 0.5, "max_waiting": 7})
    second = await admin.post("/v1/tenants/lab two", json={"max_requests_per_s": None})

    assert (first.json()["max_requests_per_s"], first.json()["max_waiting"]) == (0.5, 7)
    assert (second.json()["max_requests_per_s"], second.json()["max_waiting"]) == (None, 7)


@pytest.mark.parametrize(
    "body",
    [
        {"weight": 0},
        {"weight": -1},
        {"max_running": 0},
        {"waight": 2},
        {"max_requests_per_s": 0},
        {"max_waiting": 0},
        {"max_waiting": 1.5},
    ],
)
async def test_limits_that_cannot_be_are_refused(admin: httpx2.AsyncClient, body: dict[str, object]) -> None:
    answer = await admin.post("/v1/tenants/default", json=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


async def test_only_admins_see_and_set_tenants(admin: httpx2.AsyncClient, http: httpx2.AsyncClient) -> None:
    seen, changed = await http.get("/v1/tenants"), await http.post("/v1/tenants/default", json={"weight": 5})
    unknown = await admin.post("/v1/tenants/nobody", json={"weight": 5})

    assert [seen.status_code, changed.status_code, unknown.status_code] == [403, 403, 404]
