"""The benchmark of the API: its thresholds judge what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.api_load.fan_out import FanOut, Step
from benchmarks.api_load.polling import Polled
from benchmarks.api_load.replicas import Survived
from benchmarks.api_load.submitting import Rates
from benchmarks.api_load.thresholds import of_fan_out, of_polls, of_replicas, of_submits

KINDS = ("log", "progress", "all")
QUIET = Step(4000.0, dict.fromkeys(KINDS, 10.0), dict.fromkeys(KINDS, 50.0), 0, 0, 0, {"API": 0.3}, 1.0)


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, []),
        ({"p99": {"all": 251.0}}, ["p99"]),
        ({"rows_lost": 1}, ["rows lost"]),
        ({"progress_lost": 1}, ["progress lost"]),
        ({"out_of_order": 1}, ["out of order"]),
    ],
)
def test_a_stream_is_judged_by_its_first_rate(changes: dict, missed: list[str]):
    slow = replace(QUIET, rate=14_000.0, p99={"all": 900.0})
    judged = list(of_fan_out(FanOut([replace(QUIET, **changes), slow], 43.0, 150.0)))

    found = [verdict.wanted for verdict in judged if not verdict.is_met]

    assert len(found) == len(missed)
    assert all(word in wanted for word, wanted in zip(missed, found, strict=True))


def test_a_client_may_take_a_hundred_kilobytes():
    *_, memory = of_fan_out(FanOut([QUIET], 100.5, 150.0))

    assert not memory.is_met


def test_the_highest_rate_that_held_is_said():
    slow = replace(QUIET, rate=14_000.0, p99=dict.fromkeys(KINDS, 451.0))

    assert "at 12,000 deliveries/s, not at 14,000" in str(
        FanOut([QUIET, replace(QUIET, rate=12_000.0), slow], 43.0, 150.0)
    )


def test_a_poll_that_failed_is_a_miss_however_quick_the_others_were():
    slow, failed = (
        Polled("GET", 500.0, 1.0, 51.0, 0, 0.5, 0.1),
        Polled("GET", 500.0, 1.0, 2.0, 3, 0.5, 0.1),
    )

    assert [verdict.is_met for verdict in of_polls([slow, failed])] == [False, True, True, False]


def test_submits_are_judged_against_the_bare_inserts_of_the_same_run():
    at_one = Rates(1, submits=[59.0], bare=[100.0])
    at_sixteen = Rates(16, submits=[200.0, 260.0, 300.0], bare=[900.0, 1000.0, 2000.0])

    assert [verdict.is_met for verdict in of_submits([at_one, at_sixteen])] == [False, True]


def test_a_client_that_missed_a_row_or_the_result_is_a_miss():
    judged = [verdict.is_met for verdict in of_replicas([Survived("killed", 500, 500, 1, 0, 1, 1.0, 1.0)])]

    assert judged == [False, True, False]
