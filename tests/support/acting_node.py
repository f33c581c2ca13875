"""A node as far as the queue can see it: it claims, reports and finishes through ``stoker.jobs``, and runs nothing."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import apps, jobs, nodes
from stoker.apps import AppVersion
from stoker.bus import Bus
from stoker.events import Event, EventId, EventKind
from stoker.ids import new_id
from stoker.jobs import Claim, ClaimRequest, ErrorReport, Failed, Finished, Output, QueueKey, Stopped, Succeeded, Usage
from stoker.manifest import EndpointManifest, Manifest
from stoker.nodes import NodeInfo
from stoker.storage import Storage

INPUT_SCHEMA = {
    "type": "object",
    "required": ["prompt"],
    "additionalProperties": False,
    "properties": {
        "prompt": {"type": "string", "minLength": 1, "maxLength": 2000},
        "steps": {"type": "integer", "minimum": 1, "maximum": 100, "default": 4},
        "seed": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "mask": {"$ref": "#/$defs/Box"},
    },
    "$defs": {"Box": {"type": "object", "properties": {"width": {"type": "integer"}}}},
}


def manifest(app: str) -> Manifest:
    def endpoint(path: str, kind: Any) -> EndpointManifest:
        return EndpointManifest(path, kind, INPUT_SCHEMA, {"type": "object"}, True, 60.0, None, None, 3, f"Call {path}")

    return Manifest(app, "An app", "For tests", 1, (endpoint("/", "inference"), endpoint("/train", "training")))


def _is_final(done: Finished) -> bool:
    return done.state is not None and done.state.is_final


class ActingNode:
    def __init__(self, db: AsyncEngine, bus: Bus, version: AppVersion, lease_s: float = 30.0) -> None:
        self.db, self.bus, self.version, self.lease_s = db, bus, version, lease_s
        self.node_id, self.boot_id = f"node-{uuid4().hex[:8]}", uuid4()
        self._count = 0

    @classmethod
    async def start(cls, db: AsyncEngine, bus: Bus, app: str) -> ActingNode:
        node = cls(db, bus, await apps.publish(db, manifest(app)))
        info = NodeInfo(node.node_id, node.boot_id, "host", 1, [], [node.version.id], 1, "0.1.0")
        await nodes.register(db, info)
        return node

    async def claim(self) -> Claim:
        queues = tuple(QueueKey(self.version.id, gpus) for gpus in (True, False))
        request = ClaimRequest(self.node_id, self.boot_id, queues, "runner", self.lease_s)
        claim = await jobs.claim(self.db, request)
        assert claim is not None
        await self.bus.wake(claim.job_id, claim.seq, claim.tenant_id)
        return claim

    async def log(self, claim: Claim, message: str) -> int:
        seq = await jobs.append_events(self.db, claim.lease, [(EventKind.LOG, {"message": message})])
        await self.bus.wake(claim.job_id, seq, claim.tenant_id)
        return seq

    async def progress(
        self, claim: Claim, seq: int, step: int, kind: EventKind = EventKind.PROGRESS, **data: Any
    ) -> EventId:
        self._count += 1
        event_id = EventId(seq, claim.attempt, self._count)
        event = Event(event_id, kind, {"rank": 0, "step": step, "total": 10, **data}, datetime.now(UTC))
        await self.bus.progress(claim.job_id, event)
        return event_id

    async def succeed(self, claim: Claim, result: dict[str, Any], outputs: Sequence[Output] = ()) -> int:
        done = await jobs.finish(
            self.db, claim.lease, Succeeded(result, tuple(outputs)), Usage(gpu_seconds=1.5, gpus=1)
        )
        assert done.applied
        await self.bus.wake(claim.job_id, done.seq, claim.tenant_id, is_final=_is_final(done))
        return done.seq

    async def fail(self, claim: Claim, message: str) -> None:
        done = await jobs.finish(self.db, claim.lease, Failed(ErrorReport("app_error", message)), Usage())
        await self.bus.wake(claim.job_id, done.seq, claim.tenant_id, is_final=_is_final(done))

    async def stop(self, claim: Claim) -> None:
        done = await jobs.finish(self.db, claim.lease, Stopped(), Usage())
        await self.bus.wake(claim.job_id, done.seq, claim.tenant_id, is_final=_is_final(done))

    async def store(self, storage: Storage, claim: Claim, name: str, pointer: str, content: bytes, kind: str) -> Output:
        async def chunks() -> Any:
            yield content

        key = f"{claim.tenant_id}/{claim.job_id}/{claim.attempt}/1-{name}"
        stored = await storage.put_stream(key, chunks(), kind, 1_000_000)
        sha256 = hashlib.sha256(content).hexdigest()
        return Output(new_id(), name, pointer, key, kind, stored.size_bytes, sha256, secrets.token_urlsafe(32), {})
