"""Nodes and their runners, as they report themselves.

Nothing here moves a job except that a node's new boot gives back what its former boot held, through ``stoker.jobs``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

NodeState = Literal["ready", "draining", "stopped"]


@dataclass(frozen=True)
class NodeInfo:
    """A node that starts. ``lease_s`` is how long it counts as alive after a heartbeat."""

    node_id: str
    boot_id: UUID
    hostname: str
    slots: int
    gpus: list[dict[str, Any]]
    versions: list[UUID]
    pid: int
    version: str
    lease_s: float = 15.0


@dataclass(frozen=True)
class RunnerInfo:
    """A runner on a node. ``slots`` are the numbers of those it occupies, ``pids`` its ranks' processes."""

    name: str
    app: str
    state: str
    world_size: int
    slots: list[int] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class NodeRow:
    """A node as a list shows it. ``is_live``: it is not stopped and its last heartbeat is recent."""

    node_id: str
    boot_id: UUID
    hostname: str
    state: NodeState
    is_live: bool
    slots: int
    gpus: list[dict[str, Any]]
    apps: list[str]
    runners: list[RunnerInfo]
    running: int
    pid: int
    version: str
    registered_at: datetime
    heartbeat_at: datetime


async def register(db: AsyncEngine, node: NodeInfo) -> list[UUID]:
    """Make a node known as ready. What its former boot held is released at once: the jobs that were."""
    raise NotImplementedError


async def report_runners(db: AsyncEngine, node_id: str, boot_id: UUID, runners: Sequence[RunnerInfo]) -> None:
    """Replace what is known of the node's runners. A former boot's report changes nothing."""
    raise NotImplementedError


async def set_state(db: AsyncEngine, node_id: str, boot_id: UUID, state: NodeState) -> None:
    """Say that a node drains or has stopped. A former boot's word changes nothing."""
    raise NotImplementedError


async def list_nodes(db: AsyncEngine) -> list[NodeRow]:
    """All nodes by id, stopped ones too."""
    raise NotImplementedError
