"""Columns: how the tables of this package write theirs.

A naming convention for every constraint, and short forms for the kinds of column that come again and again.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKey, MetaData, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from stoker.states import JobState

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
