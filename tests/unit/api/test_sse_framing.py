"""What stands on an event stream is read as what was said, whatever it is, by whoever reads it.

The readers: one that follows the standard, that of our own client and that of fal's, fed in pieces of any size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import httpx2
import httpx_sse
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.fal.run import _event as as_fal_streams
from api.stream import PING, RETRY_MS
from api.told import encode
from stoker.events import Event, EventId, EventKind
from stoker.stored_json import as_possible, loaded
from tests.support.json_values import values
from tests.support.sse_spec import Dispatched, parse

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEADERS = {"content-type": "text/event-stream"}
RETRY = b"retry: %d\n\n" % RETRY_MS

ids = st.builds(EventId, st.integers(0, 2**63), st.integers(0, 100), st.integers(0, 2**63))
said = st.tuples(st.sampled_from(EventKind), ids, values)
between = st.sampled_from([b"", PING, RETRY, PING + PING])


def by_the_standard(chunks: list[bytes]) -> list[Dispatched]:
    return parse(b"".join(chunks))


def by_our_client(chunks: list[bytes]) -> list[Dispatched]:
    answer = httpx2.Response(200, headers=HEADERS, content=iter(chunks), request=httpx2.Request("GET", "http://x"))
    return [Dispatched(sse.event, sse.data, sse.id) for sse in httpx2.EventSource(answer) if sse.data]


def by_fals_client(chunks: list[bytes]) -> list[Dispatched]:
    answer = httpx.Response(200, headers=HEADERS, content=iter(chunks))
    return [Dispatched(sse.event, sse.data, sse.id) for sse in httpx_sse.EventSource(answer).iter_sse() if sse.data]


READERS = [by_the_standard, by_our_client, by_fals_client]


@st.composite
def cut(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """The stream in pieces, as a network may deliver it: also in the middle of a letter."""
    places = draw(st.lists(st.integers(0, len(stream)), max_size=6).map(sorted))
    return [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]


def stored(value: Any) -> Any:
    """What is left of a value by the time that it is read from Postgres."""
    return loaded(as_possible(value).obj)


@pytest.mark.parametrize("read", READERS)
@given(events=st.lists(st.tuples(said, between), max_size=4), drawn=st.data())
def test_events_are_read_as_they_were_said(
    read: Callable[[list[bytes]], list[Dispatched]], events: list[Any], drawn: st.DataObject
) -> None:
    stream, expected = RETRY, []
    for (kind, event_id, value), beat in events:
        data = {"message": stored(value)}
        stream += beat + encode(Event(event_id, kind, data, NOW), data) + beat
        expected.append((kind.value, data, str(event_id)))

    found = read(drawn.draw(cut(stream)))

    assert [(each.type, json.loads(each.data), each.last_event_id) for each in found] == expected


@pytest.mark.parametrize("read", READERS)
@given(results=st.lists(st.tuples(values, between), max_size=4), drawn=st.data())
def test_what_fals_callers_are_streamed_is_read_as_it_was_said(
    read: Callable[[list[bytes]], list[Dispatched]], results: list[Any], drawn: st.DataObject
) -> None:
    expected = [{"result": stored(value)} for value, _ in results]

    stream = b"".join(pieces(expected, [beat for _, beat in results]))
    found = read(drawn.draw(cut(stream)))

    assert [json.loads(each.data) for each in found] == expected
    assert {each.type for each in found} <= {"message"}


def pieces(results: list[Any], beats: list[bytes]) -> Iterator[bytes]:
    for result, beat in zip(results, beats, strict=True):
        yield as_fal_streams(json.dumps(result, ensure_ascii=False).encode())
        yield beat
