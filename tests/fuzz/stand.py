"""The stand: what is fuzzed. A real API on real engines, with two tenants who have one of everything.

The API has an event loop and a thread of its own, since those who fuzz it wait for its answers in another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from stoker.local.engines import Engines
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi, api_settings, running_api
from tests.support.databases import fresh_database
from tests.support.tenants import Tenant, make_client
from tests.support.webhooks import deliverer, logged, one_round

T = TypeVar("T")

IDLE = "tenant-idle"
"""Who asks for nothing: admins may change its limits as they like."""
ALIAS, SPARE = "pictures", "spare"
"""The alias of each tenant's app, and of one that nobody calls."""
FAILED = 6
"""So many may be deleted, and a payload be left to take away."""
OWNERS = {"owner": "acme", "stranger": "other"}


@dataclass(frozen=True)
class Owner:
    """A tenant with an app of its own. ``ids``: by the names that paths have for them."""

    name: str
    app: str
    keys: dict[str, str]
    ids: dict[str, list[str]]
    mark: str
    """It is in all that the tenant has stored and in nothing of another's."""


@dataclass(frozen=True)
class Stand:
    """What runs, for a thread that is not its own."""

    url: str
    owner: Owner
    stranger: Owner
    portal: BlockingPortal
    running: RunningApi

    def do(self, act: Callable[[RunningApi], Coroutine[Any, Any, T]]) -> T:
        """Have the API's own loop do something."""
        return self.portal.call(act, self.running)


@contextmanager
def stand(engines: Engines) -> Iterator[Stand]:
    """Serve, filled."""
    with (
        fresh_database(engines) as url,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_serving(engines, url)) as (running, owner, stranger),
    ):
        yield Stand(running.url, owner, stranger, portal, running)


@asynccontextmanager
async def _serving(engines: Engines, database_url: str) -> AsyncIterator[tuple[RunningApi, Owner, Owner]]:
    async with running_api(api_settings(engines, database_url, ping_s=0.1)) as api:
        async with (await make_client(api, "read", tenant=IDLE)).http:
            pass
        yield api, await _filled(api, "owner"), await _filled(api, "stranger")


async def _filled(api: RunningApi, name: str) -> Owner:
    mark, owner = f"mark-of-{name}", OWNERS[name]
    app = f"{owner}/{ALIAS}"
    admin, runner, reader = [
        await make_client(api, scope, tenant=f"tenant-{name}") for scope in ("admin", "run", "read")
    ]
    node = await ActingNode.start(api.here.db, api.here.bus, app)
    await ActingNode.start(api.here.db, api.here.bus, f"{owner}/{SPARE}")
    async with admin.http, runner.http, reader.http:
        ids = await _one_of_everything(api, admin, node, mark)
    ids |= {"owner": [owner], "alias": [ALIAS], "node_id": [node.node_id], "tenant": [IDLE]}
    keys = {"admin": admin.key, "run": runner.key, "read": reader.key}
    return Owner(name, app, keys, ids, mark)


async def _one_of_everything(api: RunningApi, admin: Tenant, node: ActingNode, mark: str) -> dict[str, list[str]]:
    """Jobs in every state, with what belongs to them; files, keys and secrets."""
    here, http = api.here, admin.http

    async def submit(**more: Any) -> str:
        body = {"app": node.version.app, "input": {"prompt": mark}, "tags": [mark], **more}
        answer = await http.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    done = await submit(webhook_url=f"https://{mark}.example/")
    claim = await node.claim()
    await node.log(claim, mark)
    output = await node.store(here.storage, claim, f"{mark}.png", "/image", b"\x89PNG", "image/png")
    await node.succeed(claim, {"answer": mark, "image": {"url": f"/outputs/{output.token}/{mark}.png"}}, [output])
    async with deliverer(here.db) as sender:  # its name leads nowhere: the try is in the log
        await one_round(sender)
    delivery = await logged(http, done)
    failed = []
    for _ in range(FAILED):
        failed.append(await submit())
        await node.fail(await node.claim(), mark)
    running = await submit()
    claim = await node.claim()
    seq = await node.log(claim, mark)
    await node.progress(claim, seq, 3, note=mark)
    waiting = [await submit(), await submit(priority=9), await submit(run_at="2030-01-01T00:00:00Z")]
    await http.post(f"/v1/jobs/{waiting[1]}/cancel")
    file = (await http.post("/v1/files", params={"file_name": f"{mark}.png"}, content=b"x")).json()
    key = (await http.post("/v1/keys", json={"scopes": ["read"], "name": mark})).json()
    secret = (await http.post("/v1/webhooks/secrets", json={})).json()
    jobs = [done, *failed, running, *waiting]
    return {
        "job_id": jobs,
        "delivery_id": [delivery["id"]],
        "file_id": [file["id"]],
        "key_id": [key["id"]],
        "secret_id": [secret["id"]],
        "token": [output.token],
        "output": [output.name],
    }
