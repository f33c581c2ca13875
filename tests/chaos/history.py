"""History: what was seen of a run by the client, in the processes' logs, in Postgres and in the object store. Values.

``checker`` judges it; ``client`` and ``evidence`` write it down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
FINAL = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True)
class Answer:
    """One try of a POST. ``op`` is what the client wanted, and a tag of the job; ``job_id`` None: nobody answered."""

    op: str
    key: str | None
    job_id: str | None
    wants_webhook: bool = False


@dataclass(frozen=True)
class Stream:
    """What one client saw of a job's events, over all its connections: ids, and the final state if it came."""

    job_id: str
    ids: tuple[str, ...]
    ended: str | None


@dataclass(frozen=True)
class Delivery:
    """A webhook as it arrived."""

    webhook_id: str
    job_id: str
    state: str


@dataclass(frozen=True)
class Line:
    """A line of a process's log about an attempt. ``process`` is node-1, api, ..., ``boot`` counts its starts."""

    process: str
    boot: int
    event: str
    job_id: str
    attempt: int
    state: str = ""


@dataclass(frozen=True)
class Stored:
    """An object: ``{tenant}/{job}/{attempt}/{name}``."""

    key: str
    size_bytes: int

    @property
    def job_id(self) -> str:
        return self.key.split("/")[1]

    @property
    def attempt(self) -> int:
        return int(self.key.split("/")[2])


@dataclass(frozen=True)
class History:
    """Rows are as the tables have them, ids as text. ``left`` are processes that outlived what started them,
    ``complaints`` what a client met that it must not.
    """

    answers: Sequence[Answer] = ()
    streams: Sequence[Stream] = ()
    deliveries: Sequence[Delivery] = ()
    lines: Sequence[Line] = ()
    objects: Sequence[Stored] = ()
    left: Sequence[str] = ()
    complaints: Sequence[str] = ()
    rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)

    def of(self, table: str) -> Sequence[Row]:
        return self.rows.get(table, ())

    def jobs(self) -> dict[str, Row]:
        return {job["id"]: job for job in self.of("jobs")}

    def by_job(self, table: str, order: str) -> Iterator[tuple[str, list[Row]]]:
        """Each job's rows of ``table``, in the order of a column."""
        found: dict[str, list[Row]] = {job_id: [] for job_id in self.jobs()}
        for row in self.of(table):
            found.setdefault(row["job_id"], []).append(row)
        for job_id, rows in found.items():
            yield job_id, sorted(rows, key=lambda row: row[order])

    def attempts(self) -> dict[tuple[str, int], Row]:
        return {(row["job_id"], row["attempt"]): row for row in self.of("job_attempts")}
