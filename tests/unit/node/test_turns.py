"""A simulated node of any apps: no slot is held twice, and none is starved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from worker_node.slots import Slots

BOUND_S = 30.0
TICK_S = 5.0


@dataclass
class Load:
    """One app's queue in a simulated node: it always has a next job. ``done`` are the times of its jobs' ends.

    From ``breaks_at`` on no job of it can be claimed: its process is down, say.
    """

    app: str
    run_s: float
    breaks_at: float | None
    ends_at: float | None = None
    done: list[float] = field(default_factory=list)

    def is_well(self, now: float) -> bool:
        return self.breaks_at is None or now < self.breaks_at


@settings(deadline=None, max_examples=30)
@example(count=2, apps=[(1, 1.0, True, None), (1, 21.0, True, None), (2, 1.0, False, None)], stop_s=0.0, sticky=False)
@given(
    count=st.integers(1, 4),
    apps=st.lists(
        st.tuples(st.integers(1, 4), st.floats(1, 40), st.booleans(), st.none() | st.floats(0, 300)),
        min_size=1,
        max_size=5,
    ),
    stop_s=st.floats(0, 10),
    sticky=st.booleans(),
)
def test_no_slot_is_held_twice_and_every_app_that_can_gets_its_turn(
    count: int, apps: Sequence[tuple[int, float, bool, float | None]], stop_s: float, sticky: bool
) -> None:
    slots = Slots(count, BOUND_S)
    loads = [Load("abcde"[number], run_s, breaks_at) for number, (_, run_s, _, breaks_at) in enumerate(apps)]
    for load, (size, _, keeps, _) in zip(loads, apps, strict=True):
        slots.add(load.app, min(size, count), keeps=keeps, keep_alive_s=5.0)
    leaving: dict[str, float] = {}
    # A turn is the bound at most, the job in work at its end, and the end of the ranks; the others' come before.
    patience_s = 2 * len(apps) * (BOUND_S + 40 + 10 + 2 * TICK_S)

    now = 0.0
    while now < 2 * patience_s:
        for app in [app for app, at in leaving.items() if at <= now]:
            del leaving[app]
            slots.has_left(app, now)
        _carry_out(slots, leaving, now, stop_s)
        _stick(slots, leaving if sticky else {}, loads, now)
        for load in loads:
            if load.ends_at is not None and slots[load.app].held and load.ends_at <= now:
                load.done.append(now)
                load.ends_at = now + load.run_s if load.is_well(now) and slots.could_take(load.app, now) else None
                if load.ends_at is None:
                    slots.ends(load.app, now)
        for app in [*slots.whose_turn(now), *(load.app for load in loads)]:
            load = next(load for load in loads if load.app == app)
            if load.ends_at is None and not load.is_well(now):
                slots.waits_no_more(app)
            elif load.ends_at is None and slots.take(app, now):
                slots.keep(app)
                load.ends_at = now + stop_s + load.run_s
                _carry_out(slots, leaving, now, stop_s)
            elif load.ends_at is None:
                slots.waits(app, 0.0)
        _check(slots, count)
        now += TICK_S

    for load in [load for load in loads if load.breaks_at is None]:
        pauses = [later - sooner for sooner, later in zip([0.0, *load.done], [*load.done, now], strict=True)]
        assert max(pauses) <= patience_s, f"{load.app} waited {max(pauses)} s"


def _carry_out(slots: Slots, leaving: dict[str, float], now: float, stop_s: float) -> None:
    steps = slots.steps(now)
    for app in steps.stop:
        assert not slots[app].is_busy, "a job lost its ranks"
        leaving[app] = now + stop_s
    for app in steps.place:
        slots.is_warm(app, now)


def _stick(slots: Slots, leaving: dict[str, float], loads: Sequence[Load], now: float) -> None:
    """What leaves is seen not to: jobs that were to come after it are given back."""
    for app in leaving:
        slots.is_stuck(app)
    for app in slots.steps(now).give_back:
        slots.ends(app, now)
        next(load for load in loads if load.app == app).ends_at = None


def _check(slots: Slots, count: int) -> None:
    held = [slot for one in slots for slot in one.held]
    promised = [slot for one in slots for slot in one.promised]
    assert len(held) == len(set(held)), "a slot is held twice"
    assert len(promised) == len(set(promised)), "a slot is promised twice"
    assert {*held, *promised} <= set(range(count))
    assert all(len(one.held) in (0, one.size) and len(one.promised) in (0, one.size) for one in slots)
    assert not any(one.held and one.promised for one in slots)
