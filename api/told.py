"""Told: an event of a job as its streams send it, encoded once for all of them.

Links in it begin with the address by which a caller reaches the API, so there is one text for each such address.
``api.relay`` and ``api.stream`` make them; nothing here reads or waits.
"""

from __future__ import annotations

import orjson

from api.job_json import event_data
from stoker.events import Event, EventKind
from stoker.job_views import JobView
from stoker.states import JobState


def encode(event: Event, data: object) -> bytes:
    """One event on the wire."""
    return b"event: %s\nid: %s\ndata: %s\n\n" % (event.kind.value.encode(), str(event.id).encode(), orjson.dumps(data))


def is_last(event: Event) -> bool:
    """Whether no event can follow."""
    return event.kind is EventKind.STATE and JobState(event.data["state"]).is_final


def has_result(event: Event) -> bool:
    """Whether its links can only be told by the job's outputs, which exist by now."""
    return event.kind is EventKind.STATE and event.data.get("result") is not None


class Told:
    """``job`` has the outputs of an event that ``has_result``."""

    __slots__ = ("_chunks", "_job", "event", "is_last")

    def __init__(self, event: Event, job: JobView) -> None:
        self.event, self.is_last = event, is_last(event)
        self._job = job
        self._chunks: dict[str, bytes] = {}

    def chunk(self, base_url: str) -> bytes:
        """The event on the wire, for who reaches the API there."""
        chunk = self._chunks.get(base_url)
        if chunk is None:
            chunk = self._chunks[base_url] = encode(self.event, event_data(self.event, self._job, base_url))
        return chunk
