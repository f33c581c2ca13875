"""The world that is attacked: what is in it, what is stored in it, and how a stranger makes use of it.

``names`` are what the rows may speak of: whatever belongs to the victim, and addresses. ``secrets`` are all that may
stand in no log. What is stored can be compared from before an attack to after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import httpx2
import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker.local.engines import Engines
from stoker.storage import Storage
from tests.support.patience import waiting_for
from tests.support.receiver import Receiver

TRY_S = 20.0
MAX_BODY_BYTES, MAX_UPLOAD_BYTES = 200_000, 1_000_000
WORD = "marked-4f1c"
"""Stands in all that is the victim's: nobody else may be told it."""
TABLES = (
    "tenants", "api_keys", "signing_keys", "audit_log", "apps", "files", "uploads", "jobs", "job_events", "job_heads",
    "job_attempts", "job_children", "job_outputs", "usage_records", "webhook_deliveries", "delivery_attempts",
)  # fmt: skip
"""All that a request could leave something in."""
CONTENTS = " UNION ALL ".join(
    f"SELECT '{table}', count(*), md5(coalesce(string_agg(md5(t::text), '' ORDER BY md5(t::text)), '')) FROM {table} t"
    for table in TABLES
).encode()


@dataclass
class World:
    address: tuple[str, int]
    engines: Engines
    folder: Path
    db: AsyncEngine
    watch: psycopg.AsyncConnection[Any]
    storage: Storage
    receiver: Receiver
    keys: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    victims: set[str] = field(default_factory=lambda: {WORD})
    """What nobody else may be told."""
    tenants: list[str] = field(default_factory=list)
    was: dict[str, Any] = field(default_factory=dict)
    """What was stored when somebody last looked."""
    inside: int = 0
    """How often somebody has connected to what is not to be reached."""

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    def filled(self, text: str) -> str:
        """``text`` with what its ``$names`` stand for."""
        return Template(text).safe_substitute(self.names)

    def client(self, key: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, headers={"authorization": f"Key {self.keys[key]}"}, timeout=20)

    async def stored(self) -> dict[str, Any]:
        """What is stored, by where: each table's rows as one number, and the objects."""
        rows = await (await self.watch.execute(CONTENTS)).fetchall()
        found: dict[str, Any] = {table: (count, digest) for table, count, digest in rows}
        found["objects"] = await asyncio.to_thread(self._objects)
        return found

    async def run(self, given: dict[str, Any], *, endpoint: str = "/", **wishes: Any) -> dict[str, Any]:
        """A job of the stranger's, as it has ended."""
        async with self.client("stranger") as http:
            return await finished(http, {"app": self.names["app"], "endpoint": endpoint, "input": given, **wishes})

    async def delivery_to(self, url: str) -> dict[str, Any]:
        """The delivery of such a job."""
        async with self.client("stranger") as http:
            wishes = {"app": self.names["app"], "input": {"text": "x"}, "webhook_url": url}
            return await settled(http, (await finished(http, wishes))["id"])

    async def upload_token(self, key: str) -> str:
        async with self.client(key) as http:
            answer = await http.post("/rest/storage/auth/token", json={})
        token = str(answer.json()["token"])
        self.secrets.add(token)
        return token

    async def put(self, url: str, content: bytes, headers: Mapping[str, str]) -> None:
        async with httpx2.AsyncClient() as anybody:
            (await anybody.put(url, content=content, headers=dict(headers))).raise_for_status()

    async def audited(self) -> str:
        """All of the audit log."""
        acts = await self.watch.execute(b"SELECT string_agg(a::text, ' ') FROM audit_log a")
        return str(await acts.fetchone())

    def logs(self) -> dict[str, str]:
        """What each process has written."""
        return {path.stem: path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log"))}

    def _objects(self) -> list[str]:
        """One question in place of two for each tenant: ids that were made at the same time begin alike."""
        s3, beginnings = self.storage._s3, {tenant[:8] for tenant in self.tenants}
        pages = [s3.list_objects_v2(Bucket=self.storage.bucket, Prefix=beginning) for beginning in beginnings]
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        owners = {tenant.replace("-", "") for tenant in self.tenants}
        return sorted(key for key in keys if key.split("/")[0].replace("-", "") in owners)


async def finished(http: httpx2.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    answer = await http.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    await http.get(job["links"]["events"])  # a stream that ends with the job
    ended: dict[str, Any] = (await http.get(job["links"]["self"])).json()
    return ended


async def settled(http: httpx2.AsyncClient, job_id: str) -> dict[str, Any]:
    """The job's delivery, once it is settled: by its first try, where nothing is wrong."""
    delivery: dict[str, Any] = {}
    async with waiting_for(lambda: f"a try of {delivery}", TRY_S):
        while delivery.get("state", "pending") == "pending":
            [delivery] = (await http.get(f"/v1/jobs/{job_id}/deliveries")).json()["deliveries"]
    return delivery
