"""The values that go into and come out of ``stoker.jobs``.

Pure: no I/O. They are imported from ``stoker.jobs``, which is the one place that acts on them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from stoker.apps import AppVersion
from stoker.errors import ExecutionError, IdempotencyConflict, StokerError
from stoker.ids import new_id
from stoker.states import JobState
from stoker.stored_json import as_given

COUNTED = 1000
"""A queued job's place is counted no further: that bounds what a look at it costs, however long the queue."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A request that was found good. What is None is taken from the endpoint's manifest.

    ``sent_hash`` is over the request as it was sent, where that is known: it says whether two are the same.
    """

    tenant_id: UUID
    version: AppVersion
    endpoint: str
    input: dict[str, Any]
    priority: int = 5
    webhook_url: str | None = None
    run_at: datetime | None = None
    start_timeout_s: float | None = None
    run_timeout_s: float | None = None
    max_attempts: int | None = None
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    sent_hash: bytes | None = None
    key_id: str | None = None
    parent_id: UUID | None = None
    depth: int = 0
    retried_from: UUID | None = None
    store_io: bool | None = None
    """False: input and result are removed soon after its end."""
    keep_outputs_s: float | None = None
    """Its outputs expire so long after its end."""
    no_retry: bool = False
    """Whatever ends an attempt ends the job: a crash, too."""
    most_waiting: int | None = None
    """Of its app's jobs, or it is not to be stored: the caller's own limit, beside that of the app."""
    tenant_most_waiting: int | None = None
    """Of its tenant's jobs, of whatever app."""

    @property
    def needs_room(self) -> bool:
        """Whether those that wait must be counted before it is stored."""
        limits = (self.version.max_queue_length, self.most_waiting, self.tenant_most_waiting)
        return any(limit is not None for limit in limits)

    def request_hash(self) -> bytes:
        """Over what the caller asked for: a version deployed between two sends does not make it another request."""
        if self.sent_hash is not None:
            return self.sent_hash
        asked = {
            "app": self.version.app,
            "endpoint": self.endpoint,
            "input": self.input,
            "priority": self.priority,
            "webhook_url": self.webhook_url,
            "run_at": self.run_at and self.run_at.isoformat(),
            "timeouts": [self.start_timeout_s, self.run_timeout_s],
            "max_attempts": self.max_attempts,
            "tags": list(self.tags),
            "parent_id": self.parent_id and str(self.parent_id),
        }
        # What was not asked for is left out: a key that was sent before there was this is still the same request.
        kept = {"store_io": self.store_io, "keep_outputs_s": self.keep_outputs_s, "no_retry": self.no_retry or None}
        asked |= {name: value for name, value in kept.items() if value is not None}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()

    def row(self) -> dict[str, Any]:
        """What ``submit.sql`` stores, under a new id; its lane among it.

        Raises:
            UnknownApp: the version has no such endpoint.
            InvalidRequest: the input holds what Postgres cannot.
        """
        endpoint, manifest = self.version.endpoint(self.endpoint), self.version.manifest
        return {
            "job_id": new_id(),
            "version_id": self.version.id,
            "uses_gpus": endpoint.uses_gpus,
            "tenant_id": self.tenant_id,
            "endpoint": self.endpoint,
            "kind": endpoint.kind,
            "priority": self.priority,
            "input": as_given(self.input),
            "max_attempts": self.max_attempts or endpoint.max_attempts,
            "run_timeout_s": self.run_timeout_s or endpoint.run_timeout_s,
            "stall_timeout_s": endpoint.stall_timeout_s,
            "start_timeout_s": self.start_timeout_s or endpoint.start_timeout_s,
            "run_at": self.run_at,
            "webhook_url": self.webhook_url,
            "tags": list(self.tags),
            "idempotency_key": self.idempotency_key,
            "request_hash": self.request_hash() if self.idempotency_key is not None else None,
            "key_id": self.key_id,
            "parent_id": self.parent_id,
            "depth": self.depth,
            "retried_from": self.retried_from,
            "store_io": manifest.store_io if self.store_io is None else self.store_io,
            "keep_outputs_s": manifest.keep_outputs_s if self.keep_outputs_s is None else self.keep_outputs_s,
            "no_retry": self.no_retry,
            "counted": COUNTED,
        }


@dataclass(frozen=True)
class Fresh:
    """What a job's first reader is told beside what was asked for; as ``job_queries`` has it."""

    created_at: datetime
    available_at: datetime
    served: bool
    queue_position: int | None


@dataclass(frozen=True)
class Submitted:
    """``queue`` is the app (owner/alias) to ring for; ``created`` is False for a replayed Idempotency-Key.

    ``fresh`` is of a job that was made.
    """

    job_id: UUID
    state: JobState
    created: bool
    queue: str
    fresh: Fresh | None = None

    @classmethod
    def stored(cls, row: Mapping[str, Any], queue: str) -> Self:
        """What ``submit.sql`` answered."""
        fresh = Fresh(row["created_at"], row["available_at"], row["served"], row["position"])
        return cls(row["id"], JobState(row["state"]), created=True, queue=queue, fresh=fresh)

    @classmethod
    def replayed(cls, row: Mapping[str, Any], request_hash: bytes | None) -> Self:
        """What ``find_replay.sql`` answered to a request with this hash.

        Raises:
            IdempotencyConflict: the key was used for another request.
        """
        if bytes(row["request_hash"]) != request_hash:
            raise IdempotencyConflict(f"the key {row['idempotency_key']!r} was used for another request")
        return cls(row["id"], JobState(row["state"]), created=False, queue=row["queue"])


