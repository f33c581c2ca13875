"""Ids sort by the time they were made, and are UUIDs of version 7."""

from __future__ import annotations

from uuid import RFC_4122

from stoker.ids import new_id


def test_an_id_is_a_uuid_of_version_7() -> None:
    made = new_id()

    assert (made.version, made.variant) == (7, RFC_4122)


def test_ids_made_in_the_same_millisecond_keep_their_order_and_differ(monkeypatch) -> None:
    times = iter(
        [1_700_000_000_000_000_000, 1_700_000_000_000_000_300, 1_700_000_000_000_900_000, 1_700_000_000_001_000_000]
    )
    monkeypatch.setattr("time.time_ns", lambda: next(times))

    ids = [new_id() for _ in range(4)]

    assert ids == sorted(ids)
    assert len({made.int >> 64 for made in ids}) == 4
