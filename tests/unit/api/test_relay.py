"""A job's relay: what its streams are told, in which order, and what one that does not read costs."""

from __future__ import annotations

import weakref
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import cast
from uuid import uuid4

from api.connections import Connections
from api.relay import KEEP, JobFeed, Relay
from api.stream import JobStream
from stoker.events import Event, EventId, EventKind
from stoker.job_views import JobView
from stoker.states import JobState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE = "https://stoker.example"
FIRST = 2


def job() -> JobView:
    """A running job; of its fields a relay reads few."""
    known = {"id": uuid4(), "tenant_id": uuid4(), "state": JobState.RUNNING, "attempt": 1, "last_seq": FIRST}
    return JobView(**{field.name: known.get(field.name) for field in fields(JobView)})


def row(seq: int) -> Event:
    return Event(EventId(seq, 1), EventKind.LOG, {"message": f"line {seq}"}, NOW)


def progress(seq: int, n: int, attempt: int = 1) -> Event:
    return Event(EventId(seq, attempt, n), EventKind.PROGRESS, {"step": n}, NOW)


def followed(feeds: int = 1) -> tuple[Relay, list[JobFeed], list[Relay]]:
    """A relay, feeds of it, and what it said is due."""
    due: list[Relay] = []
    relay = Relay(job(), due.append)
    made = [JobFeed() for _ in range(feeds)]
    relay.feeds.update(made)
    return relay, made, due


def ids(feed: JobFeed) -> list[str]:
    return [str(told.event.id) for told in feed.take()]


def test_an_event_is_encoded_once_for_all_streams_of_its_job() -> None:
    relay, feeds, _ = followed(3)

    relay.offer(progress(FIRST, 1))
    chunks = [told.chunk(BASE) for feed in feeds for told in feed.take()]

    assert chunks[0].startswith(b"event: progress\nid: 2.1.1\n")
    assert chunks[0] is chunks[1] is chunks[2]


def test_progress_waits_for_the_row_before_it() -> None:
    relay, [feed], due = followed()

    relay.offer(progress(FIRST + 1, 1))
    before = ids(feed)
    relay.tell_rows([row(FIRST + 1), row(FIRST + 2)])

    assert due == [relay]
    assert before == []
    assert ids(feed) == ["3.1.0", "3.1.1", "4.1.0"]


def test_what_redis_kept_while_nobody_listened_comes_before_what_is_live() -> None:
    relay, [feed], due = followed()
    relay.offer(progress(FIRST, 1))

    relay.look_back()
    relay.offer(progress(FIRST, 5))
    held = ids(feed)
    relay.fill_gap([progress(FIRST, n) for n in range(2, 6)])
    relay.tell_rows([])

    assert due == [relay]
    assert held == ["2.1.1"]
    assert ids(feed) == ["2.1.2", "2.1.3", "2.1.4", "2.1.5"]


def test_a_row_that_is_read_again_and_progress_of_a_former_attempt_are_not_told() -> None:
    relay, [feed], _ = followed()
    relay.tell_rows([row(FIRST), row(FIRST + 1)])

    relay.tell_rows([row(FIRST + 1)])
    relay.offer(progress(FIRST, 7))
    relay.offer(progress(FIRST + 1, 8, attempt=0))

    assert ids(feed) == ["3.1.0"]


def test_a_wake_up_for_rows_that_were_told_reads_nothing() -> None:
    relay, _, due = followed()
    relay.tell_rows([row(FIRST + 1)])

    relay.look(FIRST + 1)
    relay.look(FIRST + 2)

    assert due == [relay]


def test_a_stream_that_does_not_read_falls_behind_and_the_others_go_on() -> None:
    relay, [slow, quick], _ = followed(2)

    for n in range(KEEP + 1):
        relay.offer(progress(FIRST, n + 1))
        assert len(quick.take()) == 1

    assert slow.is_behind
    assert slow.take() == []
    assert not quick.is_behind


def test_who_reads_again_is_told_what_comes_from_then_on() -> None:
    relay, [feed], _ = followed()
    feed.fall_behind()
    relay.offer(progress(FIRST, 1))

    feed.is_behind = False
    relay.offer(progress(FIRST, 2))

    assert ids(feed) == ["2.1.2"]


class Payload(dict[str, str]):
    """One that can be asked for by a weak reference."""


def test_a_stream_does_not_keep_its_jobs_payload_in_memory() -> None:
    given = Payload(prompt="a cat")
    kept = weakref.ref(given)

    stream = JobStream(cast("Connections", None), replace(job(), input=given, result=given), EventId(0), BASE)
    del given

    assert stream is not None
    assert kept() is None
