"""What a node's parts share: Postgres, the bus, the object store and the doorbell, opened once by the entry point."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker.bus import Bus
from stoker.database import make_engine
from stoker.jobs import Moved
from stoker.queue import Doorbell
from stoker.settings import NodeSettings
from stoker.storage import Storage
from worker_node.ends import Ends
from worker_node.metrics import NodeMetrics
from worker_node.records import Records

CONNECTIONS = 8
CALLS_AT_ONCE = 4
"""So many statements about children at a time: an app may call a thousand at once, and heartbeats need connections."""


@dataclass
class Engines:
    db: AsyncEngine
    bus: Bus
    storage: Storage
    doorbell: Doorbell
    allowed_hosts: frozenset[str] = frozenset()
    metrics: NodeMetrics = field(default_factory=NodeMetrics)
    look_s: float = 2.0
    most_waiting: int = 200

    def __post_init__(self) -> None:
        self.ends = Ends(self.db, self.bus, self.look_s)
        self.turns = asyncio.Semaphore(CALLS_AT_ONCE)
        self.records = Records(self.db)

    def tell(self, job_id: UUID, seq: int, tenant_id: UUID | None = None, *, is_final: bool = False) -> None:
        """Let those who follow the job know of row ``seq``, without waiting for Redis."""
        self.bus.tell(job_id, seq, tenant_id, is_final=is_final)

    def tell_given_back(self, job: Moved) -> None:
        """Let those who follow the job, and nodes that could take it, know that this one has it no longer."""
        self.tell(job.job_id, job.seq, job.tenant_id, is_final=job.state.is_final)
        if not job.state.is_final:
            self.doorbell.ring(job.queue)

    async def close(self) -> None:
        await self.doorbell.close()
        await self.bus.close()
        await self.db.dispose()


def open_engines(settings: NodeSettings, *, node_id: str) -> Engines:
    """Connects to nothing yet."""
    s3 = settings.s3
    return Engines(
        db=make_engine(settings.database_url, application_name=f"stoker-node {node_id}", pool_size=CONNECTIONS),
        bus=Bus(settings.redis_url, settings.progress_redis_url),
        storage=Storage(s3.endpoint_url, s3.access_key_id, s3.secret_access_key, s3.bucket, s3.region),
        doorbell=Doorbell(settings.redis_url),
        allowed_hosts=settings.fetch_allowed_hosts,
        look_s=settings.look_s,
        most_waiting=settings.most_waiting,
    )
