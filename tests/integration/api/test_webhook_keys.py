"""Secrets over HTTP and on the command line, and a receiver that verifies what it is sent through a rotation."""

from __future__ import annotations

import httpx2
import pytest
from anyio import to_thread
from sqlalchemy.ext.asyncio import AsyncEngine
from standardwebhooks import Webhook, WebhookVerificationError
from typer.testing import CliRunner

from stoker import signing_keys
from stoker.cli.program import program
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi
from tests.support.receiver import Received, running_receiver
from tests.support.tenants import make_client
from tests.support.webhook_verifiers import verified_as_fal_says, verified_as_v1a
from tests.support.webhooks import deliverer, finish_job, one_round

pytestmark = pytest.mark.anyio


async def delivered(http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine) -> Received:
    async with running_receiver() as receiver, deliverer(db, "127.0.0.1") as sender:
        await finish_job(http, node, app, f"http://{receiver.address}/hook")
        await one_round(sender)
    [sent] = receiver.received
    return sent


def verifies(secret: str, sent: Received) -> bool:
    try:
        Webhook(secret).verify(sent.body, sent.headers)
    except WebhookVerificationError:
        return False
    return True


async def test_receivers_verify_with_the_old_and_the_new_secret_and_by_the_published_keys_in_a_rotation(
    admin: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    old = (await admin.post("/v1/webhooks/secrets", json={})).json()
    copy_of_keys = (await admin.get("/.well-known/jwks.json")).json()
    first = await delivered(admin, node, app, db)
    new = (await admin.post("/v1/webhooks/secrets", json={})).json()
    await signing_keys.rotate_pair(db)

    during = await delivered(admin, node, app, db)
    await admin.delete(f"/v1/webhooks/secrets/{old['id']}")
    after = await delivered(admin, node, app, db)

    assert [verifies(old["secret"], sent) for sent in (first, during, after)] == [True, True, False]
    assert [verifies(new["secret"], sent) for sent in (first, during, after)] == [False, True, True]
    keys = (await admin.get("/.well-known/jwks.json")).json()
    assert (len(copy_of_keys["keys"]), len(keys["keys"])) == (1, 2)
    for sent in (first, during, after):
        assert verified_as_fal_says(sent.headers, sent.body, keys)
        assert verified_as_fal_says(sent.headers, sent.body, copy_of_keys)
    pairs = [key for key in await signing_keys.list_keys(db) if key.kind == signing_keys.PAIR]
    assert [verified_as_v1a(during.headers, during.body, str(pair.shown)) for pair in pairs] == [True, True]
    for pair in pairs:
        await signing_keys.retire(db, pair.id)


async def test_a_secret_is_shown_when_it_is_made_and_never_again(admin: httpx2.AsyncClient) -> None:
    made = (await admin.post("/v1/webhooks/secrets", json={"at_once": True})).json()

    listed = await admin.get("/v1/webhooks/secrets")

    assert [key["id"] for key in listed.json()["secrets"]] == [made["id"]]
    assert made["secret"] not in listed.text


async def test_secrets_are_their_own_tenants_and_its_admins(
    admin: httpx2.AsyncClient, stranger: httpx2.AsyncClient, http: httpx2.AsyncClient
) -> None:
    made = (await admin.post("/v1/webhooks/secrets", json={})).json()

    assert (await stranger.get("/v1/webhooks/secrets")).json() == {"secrets": []}
    assert (await stranger.delete(f"/v1/webhooks/secrets/{made['id']}")).status_code == 404
    assert (await http.get("/v1/webhooks/secrets")).status_code == 403
    assert (await http.post("/v1/webhooks/secrets", json={})).status_code == 403


async def test_the_public_keys_are_anybodys_and_may_be_kept_for_a_while(api: RunningApi) -> None:
    async with httpx2.AsyncClient(base_url=api.url) as anybody:
        answer = await anybody.get("/.well-known/jwks.json")

    assert answer.headers["cache-control"] == "public, max-age=3600"
    [key] = answer.json()["keys"]
    assert (key["kty"], key["crv"], key["alg"], len(key["x"]), set(key)) == (
        "OKP",
        "Ed25519",
        "EdDSA",
        43,
        {"kty", "crv", "alg", "use", "kid", "x"},
    )


async def test_the_command_line_makes_shows_rotates_and_retires(
    api: RunningApi, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await make_client(api, "run", tenant="lab for webhooks")
    await tenant.http.aclose()
    monkeypatch.setenv("DATABASE_URL", database_url)

    async def stoker(*arguments: str) -> str:
        ended = await to_thread.run_sync(lambda: CliRunner().invoke(program, ["webhooks", *arguments]))
        assert ended.exit_code == 0, ended.output
        return ended.stdout.strip()

    first = await stoker("rotate", "lab for webhooks")
    second = await stoker("rotate", "lab for webhooks")
    shown = (await stoker("secret", "lab for webhooks")).splitlines()
    listed = await stoker("list")
    mine = [line.split()[0] for line in listed.splitlines() if "lab for webhooks" in line]
    ended = await stoker("retire", mine[0])

    assert shown == [first, second]
    assert not {first, second} & set(listed.split())
    assert ended == f"{mine[0]} is retired"
    assert await stoker("secret", "lab for webhooks") == second
    assert await stoker("rotate", "--key-pair", "--at-once") == "there is a new key pair"
