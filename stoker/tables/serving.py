"""Tables of what is served and where: apps, their versions, nodes, runners, lanes."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    REAL,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from stoker.tables.columns import LANE, NARROW, Json, maybe, metadata, moment, needed, of, one_of

apps = Table(
    "apps",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    needed("paused", Boolean, "false"),
    maybe("max_running", Integer),
    moment("created_at"),
    maybe("max_queue_length", Integer),
    CheckConstraint("max_queue_length > 0", name="max_queue_length"),
)

app_versions = Table(
    "app_versions",
    metadata,
    Column("id", Uuid, primary_key=True),
    of("app_id", "apps.id"),
    needed("hash", Text),
    needed("manifest", Json),
    moment("created_at"),
    moment("published_at"),
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
    maybe("drain_requested_at"),
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
    maybe("used_at"),
    maybe("quarantined_until"),
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
    needed("job_cost", Double, "1"),
    PrimaryKeyConstraint(*LANE),
    CheckConstraint("running >= 0", name="running"),
    CheckConstraint("weight > 0", name="weight"),
    CheckConstraint("job_cost > 0", name="job_cost"),
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
    Index("lanes_running", "app_id", postgresql_where=text("running > 0")),
    postgresql_with=NARROW | {"autovacuum_vacuum_scale_factor": 0, "autovacuum_vacuum_threshold": 500},
)
