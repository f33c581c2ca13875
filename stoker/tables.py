"""The tables, as SQLAlchemy knows them.

The migrations make them, and a test compares the two; nothing creates tables from here. Reads are composed from these
objects; what changes a job's state is plain SQL (``stoker.sql``). Times are timestamptz by ``stoker_now()``, ids UUIDv7
made in Python.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from stoker.states import FINAL, JobState

NAMING = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "ix": "ix_%(table_name)s_%(column_0_name)s",
}
metadata = MetaData(naming_convention=NAMING)

NOW = text("stoker_now()")
NO_CAP = 2147483647  # "no limit", so that running < max_running needs no case for NULL in the index
NARROW = {"fillfactor": 50}  # room in each page, so that frequent updates stay HOT

Json = JSONB(none_as_null=True)
Texts = ARRAY(Text)


def quoted(states: frozenset[JobState]) -> str:
    """States as the inside of a SQL IN (...)."""
    return ", ".join(f"'{state}'" for state in JobState if state in states)


def needed(name: str, kind: Any, default: str | None = None) -> Column[Any]:
    """A column that is never NULL."""
    return Column(name, kind, nullable=False, server_default=None if default is None else text(default))


def moment(name: str) -> Column[Any]:
    """A time that is known when the row is made."""
    return Column(name, DateTime(timezone=True), nullable=False, server_default=NOW)


def maybe(name: str, kind: Any = None) -> Column[Any]:
    """A column that may be NULL; a time unless ``kind`` says otherwise."""
    return Column(name, DateTime(timezone=True) if kind is None else kind, nullable=True)


def of(name: str, target: str, *, nullable: bool = False, cascade: bool = False) -> Column[Any]:
    """A reference to another table's row."""
    kind = Text if target in ("nodes.id", "api_keys.id") else Uuid
    return Column(name, kind, ForeignKey(target, ondelete="CASCADE" if cascade else None), nullable=nullable)


def one_of(column: str, *values: str) -> CheckConstraint:
    inside = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({inside})", name=column)


LANE = ("version_id", "uses_gpus", "tenant_id")

