"""Random sequences of calls, leavings, cancels and failures: each caller sees what the model says and nothing else."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.distributed.callers import MAX_WAITING, Caller, Way, World, replaced, seen_by_rank
from tests.distributed.script_model import Outcome, Step, may_be_seen
from worker_node.distributed import RunnerState

LISTENING = [way for way in Way if way is not Way.INVOKE]
CANCELLED, LEFT = Outcome("cancelled"), Outcome("left")


def ranks_of(world_size: int) -> st.SearchStrategy[tuple[int, ...]]:
    """One rank, or all."""
    return st.sampled_from([*((rank,) for rank in range(world_size)), tuple(range(world_size))])


def scripts(world_size: int, last: list[str]) -> st.SearchStrategy[list[Step]]:
    """Some steps that every rank survives, then perhaps one that it does not."""
    every = tuple(range(world_size))
    harmless = st.one_of(
        st.builds(Step, st.sampled_from(["output", "error", "progress"]), ranks_of(world_size), st.integers(1, 30)),
        st.builds(Step, st.just("output"), st.just(every), st.sampled_from([20, 300])),
        st.builds(Step, st.just("reduce"), st.just(every), st.integers(1, 3)),
    )

    def ended(operation: str) -> st.SearchStrategy[Step]:
        on_all = operation in ("return_lock", "hold", "be_deaf")
        return st.builds(Step, st.just(operation), st.just(every) if on_all else ranks_of(world_size))

    ends = st.sampled_from(last).flatmap(ended).map(lambda step: [step])
    after = st.sampled_from([[], [Step("reduce", every)], [Step("reduce_unwaited", every)]])
    return st.builds(
        lambda body, end, after: [*body, *end, *after], st.lists(harmless, max_size=4), st.just([]) | ends, after
    )


class Calls(RuleBasedStateMachine):
    """Callers in a queue before one runner. The first may block; all before it have been answered and checked."""

    world: World
    # Whether ranks may be lost, which costs seconds each time.
    costly = False

    def __init__(self) -> None:
        super().__init__()
        self.queue: list[Caller] = []
        self.world.run(self.world.becomes(RunnerState.WARM))
        self.pids = self.world.pids()
        self.restarts = self.world.runner.status().restarts
        self.lost = False

    # What callers do.

    @rule(data=st.data(), count=st.integers(1, 3))
    def submit(self, data: st.DataObject, count: int) -> None:
        """Several call at once."""
        callers = [data.draw(self.some_caller()) for _ in range(count)]
        waiting = len(self.queue) - 1
        refused = []
        for caller in callers:
            waiting += 1
            if waiting > MAX_WAITING:
                caller.expected = replaced(caller.expected, Outcome("TooManyWaiting"))
                caller.leave_after = None
                refused.append(caller)
            else:
                self.queue.append(caller)
        self.world.run(self.begin(callers))
        for caller in refused:
            self.world.run(self.ends(caller))
        self.settle()

    @rule(way=st.sampled_from(Way))
    def submit_what_cannot_travel(self, way: Way) -> None:
        caller = self.caller([], way)
        caller.payload["lock"] = threading.Lock()
        caller.expected = replaced(caller.expected, Outcome("SerializationFailed"))
        self.aside(caller)

    @precondition(lambda self: self.queue)
    @rule(way=st.sampled_from(Way), limit=st.sampled_from([0.0, 0.02]))
    def wait_impatiently(self, way: Way, limit: float) -> None:
        """A turn that does not come in time; where too many wait it is refused before."""
        caller = self.caller([], way)
        full = len(self.queue) > MAX_WAITING
        caller.expected = replaced(caller.expected, Outcome("TooManyWaiting" if full else "CallTimeout"))
        self.aside(caller, timeout=limit)

    @precondition(lambda self: not self.queue)
    @rule(data=st.data(), way=st.sampled_from(Way), steps_of_loop=st.integers(0, 12))
    def submit_and_think_better_of_it(self, data: st.DataObject, way: Way, steps_of_loop: int) -> None:
        """A caller that is cancelled at any moment: before its turn, in mid call, or after all."""
        every = tuple(range(self.world.world_size))
        steps = [Step("output", every, data.draw(st.integers(1, 50))), Step("reduce", every)]
        caller = self.caller(steps, way)

        async def change_mind() -> None:
            await self.begin([caller])
            for _ in range(steps_of_loop):
                await asyncio.sleep(0)
            caller.task.cancel()
            await asyncio.wait({caller.task})

        self.world.run(change_mind())
        if caller.outcome != Outcome("result", 0):
            # One that is cancelled before its first step has no chance to say so.
            caller.outcome = caller.outcome or CANCELLED
            caller.expected = replaced(caller.expected, CANCELLED)
        self.check(caller)
        self.settle()

    @precondition(lambda self: not self.queue)
    @rule(data=st.data(), way=st.sampled_from(Way), silent=st.booleans())
    def take_too_long(self, data: st.DataObject, way: Way, silent: bool) -> None:
        steps = data.draw(scripts(self.world.world_size, ["hold"]))
        caller = self.caller([*steps, Step("hold", tuple(range(self.world.world_size)))], way)
        caller.expected = replaced(caller.expected, Outcome("CallTimeout"))
        name = "streaming_timeout" if silent and way in (Way.STREAM, Way.TEXT) else "timeout"
        self.aside(caller, **{name: 0.05})
        self.settle()

    # What happens to callers.

    @precondition(lambda self: self.queue)
    @rule()
    def cancel(self) -> None:
        head = self.queue[0]
        head.expected = replaced(head.expected, Outcome("CallCancelled"))
        self.world.run(self.world.runner.cancel())
        if len(self.queue) == 1:
            state = self.world.runner.status().state
            assert state is (RunnerState.REBUILDING if head.expected.restarts else RunnerState.WARM)
        self.settle(interrupted=True)

    @precondition(lambda self: self.queue)
    @rule(which=st.integers(0, MAX_WAITING))
    def cancel_a_caller(self, which: int) -> None:
        """The caller's own task is cancelled, running or waiting."""
        index = which % len(self.queue)
        caller = self.queue[index]
        caller.expected = replaced(caller.expected, CANCELLED)
        caller.task.cancel()
        if index == 0:
            self.settle(interrupted=True)
        else:
            self.world.run(self.ends(caller))
            self.queue.remove(caller)

    @precondition(lambda self: self.costly and self.queue)
    @rule(rank=st.integers(0, 1))
    def kill_a_rank_that_works(self, rank: int) -> None:
        head, rank = self.queue[0], rank % self.world.world_size
        head.expected = replaced(head.expected, Outcome("RankDied", rank, -signal.SIGKILL))
        self.world.signal(rank, signal.SIGKILL)
        self.settle(interrupted=True, lost=True)

    @precondition(lambda self: self.costly and not self.queue)
    @rule(rank=st.integers(0, 1), waits=st.booleans())
    def kill_a_rank_that_waits(self, rank: int, waits: bool) -> None:
        """A call that comes in the same moment may be told of the death, or be served by the next ranks."""
        rank %= self.world.world_size
        self.world.signal(rank, signal.SIGKILL)
        if waits:
            self.world.run(self.world.becomes(RunnerState.REBUILDING))
        caller = self.caller([Step("reduce", tuple(range(self.world.world_size)))], Way.INVOKE)
        self.world.run(self.begin([caller]))
        self.world.run(asyncio.wait({caller.task}))
        died = Outcome("RankDied", rank, -signal.SIGKILL)
        if caller.outcome == died and not waits:
            caller.expected = replaced(caller.expected, died)
        self.check(caller)
        self.lost, self.restarts = True, self.restarts + 1
        self.settle()

    @precondition(lambda self: self.costly and not self.queue)
    @rule(rank=st.integers(0, 1), way=st.sampled_from(Way), collective=st.sampled_from(["reduce", "reduce_unwaited"]))
    def fail_before_a_collective(self, rank: int, way: Way, collective: str) -> None:
        """The collective stays half done, whether or not its other rank waits in it."""
        every = tuple(range(self.world.world_size))
        caller = self.caller([Step("fail", (rank % self.world.world_size,)), Step(collective, every)], way)
        self.queue.append(caller)
        self.world.run(self.begin([caller]))
        self.settle()

    # What must be seen.

    def settle(self, *, interrupted: bool = False, lost: bool = False) -> None:
        """Check callers in their order, until one blocks or none is left; then the ranks, which must be at rest."""
        while self.queue:
            head = self.queue[0]
            if head.expected.blocks and not head.leaves and not interrupted:
                self.world.run(head.announced())
                assert head.outcome is None, head.error or head.outcome
                assert self.world.runner.status().waiting == len(self.queue) - 1
                return
            self.world.run(self.ends(head))
            self.queue.remove(head)
            if head.expected.restarts or (interrupted and lost):
                self.lost, self.restarts = True, self.restarts + 1
            interrupted = False
        self.world.run(self.world.becomes(RunnerState.WARM))
        status, pids = self.world.runner.status(), self.world.pids()
        assert (status.waiting, status.restarts) == (0, self.restarts)
        assert {rank.state for rank in status.ranks} == {"idle"}
        assert not set(pids) & set(self.pids) if self.lost else pids == self.pids
        self.pids, self.lost = pids, False

    def teardown(self) -> None:
        """Leave warm ranks to the next sequence, after a failed one too."""
        tasks = [caller.task for caller in self.queue]
        for task in tasks:
            task.cancel()
        if tasks:
            self.world.run(asyncio.wait(tasks))
        self.world.run(self.world.becomes(RunnerState.WARM, RunnerState.BROKEN))
        if self.world.runner.status().state is RunnerState.BROKEN:
            self.world.start()

    # Smaller pieces.

    def some_caller(self) -> st.SearchStrategy[Caller]:
        last = ["hold", "hold", "fail", "output_lock", "return_lock"]
        if self.costly:
            last = ["hold", "be_deaf", "fail", "exit", "kill"]
        made = st.tuples(scripts(self.world.world_size, last), st.sampled_from(Way), st.none() | st.integers(1, 40))
        return made.map(lambda drawn: self.caller(*drawn)).filter(self.is_welcome)

    def is_welcome(self, caller: Caller) -> bool:
        operations = {operation for operation, _, _ in caller.payload["steps"]}
        if caller.leaves and "progress" in operations:
            return False  # how many come is not known
        if caller.expected.blocks and caller.way is Way.INVOKE:
            return False  # its blocking would go unheard
        if caller.leaves and operations & {"exit", "kill", "be_deaf"}:
            return False  # leaving races with the death
        return self.costly or not caller.expected.restarts

    def caller(self, steps: list[Step], way: Way, leave_after: int | None = None) -> Caller:
        caller = Caller(next(self.world.nonces), steps, way, self.world.world_size, leave_after)
        if caller.leaves:
            caller.expected = replaced(caller.expected, LEFT)
        return caller

    async def begin(self, callers: list[Caller], **limits: float) -> None:
        for caller in callers:
            caller.task = asyncio.ensure_future(caller.run(self.world.runner, **limits))
        await asyncio.sleep(0)

    async def ends(self, caller: Caller) -> None:
        await asyncio.wait({caller.task})
        self.check(caller)

    def aside(self, caller: Caller, **limits: float) -> None:
        """Run a caller that disturbs no other to its end."""
        self.world.run(self.begin([caller], **limits))
        self.world.run(self.ends(caller))

    def check(self, caller: Caller) -> None:
        expected = caller.expected
        assert caller.outcome in expected.outcomes, caller.error or caller.outcome
        assert caller.heard_why
        for rank in range(self.world.world_size):
            seen, complete = seen_by_rank(caller, rank), rank in expected.complete
            assert may_be_seen(seen, expected.events[rank], complete=complete)
        if caller.outcome == LEFT:
            assert len(caller.seen) == caller.leave_after
        if caller.outcome == Outcome("result", 0):
            streaming = caller.way is not Way.INVOKE
            assert caller.result == {
                "nonce": caller.nonce,
                "rank": 0,
                "streaming": streaming,
                "sums": expected.sums,
            }


