"""Tables of what jobs take in, give out, cost and announce."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from stoker.tables.columns import Json, maybe, metadata, moment, needed, of, one_of

job_outputs = Table(
    "job_outputs",
    metadata,
    Column("id", Uuid, primary_key=True),
    of("job_id", "jobs.id", cascade=True),
    needed("attempt", Integer),
    needed("position", Integer),  # as the attempt listed them
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
    UniqueConstraint("job_id", "position"),
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
    maybe("job_id", Uuid),  # whose app made it for another one; no reference: it may be stored before, or left behind
    maybe("expires_at"),
    Index("files_of_tenant", "tenant_id"),
    Index("files_of_job", "job_id", postgresql_where=text("job_id IS NOT NULL")),
    Index("files_expiring", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
    Index("files_by_time", "created_at", postgresql_where=text("job_id IS NULL")),
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
    maybe("keep_s", Double),
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
    needed("tries_before", Integer, "0"),  # somebody asked for it to be sent again
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
    maybe("answer", Text),
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
    maybe("warm", Boolean),  # a node that was lost has not said
    needed("started_at", DateTime(timezone=True)),
    moment("ended_at"),
    needed("phases", Json, "'{}'"),
    maybe("peak_memory_bytes", BigInteger),
    PrimaryKeyConstraint("job_id", "attempt"),
    Index("usage_by_time", "ended_at"),
)
