"""The victim: a tenant with one of everything, and the keys of the stranger who is after it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx2

from stoker import keys
from tests.integration.security.world import WORD, World, finished, settled


async def settle(world: World) -> None:
    """Make the tenants and their keys, and one of everything that is the victim's."""
    tomorrow, yesterday = (datetime.now(UTC) + timedelta(days=days) for days in (1, -1))
    wanted: dict[str, tuple[str, str, dict[str, Any]]] = {
        "victim": ("victim", "admin", {}),
        "stranger": ("stranger", "admin", {}),
        "runner": ("stranger", "run", {"best_priority": 5}),
        "reader": ("stranger", "read", {}),
        "late": ("stranger", "admin", {"expires_at": yesterday}),
        "revoked": ("stranger", "admin", {"expires_at": tomorrow}),
        "revoked_issuer": ("stranger", "run", {}),
    }
    for name, (tenant, scope, wishes) in wanted.items():
        made = await keys.create(world.db, tenant=tenant, scopes=frozenset({scope}), **wishes)
        world.keys[name] = made.key
        key_id, _, secret = made.key.partition(":")
        world.names |= {f"{name}_key": made.key, f"{name}_key_id": key_id, f"{name}_secret": secret}
        world.names |= {f"{name}_swapped": secret.swapcase(), f"{name}_loud": key_id.upper()}
        world.secrets |= {secret, secret.swapcase()}
        if str(made.tenant_id) not in world.tenants:
            world.tenants.append(str(made.tenant_id))
    world.names["revoked_token"] = await world.upload_token("revoked_issuer")
    world.names["stranger_token"] = await world.upload_token("stranger")
    async with world.client("stranger") as http:
        made = await http.post("/rest/tokens/", json={"allowed_apps": ["acme/other"]})
    world.names["page_token"] = str(made.json())
    world.secrets.add(str(made.json()))
    for name in ("revoked", "revoked_issuer"):
        await keys.revoke(world.db, world.names[f"{name}_key_id"])
    async with world.client("victim") as http:
        await _give(world, http)


async def _give(world: World, http: httpx2.AsyncClient) -> None:
    wish = {"app": world.names["app"], "tags": [WORD], "webhook_url": f"http://{world.receiver.address}/{WORD}"}
    sent = {**wish, "input": {"text": WORD}}
    job = await finished(http, sent)
    assert job["state"] == "succeeded", job
    delivery = await settled(http, job["id"])
    assert delivery["state"] == "delivered", delivery
    waiting = await http.post(
        "/v1/jobs",
        json={"app": world.names["app"], "input": {"text": WORD}, "run_at": str(datetime.now(UTC) + timedelta(days=1))},
        headers={"idempotency-key": "the-same"},
    )
    file = (await http.post("/v1/files", params={"file_name": f"{WORD}.txt"}, content=b"victim's")).json()
    key = (await http.post("/v1/keys", json={"scopes": ["read"], "name": WORD})).json()
    secret = (await http.post("/v1/webhooks/secrets", json={})).json()
    bearer = {"authorization": f"Bearer {await world.upload_token('victim')}", "x-fal-file-name": f"{WORD}.bin"}
    public = (await http.post("/cdn/files/upload", headers=bearer, content=b"victim's")).json()["access_url"]
    parts = (await http.post("/cdn/files/upload/multipart", headers=bearer)).json()
    [begun] = [(await http.post("/rest/storage/upload/initiate", json={"file_name": WORD})).json()["upload_url"]]
    output = urlsplit(job["outputs"][0]["url"]).path.split("/")
    jwk = (await http.get("/.well-known/jwks.json")).json()["keys"][0]
    page = (await http.get("/v1/jobs", params={"limit": 1})).json()
    world.names |= {
        "job": job["id"],
        "waiting": waiting.json()["id"],
        "delivery": delivery["id"],
        "file": file["id"],
        "key_id": key["id"],
        "secret_id": secret["id"],
        "public_file": urlsplit(public).path.split("/")[3],
        "parts_file": urlsplit(parts["access_url"]).path.split("/")[3],
        "parts": parts["uploadId"],
        "place": begun.rsplit("/", 1)[1],
        "place_hex": begun.rsplit("/", 1)[1].replace("-", ""),
        "place_loud": begun.rsplit("/", 1)[1].upper(),
        "token": output[2],
        "output": output[3],
        "kid": jwk["kid"],
        "jwk_x": jwk["x"],
        "cursor": page["next_cursor"],
        "last_event": f"{job['attempts'][0]['attempt']}.1.0",
    }
    secrets = {key["key"].partition(":")[2], secret["secret"], output[2], begun.rsplit("/", 1)[1], parts["uploadId"]}
    secrets |= {world.names[name] for name in ("public_file", "parts_file", "place_hex", "place_loud", "victim_secret")}
    world.secrets |= secrets
    world.victims |= secrets