@pytest.fixture(scope="module", params=[1, 2], ids=["one-rank", "two-ranks"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Ranks that all sequences of a world size share."""
    made = World(request.param, tmp_path_factory.mktemp("world"))
    yield made
    made.close()


def run_sequences(world: World, *, costly: bool, sequences: int, steps: int) -> None:
    """Run the same sequences each time, so that what fails once fails again."""
    machine = type("CallsOfThisWorld", (Calls,), {"world": world, "costly": costly})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=sequences,
            stateful_step_count=steps,
            derandomize=True,
            phases=[Phase.generate],  # sequences are short, and making one shorter would cost minutes
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_callers_of_ranks_that_stay_warm_see_what_the_model_says(world: World):
    run_sequences(world, costly=False, sequences=40, steps=10)


def test_callers_of_ranks_that_die_see_what_the_model_says(world: World):
    run_sequences(world, costly=True, sequences=4, steps=7)


def test_who_waits_while_setup_fails_again_is_told_so_and_a_start_mends_it(world: World):
    machine = type("CallsOfThisWorld", (Calls,), {"world": world, "costly": True})()
    every = tuple(range(world.world_size))
    machine.queue = [
        machine.caller([Step("hold", every)], Way.LISTEN),
        machine.caller([], Way.STREAM),
        machine.caller([], Way.INVOKE),
    ]
    head, *waiting = machine.queue
    world.run(machine.begin(machine.queue))
    world.run(head.announced())

    world.broken.touch()
    world.signal(0, signal.SIGKILL)

    head.expected = replaced(head.expected, Outcome("RankDied", 0, -signal.SIGKILL))
    for caller in waiting:
        caller.expected = replaced(caller.expected, Outcome("PoolBroken"))
    for caller in machine.queue:
        world.run(machine.ends(caller))
    assert world.runner.status().state is RunnerState.BROKEN
    world.broken.unlink()
    world.start()
    again = Calls.caller(machine, [Step("reduce", every)], Way.INVOKE)
    machine.aside(again)
