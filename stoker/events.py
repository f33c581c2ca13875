"""Events of a job: their kinds and their ids.

Pure: no I/O. Rows (state, log, output) are stored by ``stoker.jobs`` with a ``seq`` of 1, 2, 3 ... without a gap;
progress and previews take no seq and travel through ``stoker.bus``. The SSE id orders both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Self

from stoker.errors import InvalidRequest

WRITTEN = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18}){0,2}")
"""An event's id as text."""


class EventKind(StrEnum):
    STATE = "state"
    PROGRESS = "progress"
    LOG = "log"
    PREVIEW = "preview"
    OUTPUT = "output"

    @property
    def is_row(self) -> bool:
        """Whether the event is a row in Postgres, which a client never misses."""
        return self not in (EventKind.PROGRESS, EventKind.PREVIEW)


class EventId(NamedTuple):
    """``seq.attempt.n``, compared as a tuple. A row has n = 0; progress has the last row's seq and counts from 1."""

    seq: int
    attempt: int = 0
    n: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``seq``, ``seq.attempt`` or ``seq.attempt.n``.

        Raises:
            InvalidRequest: it is none of these.
        """
        if WRITTEN.fullmatch(text) is None:
            raise InvalidRequest(f"{text[:80]!r} is not an event id", hint="Send back the id of an event as it came.")
        return cls(*(int(part) for part in text.split(".")))

    def __str__(self) -> str:
        return f"{self.seq}.{self.attempt}.{self.n}"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a job. ``data`` is what stands in the SSE ``data`` line, as JSON."""

    id: EventId
    kind: EventKind
    data: Mapping[str, Any]
    created_at: datetime