tenants = Table(
    "tenants",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    needed("weight", REAL, "1"),
    needed("max_running", Integer, str(NO_CAP)),
    moment("created_at"),
    CheckConstraint("weight > 0", name="weight"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    of("tenant_id", "tenants.id"),
    needed("secret_sha256", LargeBinary),
    needed("scopes", Texts),
    needed("name", Text, "''"),
    needed("best_priority", SmallInteger, "0"),
    moment("created_at"),
    maybe("expires_at"),
    maybe("revoked_at"),
    CheckConstraint("best_priority BETWEEN 0 AND 9", name="best_priority"),
    CheckConstraint("scopes <@ ARRAY['run', 'read', 'admin'] AND scopes <> '{}'", name="scopes"),
)

apps = Table(
    "apps",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    needed("paused", Boolean, "false"),
    maybe("max_running", Integer),
    moment("created_at"),
)

app_versions = Table(
    "app_versions",
    metadata,
    Column("id", Uuid, primary_key=True),
    of("app_id", "apps.id"),
    needed("hash", Text),
    needed("manifest", Json),
    moment("created_at"),
    UniqueConstraint("app_id", "hash"),
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", Text, primary_key=True),
    needed("boot_id", Uuid),
    needed("hostname", Text),
    needed("state", Text),
    needed("slots", Integer),
    needed("gpus", Json),
    needed("versions", ARRAY(Uuid)),
    needed("pid", Integer),
    needed("version", Text),
    needed("lease_s", Double),
    moment("registered_at"),
    moment("heartbeat_at"),
    one_of("state", "ready", "draining", "stopped"),
    postgresql_with=NARROW,
)

runners = Table(
    "runners",
    metadata,
    of("node_id", "nodes.id", cascade=True),
    needed("name", Text),
    needed("app", Text),
    needed("state", Text),
    needed("world_size", Integer),
    needed("slots", ARRAY(Integer)),
    needed("pids", ARRAY(Integer)),
    moment("updated_at"),
    PrimaryKeyConstraint("node_id", "name"),
)

queue_lanes = Table(
    "queue_lanes",
    metadata,
    of("version_id", "app_versions.id"),
    needed("uses_gpus", Boolean),
    of("tenant_id", "tenants.id"),
    of("app_id", "apps.id"),
    needed("weight", REAL),
    needed("max_running", Integer),
    needed("paused", Boolean, "false"),
    needed("running", Integer, "0"),
    needed("has_ready", Boolean, "false"),
    needed("prio", SmallInteger, "9"),
    needed("vtime", Double, "0"),
    PrimaryKeyConstraint(*LANE),
    CheckConstraint("running >= 0", name="running"),
    CheckConstraint("weight > 0", name="weight"),
    Index(
        "lanes_open",
        "version_id",
        "uses_gpus",
        "prio",
        "vtime",
        "tenant_id",
        postgresql_where=text("has_ready AND NOT paused AND running < max_running"),
    ),
    Index(
        "lanes_open_by_vtime",
        "app_id",
        "vtime",
        postgresql_where=text("has_ready AND NOT paused AND running < max_running"),
    ),
    postgresql_with=NARROW | {"autovacuum_vacuum_scale_factor": 0, "autovacuum_vacuum_threshold": 500},
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    needed("tenant_id", Uuid),
    needed("version_id", Uuid),
    needed("uses_gpus", Boolean),
    needed("endpoint", Text),
    needed("kind", Text),
    needed("state", Text),
    needed("priority", SmallInteger),
    needed("input", Json),
    maybe("result", Json),
    maybe("error", Json),
    needed("attempt", Integer, "0"),
    needed("max_attempts", Integer),
    needed("failures", Integer, "0"),
    needed("crashes", Integer, "0"),
    maybe("avoid_node", Text),
    maybe("avoid_until"),
    needed("run_timeout_s", Double),
    maybe("stall_timeout_s", Double),
    maybe("start_timeout_s", Double),
    maybe("start_deadline"),
    moment("created_at"),
    needed("available_at", DateTime(timezone=True)),
    maybe("started_at"),
    maybe("finished_at"),
    maybe("cancel_requested_at"),
    maybe("webhook_url", Text),
    needed("tags", Texts, "'{}'"),
    maybe("idempotency_key", Text),
    maybe("request_hash", LargeBinary),
    maybe("key_id", Text),
    maybe("parent_id", Uuid),
    maybe("retried_from", Uuid),
    # Part of the protocol: the lock it takes on the lane keeps the tick from putting a lane to sleep under a submit.
    ForeignKeyConstraint(LANE, [f"queue_lanes.{column}" for column in LANE], name="fk_jobs_lane"),
    ForeignKeyConstraint(["parent_id"], ["jobs.id"]),
    one_of("state", *JobState),
    one_of("kind", "inference", "training"),
    CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),
    CheckConstraint(f"(finished_at IS NOT NULL) = (state IN ({quoted(FINAL)}))", name="finished"),
    CheckConstraint("(result IS NOT NULL) = (state = 'succeeded')", name="result"),
    CheckConstraint("(error IS NOT NULL) = (state = 'failed')", name="error"),
    CheckConstraint("state <> 'running' OR (attempt > 0 AND started_at IS NOT NULL)", name="running"),
    CheckConstraint("failures >= 0 AND crashes >= 0 AND failures + crashes <= attempt", name="tries"),
    CheckConstraint("max_attempts >= 1 AND run_timeout_s > 0", name="limits"),
    CheckConstraint("(idempotency_key IS NULL) = (request_hash IS NULL)", name="idempotency"),
    CheckConstraint("(avoid_node IS NULL) = (avoid_until IS NULL)", name="avoid"),
    Index("jobs_ready", *LANE, "priority", "id", postgresql_where=text("state = 'queued'")),
    Index("jobs_due", "available_at", postgresql_where=text("state = 'scheduled'")),
    Index(
        "jobs_unstarted",
        "start_deadline",
        postgresql_where=text("state IN ('scheduled', 'queued') AND attempt = 0 AND start_deadline IS NOT NULL"),
    ),
    Index(
        "jobs_idempotency",
        "tenant_id",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    Index("jobs_of_tenant", "tenant_id", "id"),
    Index("jobs_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    Index("jobs_children", "parent_id", postgresql_where=text("parent_id IS NOT NULL")),
)

job_heads = Table(
    "job_heads",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    needed("last_seq", Integer),
    maybe("progress", Json),
    maybe("progress_at"),
    postgresql_with=NARROW,
)

job_attempts = Table(
    "job_attempts",
    metadata,
    of("job_id", "jobs.id", cascade=True),
    needed("attempt", Integer),
    needed("node_id", Text),
    needed("boot_id", Uuid),
    needed("runner", Text),
    moment("claimed_at"),
    maybe("ended_at"),
    maybe("outcome", Text),
    maybe("error", Json),
    needed("gpus", Integer, "0"),
    needed("gpu_seconds", Double, "0"),
    maybe("warm", Boolean),
    needed("phases", Json, "'{}'"),
    maybe("peak_memory_bytes", BigInteger),
    PrimaryKeyConstraint("job_id", "attempt"),
    one_of("outcome", "succeeded", "failed", "cancelled", "lease_lost", "released"),
    CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name="ended"),
    CheckConstraint("attempt > 0 AND gpu_seconds >= 0 AND gpus >= 0", name="amounts"),
)

job_leases = Table(
    "job_leases",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    needed("attempt", Integer),
    needed("version_id", Uuid),
    needed("uses_gpus", Boolean),
    needed("tenant_id", Uuid),
    needed("node_id", Text),
    needed("boot_id", Uuid),
    needed("runner", Text),
    needed("counts", Boolean, "true"),
    needed(
        "expires_at", DateTime(timezone=True)
    ),  # never indexed: an index would make every heartbeat a non-HOT update
    postgresql_with=NARROW,
)

job_events = Table(
    "job_events",
    metadata,
    # Not jobs: a lock on the head, which the same statement updates, costs nothing; one on the wide job row would.
    of("job_id", "job_heads.job_id", cascade=True),
    needed("seq", Integer),
    maybe("attempt", Integer),
    needed("kind", Text),
    needed("data", Json),
    moment("created_at"),
    PrimaryKeyConstraint("job_id", "seq"),
    one_of("kind", "state", "log", "output"),
    CheckConstraint("seq > 0", name="seq"),
)

job_outputs = Table(
    "job_outputs",
    metadata,
    Column("id", Uuid, primary_key=True),
    of("job_id", "jobs.id", cascade=True),
    needed("attempt", Integer),
    needed("name", Text),
    needed("pointer", Text),
    needed("key", Text),
    needed("content_type", Text),
    needed("size_bytes", BigInteger),
    needed("sha256", Text),
    Column("token", Text, nullable=False, unique=True),
    needed("metadata", Json),
    moment("created_at"),
    CheckConstraint("size_bytes >= 0 AND length(token) >= 32", name="amounts"),
    Index("outputs_of_job", "job_id"),
)

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    of("tenant_id", "tenants.id"),
    Column("key", Text, nullable=False, unique=True),
    needed("content_type", Text),
    needed("file_name", Text),
    needed("size_bytes", BigInteger),
    needed("sha256", Text),
    moment("created_at"),
    Index("files_of_tenant", "tenant_id"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Uuid, primary_key=True),
    of("tenant_id", "tenants.id"),
    Column("key", Text, nullable=False, unique=True),
    needed("content_type", Text),
    needed("file_name", Text),
    maybe("multipart_id", Text),
    moment("created_at"),
    needed("expires_at", DateTime(timezone=True)),
    maybe("completed_at"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", Text, primary_key=True),
    needed("algorithm", Text),
    needed("public_key", LargeBinary),
    needed("private_key", LargeBinary),
    moment("created_at"),
    maybe("retired_at"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, unique=True),
    needed("tenant_id", Uuid),
    needed("url", Text),
    needed("state", Text, "'pending'"),
    needed("attempts", Integer, "0"),
    maybe("next_attempt_at"),
    maybe("last_status", Integer),
    maybe("last_error", Text),
    moment("created_at"),
    maybe("delivered_at"),
    one_of("state", "pending", "delivered", "failed"),
    CheckConstraint("(state = 'pending') = (next_attempt_at IS NOT NULL)", name="next"),
    Index("deliveries_due", "next_attempt_at", postgresql_where=text("state = 'pending'")),
)

delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    of("delivery_id", "webhook_deliveries.id", cascade=True),
    needed("attempt", Integer),
    moment("sent_at"),
    maybe("status", Integer),
    maybe("error", Text),
    maybe("duration_s", Double),
    PrimaryKeyConstraint("delivery_id", "attempt"),
)

usage_records = Table(
    "usage_records",
    metadata,
    needed("job_id", Uuid),  # no references: usage outlives the job's rows
    needed("attempt", Integer),
    needed("tenant_id", Uuid),
    needed("app_id", Uuid),
    needed("node_id", Text),
    needed("outcome", Text),
    needed("gpus", Integer),
    needed("gpu_seconds", Double),
    needed("warm", Boolean),
    needed("started_at", DateTime(timezone=True)),
    moment("ended_at"),
    PrimaryKeyConstraint("job_id", "attempt"),
    Index("usage_by_time", "ended_at"),
)

admin_requests = Table(
    "admin_requests",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    needed("action", Text),
    needed("target", Text),
    needed("requested_by", Text, "current_user"),
    moment("requested_at"),
    maybe("done_at"),
    maybe("answer", Text),
    Index("admin_requests_open", "id", postgresql_where=text("done_at IS NULL")),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    moment("at"),
    maybe("tenant_id", Uuid),
    maybe("key_id", Text),
    needed("action", Text),
    needed("target", Text),
    needed("data", Json, "'{}'"),
)
