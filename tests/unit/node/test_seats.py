"""Which seats of an app could take a job: on plain values, and an app host that would take any."""

from __future__ import annotations

import time
import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from stoker.apps import AppVersion
from stoker.children import MAX_DEPTH
from stoker.errors import WorkerCrashed
from stoker.jobs import ErrorReport, Failed
from stoker.manifest import EndpointManifest, Manifest
from worker_node.quarantine import FIRST_S, JOBS, Quarantine
from worker_node.seats import MORE_WAIT, Seat, Seats


def seats_of(
    *kinds: bool,
    gpus: Quarantine | None = None,
    has_slots: bool = True,
    others_work: bool = False,
    most_waiting: int = 200,
    calls: int = 4,
    **host: Any,
) -> Seats:
    """Those of an app with an endpoint of each kind: with GPUs (True) or without."""
    endpoints = tuple(
        EndpointManifest(f"/{number}", "inference", {}, {}, kind, 60.0, None, None, 1, "")
        for number, kind in enumerate(kinds)
    )
    version = AppVersion(uuid.uuid4(), "a", "", Manifest("a", "", "", int(True in kinds), endpoints))
    app_host: Any = SimpleNamespace(
        **{"serves_one_at_a_time": False, "can_start": lambda _: True, **host},
        loading=SimpleNamespace(max_multiplexing=calls),
    )
    placement: Any = SimpleNamespace(could_take=lambda _: has_slots, others_work=lambda _: others_work)
    return Seats(
        version,
        app_host,
        placement,
        gpus or Quarantine(2, on_begin=lambda _: None),
        lambda _: None,
        most_waiting=most_waiting,
    )


def some(seats: Seats, *, uses_gpus: bool) -> Seat:
    return next(seat for seat in seats if seat.uses_gpus is uses_gpus and seat.is_free)


def test_a_job_with_gpus_that_waits_for_another_apps_leaves_its_seat_to_none_and_harms_nobody():
    seats = seats_of(True)
    seat = some(seats, uses_gpus=True)
    seat.is_free = False

    seats.wait(seat, waits=True)

    assert not seat.waits
    assert [(other.uses_gpus, other.is_free) for other in seats] == [(True, False)]
    assert seats.is_ready(seat), "for the job that follows"


def test_an_app_whose_process_is_down_lacks_more_than_slots_and_one_at_work_lacks_none():
    down = seats_of(True, False, has_slots=False, can_start=lambda _: False)
    well = seats_of(True, False, has_slots=False)
    busy = seats_of(True, False, has_slots=False)
    some(busy, uses_gpus=True).is_free = False

    told = [(seats.lack_slots, seats.lack_more_than_slots) for seats in (down, well, busy)]

    assert told == [(False, True), (True, False), (False, False)]


def test_each_call_deeper_has_room_to_wait_that_those_above_it_cannot_take():
    seats = seats_of(True, False, most_waiting=2)
    allowed = []

    for _ in range(2 + MAX_DEPTH * MORE_WAIT):
        allowed.append(seats.least_depth(uses_gpus=False))
        parent = some(seats, uses_gpus=False)
        parent.is_free = False
        seats.wait(parent, waits=True)

    assert [allowed.count(depth) for depth in range(MAX_DEPTH + 1)] == [2, *[MORE_WAIT] * MAX_DEPTH]
    assert allowed == sorted(allowed)
    assert seats.least_depth(uses_gpus=False) == MAX_DEPTH, "what waits for nobody may always begin"
    assert seats.least_depth(uses_gpus=True) == 0


@pytest.mark.parametrize("calls", [1, 4, 100])
def test_an_app_is_served_as_many_calls_at_a_time_as_it_says_and_more_may_wait_with_each_that_are_deeper(
    calls: int,
) -> None:
    seats = seats_of(True, False, most_waiting=0, calls=calls)

    assert sum(not seat.uses_gpus for seat in seats) == calls
    assert [seat.uses_gpus for seat in seats.free] == [True, False], "those of a kind are alike"
    for _ in range(calls):
        parent = some(seats, uses_gpus=False)
        parent.is_free = False
        seats.wait(parent, waits=True)
    assert seats.least_depth(uses_gpus=False) == 1, "all of them wait, and there is room to spare"


@pytest.mark.parametrize("crashed", [True, False])
def test_jobs_on_trial_are_tried_one_at_a_time_and_those_of_the_other_kind_are_no_matter(
    crashed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seats = seats_of(True, False)
    for _ in range(JOBS):
        seats.note(claim(uses_gpus=crashed), Failed(ErrorReport.of(WorkerCrashed("exit code -9"))))
    over = time.monotonic() + FIRST_S
    monkeypatch.setattr(time, "monotonic", lambda: over)

    some(seats, uses_gpus=not crashed).is_free = False
    beside_the_other_kind = seats.is_ready(some(seats, uses_gpus=crashed))
    some(seats, uses_gpus=crashed).is_free = False

    assert beside_the_other_kind
    assert not any(seats.is_ready(seat) for seat in seats if seat.is_free and seat.uses_gpus is crashed)


@pytest.mark.parametrize("others_work", [True, False])
def test_gpus_on_trial_are_tried_with_one_job_at_a_time_whichever_apps(others_work: bool) -> None:
    gpus = Quarantine(2, on_begin=lambda _: None)
    for number in range(JOBS):
        gpus.crashed("ab"[number % 2], uuid.uuid4(), time.monotonic() - FIRST_S)
    seats = seats_of(True, False, gpus=gpus, others_work=others_work)

    ready = {kind: seats.is_ready(some(seats, uses_gpus=kind)) for kind in (True, False)}

    assert ready == {True: not others_work, False: True}


def claim(*, uses_gpus: bool) -> Any:
    return SimpleNamespace(uses_gpus=uses_gpus, job_id=uuid.uuid4())
