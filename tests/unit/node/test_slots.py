"""Who gets a node's slots: decisions on plain values."""

from __future__ import annotations

from worker_node.slots import LINGER_S, Slots

BOUND_S = 30.0


def a_node(count: int, *sizes: int, **options: object) -> Slots:
    """Apps a, b, c ... of these sizes. ``options`` are those of each."""
    slots = Slots(count, BOUND_S)
    for number, size in enumerate(sizes):
        slots.add("abcdef"[number], size, **options)  # type: ignore[arg-type]
    return slots


def runs(slots: Slots, app: str, now: float, *, warm_at: float | None = None) -> None:
    """A job of the app is claimed and comes to its slots at once, to ranks a little later perhaps."""
    assert slots.take(app, now)
    slots.keep(app)
    for stopped in slots.steps(now).stop:
        slots.has_left(stopped, now)
    slots.steps(now)
    slots.is_warm(app, now if warm_at is None else warm_at)
    assert slots[app].held


def test_a_first_job_gets_free_slots_and_its_runner_keeps_them_when_it_is_done():
    slots = a_node(3, 2, 1)

    assert slots.take("a", 1)
    slots.keep("a")

    assert slots.steps(1).place == {"a": (0, 1)}
    slots.ends("a", 2)
    assert slots.steps(3).stop == ()
    runs(slots, "b", 4)
    assert slots["b"].held == {2}


def test_runners_that_are_to_be_there_start_with_the_node_as_far_as_there_are_slots():
    slots = a_node(3, 2, 2, 1, keeps=True)

    assert slots.steps(0).place == {"a": (0, 1), "c": (2,)}


def test_what_is_asked_for_and_not_there_changes_nothing():
    slots = a_node(1, 1, 1)
    runs(slots, "a", 0)
    slots.ends("a", 1)

    assert slots.take("b", 2)
    assert not slots.could_take("a", 2), "its slot is set aside for what b may find"
    slots.give_up("b")

    assert slots.steps(2).stop == ()
    assert slots.could_take("a", 2)


def test_an_idle_runner_leaves_for_another_apps_job_and_the_one_used_least_recently_goes_first():
    slots = a_node(2, 1, 1, 1)
    runs(slots, "a", 0)
    runs(slots, "b", 0)
    slots.ends("b", 1)
    slots.ends("a", 2)

    assert slots.take("c", 3)
    slots.keep("c")
    steps = slots.steps(3)

    assert (steps.stop, steps.place) == (("b",), {})
    assert slots.steps(3).stop == (), "it is told once"
    slots.has_left("b", 4)
    assert slots.steps(4).place == {"c": (1,)}


def test_slots_are_not_given_on_before_the_last_process_has_left_them():
    slots = a_node(2, 1, 1, 2)
    runs(slots, "a", 0)
    runs(slots, "b", 0)
    slots.ends("a", 1)
    slots.ends("b", 1)
    slots.take("c", 2)
    slots.keep("c")
    assert set(slots.steps(2).stop) == {"a", "b"}

    slots.has_left("a", 3)

    assert slots.steps(3).place == {}
    assert not slots.could_take("a", 3)
    slots.has_left("b", 4)
    assert slots.steps(4).place == {"c": (0, 1)}


def test_a_job_whose_slots_are_not_left_is_given_back_and_none_is_claimed_for_them_until_they_are():
    slots = a_node(1, 1, 1)
    runs(slots, "a", 0)
    slots.ends("a", 1)
    slots.take("b", 2)
    slots.keep("b")
    assert slots.steps(2).stop == ("a",)

    slots.is_stuck("a")

    assert slots.steps(3).give_back == ("b",)
    assert slots.steps(3).give_back == (), "told once"
    slots.ends("b", 3)
    slots.waits("b", 3)
    assert not slots.take("b", 4 + BOUND_S)
    assert slots.whose_turn(4 + BOUND_S) == []
    slots.has_left("a", 5 + BOUND_S)
    assert slots.whose_turn(5 + BOUND_S) == ["b"]


def test_a_job_whose_slots_are_not_left_has_others_where_some_are_to_be_had():
    slots = a_node(2, 1, 1, 1)
    runs(slots, "a", 0)
    runs(slots, "b", 0)
    slots.ends("a", 1)
    slots.take("c", 2)
    slots.keep("c")
    assert slots.steps(2).stop == ("a",)
    slots.ends("b", 3)

    slots.is_stuck("a")

    steps = slots.steps(4)
    assert (steps.give_back, steps.stop) == ((), ("b",))
    slots.has_left("b", 5)
    assert slots.steps(5).place == {"c": (1,)}


def test_a_claim_on_its_way_while_its_slots_become_stuck_is_given_back_when_it_brings_a_job():
    slots = a_node(1, 1, 1)
    runs(slots, "a", 0)
    slots.ends("a", 1)
    slots.take("b", 2)
    slots.is_stuck("a")
    assert slots.steps(2).give_back == ()

    slots.keep("b")

    assert slots.steps(3).give_back == ("b",)


def test_an_app_that_stuck_ranks_leave_too_few_slots_keeps_none_from_the_others():
    slots = a_node(2, 1, 2, 1)
    runs(slots, "a", 0)
    slots.waits("b", 0)
    slots.is_stuck("a")

    now = 2 * BOUND_S

    assert slots.could_take("c", now)
    slots.has_left("a", now)
    assert not slots.could_take("c", now)


def test_idle_ranks_end_after_keep_alive_and_not_before():
    slots = a_node(1, 1, keep_alive_s=60.0)
    runs(slots, "a", 0)
    slots.ends("a", 10)

    assert slots.steps(69).again_at == 70
    slots.take("a", 69)
    slots.give_up("a")  # a look that found nothing is no use

    assert slots.steps(70).stop == ("a",)


