"""Reads events over SSE, of a job or of many, and takes the stream up again where it was cut.

The API replays from ``Last-Event-ID``, so a reader who reconnects misses no row and sees none twice. Used by
``Client.events`` and ``Client.all_events``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import httpx2

from stoker.client.models import JobsEvent, StreamedEvent
from stoker.client.problems import Unreachable, check
from stoker.errors import Unavailable
from stoker.events import EventKind

QUIET_S = 45.0
"""The API sends a ping each 15 s: a stream that is silent for three of them is dead."""
GIVE_UP_S = 60.0
PAUSE_S = 0.5
MAX_EVENT_BYTES = 64 * 1024 * 1024
"""A final event holds the whole result."""


def follow(
    http: httpx2.Client, path: str, headers: dict[str, str], after: str | None, wait: Callable[[float], bool]
) -> Iterator[StreamedEvent]:
    """Events after the id ``after`` (None: all), until the job's last.

    A stream that was open once is opened again for up to 60 s. ``wait`` passes the time between two tries;
    when it returns True, the client was closed and the stream ends.

    Raises:
        Unreachable: the API does not answer, or no longer.
    """
    for sse in _frames(http, path, {}, headers, after, wait):
        if sse.event not in frozenset(EventKind):
            continue
        event = StreamedEvent(id=sse.id, kind=EventKind(sse.event), data=json.loads(sse.data))
        yield event
        if event.final_state is not None:
            return


def follow_many(
    http: httpx2.Client,
    params: Mapping[str, str | Sequence[str]],
    headers: dict[str, str],
    after: str | None,
    wait: Callable[[float], bool],
) -> Iterator[JobsEvent]:
    """Events of many jobs, and where some may be missing a ``gap``; until the client is closed.

    Raises:
        Unreachable: the API does not answer, or no longer.
    """
    for sse in _frames(http, "/v1/events", params, headers, after, wait):
        if sse.event in (*EventKind, "gap"):
            yield JobsEvent.model_validate({"id": sse.id, "kind": sse.event, **json.loads(sse.data)})


def _frames(
    http: httpx2.Client,
    path: str,
    params: Mapping[str, str | Sequence[str]],
    headers: dict[str, str],
    after: str | None,
    wait: Callable[[float], bool],
) -> Iterator[httpx2.ServerSentEvent]:
    last, alive_at, pause_s = after, None, PAUSE_S
    closed = False
    while not closed:
        try:
            with http.stream(
                "GET",
                path,
                params=params,
                headers=headers | {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {}),
                timeout=httpx2.Timeout(10.0, read=QUIET_S),
            ) as response:
                if response.status_code == httpx2.codes.NO_CONTENT:
                    return
                if response.is_error:
                    response.read()
                check(response)
                alive_at = time.monotonic()
                for sse in httpx2.EventSource(response, max_event_size=MAX_EVENT_BYTES):
                    alive_at = time.monotonic()
                    if sse.retry is not None:
                        pause_s = sse.retry / 1000
                    if sse.data:
                        last = sse.id or last
                        yield sse
        except (httpx2.TransportError, Unavailable) as error:
            if alive_at is None or time.monotonic() - alive_at > GIVE_UP_S:
                raise Unreachable(f"no stream of events from {http.base_url}: {error}") from error
        closed = wait(pause_s)
