"""When crashes are taken for the app's or the machine's own trouble, and for how long."""

from __future__ import annotations

from uuid import uuid4

from worker_node.quarantine import FIRST_S, LONGEST_S, WINDOW_S, Quarantine


def fresh(apps: int = 1) -> tuple[Quarantine, list[float]]:
    begun: list[float] = []
    return Quarantine(apps, on_begin=begun.append), begun


def crash(quarantine: Quarantine, *times: float, app: str = "a") -> None:
    for at in times:
        quarantine.crashed(app, uuid4(), at)


def test_crashes_of_three_jobs_in_a_row_are_too_many_and_it_is_tried_again_by_itself():
    quarantine, begun = fresh()

    crash(quarantine, 0, 1)
    assert quarantine.left_s(1) is None
    crash(quarantine, 2)

    assert begun == [FIRST_S]
    assert quarantine.left_s(2) == FIRST_S
    assert quarantine.left_s(2 + FIRST_S) is None
    assert quarantine.is_on_trial


def test_one_job_that_crashes_again_and_again_is_its_own_trouble():
    quarantine, begun = fresh()
    job_id = uuid4()

    for at in range(10):
        quarantine.crashed("a", job_id, at)

    assert begun == []


def test_crashes_long_ago_and_those_that_others_made_up_for_do_not_count():
    quarantine, begun = fresh()

    crash(quarantine, 0, 1)
    crash(quarantine, WINDOW_S + 2)
    quarantine.served()
    crash(quarantine, WINDOW_S + 3, WINDOW_S + 4)

    assert begun == []


def test_a_trial_that_fails_doubles_the_rest_up_to_a_bound_and_one_that_succeeds_ends_it():
    quarantine, begun = fresh()
    crash(quarantine, 0, 0, 0)
    now = 0.0

    for _ in range(8):
        now += begun[-1]
        crash(quarantine, now)

    assert begun[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert begun[-1] == LONGEST_S
    quarantine.served()
    assert not quarantine.is_on_trial
    crash(quarantine, now + LONGEST_S, now + LONGEST_S)
    assert quarantine.left_s(now + LONGEST_S) is None


def test_the_gpus_are_not_to_blame_for_one_app_alone():
    quarantine, begun = fresh(apps=2)

    crash(quarantine, 0, 1, 2, 3)
    assert begun == []
    crash(quarantine, 4, app="b")

    assert begun == [FIRST_S]