def test_ranks_that_served_for_longer_than_keep_alive_are_kept_that_long_when_no_next_job_is_found():
    slots = a_node(1, 1, keep_alive_s=5.0)
    runs(slots, "a", 0)

    assert slots.take("a", 60), "beside the upload of the files of the job that began at 0"
    slots.give_up("a")

    assert slots.steps(60).stop == ()
    slots.ends("a", 60)
    assert slots.steps(60 + LINGER_S).again_at == 65


def test_ranks_that_are_to_be_there_outlive_keep_alive_but_not_another_apps_job_and_come_back():
    slots = a_node(1, 1, 1, keeps=True, keep_alive_s=60.0)
    slots["b"].keeps = False
    assert slots.steps(0).place == {"a": (0,)}
    assert slots.steps(1000) == slots.steps(2000), "nothing to do, ever"

    runs(slots, "b", 2000)
    slots.ends("b", 2001)

    assert slots.steps(2061).stop == ("b",)
    slots.has_left("b", 2062)
    assert slots.steps(2062).place == {"a": (0,)}


def test_a_job_that_is_cancelled_before_its_slots_are_free_leaves_them_to_whoever_they_are_for():
    slots = a_node(1, 1, 1, keeps=True)
    slots["b"].keeps = False
    assert slots.steps(0).place == {"a": (0,)}
    assert slots.take("b", 10)
    slots.keep("b")
    assert slots.steps(10).stop == ("a",)

    slots.ends("b", 11)
    slots.has_left("a", 12)

    assert slots.steps(12).place == {"a": (0,)}
    assert (slots["b"].held, slots["b"].promised) == (set(), set())


def test_a_busy_runner_yields_between_two_jobs_once_another_has_waited_past_the_bound():
    slots = a_node(1, 1, 1)
    runs(slots, "a", 0)
    slots.waits("b", 100)

    assert slots.could_take("a", 100 + BOUND_S - 1)
    assert not slots.could_take("a", 100 + BOUND_S)
    assert slots.whose_turn(200) == [], "the job that runs is not disturbed"
    slots.ends("a", 200)
    assert slots.whose_turn(200) == ["b"]


def test_a_runner_that_has_just_come_keeps_its_slots_as_long_however_long_another_has_waited():
    slots = a_node(1, 1, 1)
    runs(slots, "a", 0)
    slots.waits("b", 0)
    slots.ends("a", 100)
    runs(slots, "b", 100, warm_at=200)

    slots.waits("a", -1000)  # its queue is deep and old

    assert slots.could_take("b", 200 + BOUND_S - 1), "what its ranks took to start is no part of its turn"
    assert not slots.could_take("b", 200 + BOUND_S)


def test_an_app_in_its_turn_keeps_its_slots_for_a_moment_after_each_job_and_no_longer():
    slots = a_node(1, 1, 1)
    runs(slots, "a", 0)
    slots.ends("a", 2)

    assert not slots.could_take("b", 2 + LINGER_S / 2)
    assert slots.could_take("a", 2 + LINGER_S / 2)
    assert slots.steps(2).again_at == 2 + LINGER_S, "when others are to be asked"
    assert slots.could_take("b", 2 + LINGER_S)
    runs(slots, "a", BOUND_S - 1)
    slots.ends("a", BOUND_S)
    assert slots.could_take("b", BOUND_S), "its turn is over"


def test_two_callers_that_wait_for_each_answer_do_not_have_ranks_started_for_every_job():
    """One for each app: the next job comes a moment after the last. A job takes 1 s, ranks 20 s to start."""
    slots, start_s, long_s = a_node(1, 1, 1), 20.0, 3600.0
    wanted_at, served, starts, now = {"a": 0.0, "b": 0.0}, {"a": 0, "b": 0}, 0, 0.0
    while now < long_s:
        waiting = [app for app, at in wanted_at.items() if at <= now]
        for app in waiting:
            if not slots.could_take(app, now):
                slots.waits(app, wanted_at[app])
        app = next((app for app in [*slots.whose_turn(now), *waiting] if slots.take(app, now)), None)
        if app is None:
            now += 0.05
            continue
        slots.keep(app)
        for stopped in slots.steps(now).stop:
            slots.has_left(stopped, now)
        if app in slots.steps(now).place or not slots[app].is_warm:
            now, starts = now + start_s, starts + 1
            slots.is_warm(app, now)
        now += 1.0
        slots.ends(app, now)
        served[app], wanted_at[app] = served[app] + 1, now + 0.05

    assert starts <= long_s / (BOUND_S + start_s) + 1
    assert min(served.values()) > long_s / 5, "and each has its share"


def test_who_was_served_of_late_comes_after_who_was_not_however_old_its_jobs_are():
    slots = a_node(1, 1, 1, 1)
    runs(slots, "a", 0)
    slots.waits("b", 0)
    slots.waits("c", 10)
    slots.ends("a", 50)
    runs(slots, "b", 50)
    slots.waits("a", -1000)

    slots.ends("b", 60)

    assert slots.whose_turn(60 + LINGER_S) == ["c"]


def test_small_apps_do_not_keep_a_large_one_out_that_waits_past_the_bound():
    slots = a_node(2, 1, 1, 2)
    runs(slots, "a", 0)
    runs(slots, "b", 0)
    slots.waits("c", 0)
    now = 2 * BOUND_S

    slots.ends("a", now)

    assert not slots.could_take("a", now), "what it left is spoken for"
    slots.ends("b", now)
    assert slots.whose_turn(now) == ["c"]