@dataclass(frozen=True)
class QueueKey:
    """A queue: a version of an app, and whether its endpoints need GPUs."""

    version_id: UUID
    uses_gpus: bool


@dataclass(frozen=True)
class ClaimRequest:
    """What a node could run now. All ``queues`` belong to one app.

    ``least_depth``: so many calls below the first job, at least; of these the deepest comes first. 0: any job.
    """

    node_id: str
    boot_id: UUID
    queues: tuple[QueueKey, ...]
    runner: str
    lease_s: float
    least_depth: int = 0


@dataclass(frozen=True)
class Lease:
    """An attempt's right to a job; the pair fences every write of that attempt."""

    job_id: UUID
    attempt: int


@dataclass(frozen=True)
class Claim:
    """A job that is now the claimer's. ``seq`` is that of its last event row."""

    job_id: UUID
    attempt: int
    tenant_id: UUID
    app: str
    version_id: UUID
    endpoint: str
    kind: str
    uses_gpus: bool
    input: dict[str, Any]
    seq: int
    run_timeout_s: float
    stall_timeout_s: float | None
    max_attempts: int
    created_at: datetime
    available_at: datetime
    is_capped: bool = False
    """Whether its tenant or its app may have so many jobs running and no more."""

    @property
    def lease(self) -> Lease:
        return Lease(self.job_id, self.attempt)


@dataclass(frozen=True)
class Renewal:
    """What a heartbeat learns: the leases that are another's now, those whose job somebody asked to cancel, and those
    that the node holds but did not name.
    """

    lost: frozenset[Lease]
    cancelled: frozenset[Lease]
    unnamed: frozenset[Lease] = frozenset()


@dataclass(frozen=True)
class Output:
    """An object that an attempt has stored. ``pointer`` is the JSON pointer of its File in the result, "" if none."""

    id: UUID
    name: str
    pointer: str
    key: str
    content_type: str
    size_bytes: int
    sha256: str
    token: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ErrorReport:
    """An error as it is stored and shown. ``crash``: it may have taken a process or a node down with it."""

    code: str
    message: str
    hint: str = ""
    type_name: str = ""
    traceback: str = ""
    crash: bool = False
    retryable: bool = False

    @classmethod
    def of(cls, error: StokerError) -> ErrorReport:
        """What ``error`` says of itself."""
        return cls(
            code=error.code,
            message=str(error),
            hint=error.hint,
            type_name=getattr(error, "type_name", "") or type(error).__name__,
            traceback=getattr(error, "traceback", ""),
            crash=isinstance(error, ExecutionError) and error.crash,
            retryable=error.retryable,
        )

    def to_json(self) -> dict[str, str]:
        """The part that callers see."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "type_name": self.type_name,
            "traceback": self.traceback,
        }


@dataclass(frozen=True)
class Succeeded:
    result: dict[str, Any]
    outputs: tuple[Output, ...] = ()


@dataclass(frozen=True)
class Failed:
    error: ErrorReport


@dataclass(frozen=True)
class Stopped:
    """The attempt ended because its job was to be cancelled."""


Outcome = Succeeded | Failed | Stopped


@dataclass(frozen=True)
class End:
    """An attempt that ends without having failed, and the claim that its node makes with it."""

    lease: Lease
    outcome: Succeeded | Stopped
    usage: Usage
    then: ClaimRequest | None = None


@dataclass(frozen=True)
class Usage:
    """What an attempt took. ``phases`` are seconds by name: cold_start, run, upload; Postgres adds the rest."""

    gpu_seconds: float = 0.0
    gpus: int = 0
    warm: bool = False
    phases: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class Finished:
    """``applied`` is False for an attempt that had lost its lease: nothing was written."""

    applied: bool
    state: JobState | None = None
    seq: int = 0
    next: Claim | None = None

    @classmethod
    def of(cls, left: Mapping[str, Any] | None, following: Claim | None) -> Self:
        """What ``leave_running.sql`` answered about the attempt, and the claim about the next."""
        if left is None:
            return cls(applied=False)
        return cls(applied=True, state=JobState(left["state"]), seq=left["seq"], next=following)


@dataclass(frozen=True)
class CancelResult:
    """The job's state now, and its last event. ``node_id`` is the node to nudge while the job still runs there."""

    state: JobState
    node_id: str | None = None
    seq: int = 0


@dataclass(frozen=True)
class Moved:
    """A job that was moved by no caller of its own. ``queue`` is the app (owner/alias) to ring if it waits again.

    ``attempt`` is the one that ended by it; None for a job that waited. ``node_id`` is that of a job which runs and
    was only asked to stop: the node to nudge.
    """

    job_id: UUID
    state: JobState
    seq: int
    queue: str
    attempt: int | None = None
    tenant_id: UUID | None = field(default=None, compare=False)
    node_id: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any], attempt: int | None = None) -> Self:
        """What a statement that moves jobs answered of one."""
        state, node_id = JobState(row["state"]), row.get("node_id")
        return cls(row["job_id"], state, row["seq"], row["queue"], attempt, row["tenant_id"], node_id)

    @property
    def names(self) -> dict[str, str | int]:
        """What log lines about this move carry."""
        attempt = {} if self.attempt is None else {"attempt": self.attempt}
        return {"job_id": str(self.job_id), "state": self.state.value, **attempt}
