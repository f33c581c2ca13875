"""Tables of what is to go: objects that nothing refers to any more, and how far each sweep over final jobs has come."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Identity, Index, Integer, Table, Text, Uuid

from stoker.tables.columns import Texts, maybe, metadata, moment, needed

object_removals = Table(
    "object_removals",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    needed("prefix", Text),  # a key, or what all keys of a folder begin with
    needed("is_folder", Boolean),
    needed("keep", Texts, "'{}'"),
    moment("due_at"),
    needed("tries", Integer, "0"),
    maybe("last_error", Text),
    Index("removals_due", "due_at"),
)

retention_places = Table(
    "retention_places",
    metadata,
    Column("kind", Text, primary_key=True),
    needed("finished_at", DateTime(timezone=True), "'1970-01-01 00:00:00+00'"),
    needed("job_id", Uuid, "'00000000-0000-0000-0000-000000000000'"),
)
