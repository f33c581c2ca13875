"""What we lean on inside Celery and kombu, on a real Valkey: the pool, the gate and the wake-up."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import kombu
import pytest
import redis
from celery.worker import WorkController, state
from kombu.asynchronous import Hub, set_event_loop

from stoker.queue import Doorbell, app_queue, make_celery, queue_name
from worker_node.consumer import make_consumer
from worker_node.gate import Gate
from worker_node.pool import RunnerPool
from worker_node.side_loop import SideLoop

OPEN, CLOSED = "tests/open", "tests/closed"
PATIENCE_S = 30


class Desk:
    """Stands for the node: answers bells, and says which apps could start."""

    def __init__(self) -> None:
        self.can_start = {OPEN: True, CLOSED: False}
        self.breaks, self.asked = False, threading.Event()
        self.answers: queue.Queue[str] = queue.Queue()
        self.work: Future[None] | None = None

    def says(self, app: str) -> bool:
        if self.breaks and app == CLOSED:
            self.asked.set()
            raise KeyError(app)
        return self.can_start[app]

    def answer(self, app: str) -> Future[Future[None] | None]:
        self.answers.put(app)
        claimed: Future[Future[None] | None] = Future()
        claimed.set_result(self.work)
        return claimed

    def next_answer(self) -> str:
        return self.answers.get(timeout=PATIENCE_S)


class Listening:
    """A consumer that runs in a thread."""

    def __init__(self, redis_url: str) -> None:
        self.desk = Desk()
        self.gate = Gate([OPEN, CLOSED], self.desk.says)
        celery = make_celery(redis_url)
        self.worker: WorkController = make_consumer(celery, node_id="contract", gate=self.gate, answerer=self.desk)
        self.redis = redis.Redis.from_url(redis_url)
        self.redis.delete(queue_name(OPEN), queue_name(CLOSED))
        self._ringing = SideLoop()
        self._bell = Doorbell(redis_url)
        self._thread = threading.Thread(target=self.worker.start, daemon=True)
        self._thread.start()

    def ring(self, app: str) -> None:
        self._ringing.loop.call_soon_threadsafe(self._bell.ring, app)

    def waiting(self, app: str) -> int:
        return int(self.redis.llen(queue_name(app)))

    def stop(self) -> None:
        state.should_stop = 0
        self._thread.join(PATIENCE_S)
        alive = self._thread.is_alive()
        state.should_stop = None
        state.reset_state()
        set_event_loop(None)
        self._ringing.run(self._bell.close())
        self._ringing.close()
        self.redis.close()
        assert not alive


@pytest.fixture
def listening(redis_url: str) -> Iterator[Listening]:
    consumer = Listening(redis_url)
    yield consumer
    consumer.stop()


def test_a_doorbell_of_an_app_that_could_start_is_answered_once(listening: Listening) -> None:
    listening.ring(OPEN)

    assert listening.desk.next_answer() == OPEN
    listening.ring(OPEN)
    assert listening.desk.next_answer() == OPEN
    assert listening.desk.answers.empty()
    assert listening.waiting(OPEN) == 0


def test_a_node_that_could_not_start_an_app_leaves_its_doorbells_to_others(listening: Listening) -> None:
    listening.ring(CLOSED)
    listening.ring(OPEN)

    assert listening.desk.next_answer() == OPEN
    assert listening.waiting(CLOSED) == 1

    listening.desk.can_start[CLOSED] = True
    listening.gate.changed(CLOSED)
    assert listening.desk.next_answer() == CLOSED


def test_an_app_that_cannot_be_asked_leaves_the_others_their_doorbells(
    listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    listening.ring(OPEN)
    listening.desk.next_answer()

    listening.desk.breaks = True
    listening.gate.changed(CLOSED)
    assert listening.desk.asked.wait(PATIENCE_S)
    listening.ring(OPEN)

    assert listening.desk.next_answer() == OPEN
    assert "Connection to broker lost" not in caplog.text


def test_one_doorbell_is_one_claim_also_when_several_wait(listening: Listening) -> None:
    listening.ring(OPEN)
    assert listening.desk.next_answer() == OPEN
    work: Future[None] = Future()
    listening.desk.work = work

    def claim_and_be_busy(app: str) -> Future[Future[None] | None]:
        listening.desk.can_start[app] = False
        return Desk.answer(listening.desk, app)

    listening.desk.answer = claim_and_be_busy  # type: ignore[method-assign]  # the desk of this one test
    for _ in range(3):
        listening.ring(OPEN)
    assert listening.desk.next_answer() == OPEN
    listening.desk.can_start[CLOSED] = True
    listening.gate.changed(CLOSED)
    listening.ring(CLOSED)
    assert listening.desk.next_answer() == CLOSED
    assert listening.waiting(OPEN) == 2

    work.set_result(None)


def test_a_lost_connection_is_made_again_with_the_gates_as_they_were(listening: Listening) -> None:
    listening.ring(CLOSED)
    listening.ring(OPEN)
    assert listening.desk.next_answer() == OPEN

    listening.redis.client_kill_filter(_type="normal", skipme=True)
    _ring_until(listening, OPEN)

    assert listening.waiting(CLOSED) == 1


def test_a_message_that_is_not_a_doorbell_leaves_the_gate_open(listening: Listening, redis_url: str) -> None:
    with kombu.Connection(redis_url) as connection:
        kombu.Producer(connection).publish({"not": "a task"}, routing_key=queue_name(OPEN), declare=[app_queue(OPEN)])

    listening.ring(OPEN)

    assert listening.desk.next_answer() == OPEN


def test_the_node_still_answers_remote_control_while_a_job_runs(listening: Listening) -> None:
    listening.desk.work = work = Future()
    listening.ring(OPEN)
    assert listening.desk.next_answer() == OPEN

    inspect = listening.worker.app.control.inspect(timeout=PATIENCE_S, limit=1)
    while not (active := inspect.active()["stoker@contract"]):
        assert not work.done()

    assert [task["name"] for task in active] == ["stoker.wake"]
    listening.desk.work = None
    _ring_until(listening, OPEN)
    work.set_result(None)
    while inspect.active()["stoker@contract"]:
        pass


def test_remote_control_shows_work_whose_claim_took_long(listening: Listening) -> None:
    claimed: Future[Future[None] | None] = Future()
    work: Future[None] = Future()

    def claim_slowly(app: str) -> Future[Future[None] | None]:
        listening.desk.answers.put(app)
        return claimed

    listening.desk.answer = claim_slowly  # type: ignore[method-assign]  # the desk of this one test
    listening.ring(OPEN)
    assert listening.desk.next_answer() == OPEN
    inspect = listening.worker.app.control.inspect(timeout=PATIENCE_S, limit=1)
    while not inspect.active()["stoker@contract"]:
        assert not claimed.done()

    claimed.set_result(work)

    assert [task["name"] for task in inspect.active()["stoker@contract"]] == ["stoker.wake"]
    work.set_result(None)


def test_a_doorbell_that_was_taken_leaves_nothing_in_redis_that_could_come_back(listening: Listening) -> None:
    listening.desk.work = work = Future()
    listening.ring(OPEN)
    assert listening.desk.next_answer() == OPEN

    assert [key for key in listening.redis.scan_iter() if b"unacked" in key] == []
    work.set_result(None)


def test_a_doorbell_whose_claim_failed_is_not_the_last_that_is_answered(
    listening: Listening, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(app: str) -> Future[Future[None] | None]:
        listening.desk.answers.put(app)
        listening.desk.answer = Desk.answer.__get__(listening.desk)  # type: ignore[method-assign]
        failed: Future[Future[None] | None] = Future()
        failed.set_exception(RuntimeError("no claim"))
        return failed

    listening.desk.answer = fail  # type: ignore[method-assign]  # the desk of this one test
    listening.ring(OPEN)
    assert listening.desk.next_answer() == OPEN
    listening.ring(OPEN)

    assert listening.desk.next_answer() == OPEN
    assert "doorbell_not_answered" in capsys.readouterr().out


def test_call_soon_of_another_thread_interrupts_the_hubs_poll() -> None:
    hub = _hub_that_polls_for_ever()
    called = threading.Event()
    loop = threading.Thread(target=_turn, args=(hub, called.is_set), daemon=True)
    loop.start()
    assert hub.polls.wait(PATIENCE_S)

    hub.call_soon(called.set)

    assert called.wait(PATIENCE_S)
    hub.call_soon(lambda: None)  # it went back to its poll
    loop.join(PATIENCE_S)
    assert not loop.is_alive()


def test_the_pool_wakes_the_hub_when_a_doorbell_was_answered() -> None:
    hub = _hub_that_polls_for_ever()
    pool, accepted, returned = RunnerPool(limit=1), threading.Event(), threading.Event()
    pool.register_with_event_loop(hub)
    loop = threading.Thread(target=_turn, args=(hub, returned.is_set), daemon=True)
    loop.start()
    assert hub.polls.wait(PATIENCE_S)

    pool.on_apply(
        lambda value: value * 2,
        (21,),
        callback=lambda result: returned.set() if result == 42 else None,
        accept_callback=lambda pid, at: accepted.set(),
    )

    assert returned.wait(PATIENCE_S)
    assert accepted.is_set()
    loop.join(PATIENCE_S)
    assert not loop.is_alive()


def _ring_until(listening: Listening, app: str) -> None:
    """A bell that is rung while the connection is down may be lost: ring again until one arrives."""
    while True:
        listening.ring(app)
        try:
            assert listening.desk.answers.get(timeout=0.5) == app
        except queue.Empty:
            continue
        return


def _hub_that_polls_for_ever() -> Hub:
    """A hub with a quiet socket, as with Redis, and without the 1 s tick that would hide a missing wake-up."""
    hub = Hub()
    quiet, hub.other_end = socket.socketpair()
    hub.add_reader(quiet, lambda: None)
    poll, hub.polls = hub.poller.poll, threading.Event()

    def poll_for_ever(timeout: float) -> object:
        hub.polls.set()
        return poll(None)

    hub.poller.poll = poll_for_ever
    return hub


def _turn(hub: Hub, is_done: Callable[[], bool]) -> None:
    loop = hub.create_loop()
    while not is_done():
        next(loop)
    hub.close()
