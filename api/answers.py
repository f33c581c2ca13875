"""What the API answers, as the OpenAPI document shows it.

Shapes alone: answers are made where they are given, and nothing is checked against these while the API runs. What is a
plain dataclass of ``stoker`` as it stands is shown as that. ``tests/fuzz`` compares them with what comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from typing_extensions import TypedDict

from stoker.audit import AuditRow
from stoker.deliveries import DeliveryView
from stoker.errors import StokerError
from stoker.manifest import EndpointManifest
from stoker.nodes import NodeRow
from stoker.states import JobState


class SelfLink(TypedDict):
    self: str


class JobLinks(SelfLink):
    events: str
    cancel: str


class Timings(TypedDict):
    queued_s: float | None
    run_s: float | None


class Attempt(TypedDict):
    attempt: int
    node_id: str
    outcome: str | None
    error: dict[str, Any] | None
    claimed_at: datetime
    ended_at: datetime | None
    gpu_seconds: float
    warm: bool | None
    phases: dict[str, float]
    peak_memory_bytes: int | None
    log_file: dict[str, Any] | None


class JobSummary(TypedDict):
    """A job as a list shows it: without what may be large."""

    id: UUID
    app: str
    endpoint: str
    kind: Literal["inference", "training"]
    version: str
    state: JobState
    priority: int
    attempt: int
    max_attempts: int
    attempts: list[Attempt]
    error: dict[str, Any] | None
    progress: dict[str, Any] | None
    queue_position: int | None
    tags: list[str]
    webhook_url: str | None
    created_at: datetime
    available_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    gpu_seconds: float
    timings: Timings
    retried_from: UUID | None
    parent_id: UUID | None
    served: bool
    last_seq: int
    store_io: bool
    no_retry: bool
    outputs_expire_at: datetime | None
    outputs_removed_at: datetime | None
    payload_removed_at: datetime | None
    links: JobLinks


class Child(TypedDict):
    id: UUID
    app: str
    endpoint: str
    state: JobState
    name: str
    generation: int
    links: SelfLink


class Tree(TypedDict):
    jobs: int
    gpu_seconds: float


class Job(JobSummary):
    """A job. ``input`` and ``result`` are of its app's form."""

    input: dict[str, Any] | None
    result: Any
    outputs: list[dict[str, Any]]
    root_id: UUID | None
    children: list[Child]
    tree: Tree


class Jobs(TypedDict):
    jobs: list[JobSummary]
    next_cursor: str | None


class Event(TypedDict):
    id: str
    kind: str
    job_id: UUID
    app: str
    parent_id: UUID | None
    seq: int
    attempt: int
    created_at: datetime
    data: dict[str, Any]


class Events(TypedDict):
    events: list[Event]
    next: str
    has_more: bool
    gap: bool


class AppLinks(SelfLink):
    openapi: str
    submit: str


class App(TypedDict):
    app: str
    version: str
    title: str
    description: str
    num_gpus: int
    live_nodes: int
    paused: bool
    max_running: int | None
    max_queue_length: int | None
    endpoints: list[EndpointManifest]
    links: AppLinks


class Apps(TypedDict):
    apps: list[App]


class AppLimits(TypedDict):
    app: str
    paused: bool
    max_running: int | None
    max_queue_length: int | None


class File(TypedDict):
    """``url`` is what an input names. ``sha256`` is null where nobody has seen all of its bytes."""

    id: str
    url: str
    file_name: str
    content_type: str
    file_size: int
    sha256: str | None
    created_at: datetime
    expires_at: datetime | None
    links: SelfLink


class FileWithLink(File):
    download_url: str


class Place(TypedDict):
    method: Literal["PUT"]
    url: str
    headers: dict[str, str]
    expires_at: datetime


class Upload(TypedDict):
    file: File
    upload: Place


class Nodes(TypedDict):
    nodes: list[NodeRow]


class Node(TypedDict):
    node_id: str


class Queues(TypedDict):
    queues: list[dict[str, Any]]


class Tenant(TypedDict):
    name: str
    weight: float
    max_running: int | None
    max_requests_per_s: float | None
    max_waiting: int | None


class Tenants(TypedDict):
    tenants: list[Tenant]


class NewKey(TypedDict):
    """``key`` is shown here and nowhere else."""

    id: str
    key: str
    name: str
    scopes: list[str]


class Key(TypedDict):
    id: str
    name: str
    scopes: list[str]
    best_priority: int
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class Keys(TypedDict):
    keys: list[Key]


class NewSecret(TypedDict):
    """``secret`` is shown here and nowhere else."""

    id: str
    secret: str


class Secret(TypedDict):
    id: str
    created_at: datetime
    retired_at: datetime | None


class Secrets(TypedDict):
    secrets: list[Secret]


class Deliveries(TypedDict):
    deliveries: list[DeliveryView]


class Acts(TypedDict):
    acts: list[AuditRow]


class Jwks(TypedDict):
    keys: list[dict[str, str]]


class Health(TypedDict):
    status: Literal["ok"]


class Readiness(TypedDict):
    ready: bool
    parts: dict[str, Literal["ok", "unreachable"]]


def answers(
    status: int, shape: object, *errors: type[StokerError], headers: Mapping[str, Any] | None = None
) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route: its answer, and the errors that are its own. ``api.openapi`` adds those of all."""
    return {status: {"model": shape, "headers": dict(headers or {})}, **refused(*errors)}


def refused(*errors: type[StokerError]) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route that may refuse with these."""
    told: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        titles = [known.title for known in errors if known.status == error.status]
        told[error.status] = {"description": "; ".join(titles)}
    return told
