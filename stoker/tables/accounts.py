"""Tables of tenants, their keys, what admins ask for, and the clock of their events."""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)

from stoker.tables.columns import NO_CAP, Json, Texts, maybe, metadata, moment, needed, of

tenants = Table(
    "tenants",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    needed("weight", REAL, "1"),
    needed("max_running", Integer, str(NO_CAP)),
    moment("created_at"),
    needed("events_pruned", BigInteger, "0"),
    maybe("max_requests_per_s", REAL),
    maybe("max_waiting", Integer),
    CheckConstraint("weight > 0", name="weight"),
    CheckConstraint("max_requests_per_s > 0", name="max_requests_per_s"),
    CheckConstraint("max_waiting > 0", name="max_waiting"),
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

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", Text, primary_key=True),
    needed("algorithm", Text),
    needed("public_key", LargeBinary),
    needed("private_key", LargeBinary),
    moment("created_at"),
    maybe("retired_at"),
    maybe("tenant_id", Uuid),  # of a secret; nobody's are the installation's key pairs
    Index("signing_keys_of_tenant", "tenant_id"),
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
    Column("role", Text, server_default=text("session_user")),  # of the database: whoever came with no key is this
    maybe("about_tenant", Uuid),
)

event_clock = Table(
    "event_clock",
    metadata,
    Column("id", Boolean, primary_key=True, server_default=text("true")),  # one row
    needed("era", Integer, "1"),
    needed("base", BigInteger, "0"),
    needed("server", Text),
    CheckConstraint("id", name="single"),
)
