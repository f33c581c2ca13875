"""The clients of a run: they post, cancel and follow jobs, whatever answers, and keep what they were told."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import psycopg

from stoker import keys
from stoker.database import make_engine
from tests.chaos.history import FINAL, Answer, Delivery, Stream
from tests.chaos.wishes import Wish
from tests.chaos.world import World
from tests.support.receiver import Receiver, running_receiver
from tests.support.sse import frames

TENANTS = 3
PAUSE_S = 0.2
GONE = (httpx2.HTTPError, OSError)


@dataclass
class Clients:
    """``answers`` and ``streams`` are what came of it so far."""

    world: World
    callers: list[httpx2.AsyncClient]
    receiver: Receiver
    answers: list[Answer] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    number: int = 0
    """Of what was wanted by hand."""
    complaints: list[str] = field(default_factory=list)
    """What no client may meet: an answer that is neither yes nor "not now", a wait without an end."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @classmethod
    @asynccontextmanager
    async def open(cls, world: World) -> AsyncIterator[Clients]:
        db = make_engine(world.database_url, application_name="chaos", pool_size=1)
        made = [await keys.create(db, tenant=f"tenant-{n}", scopes=frozenset({"run"})) for n in range(TENANTS)]
        await db.dispose()
        callers = [
            httpx2.AsyncClient(base_url=world.api_url, headers={"authorization": f"Key {each.key}"}, timeout=20)
            for each in made
        ]
        async with running_receiver(500, 200, 503) as receiver:
            clients = cls(world, callers, receiver)
            try:
                yield clients
            finally:
                for task in clients._tasks:
                    task.cancel()
                await asyncio.gather(*clients._tasks, return_exceptions=True)
                for caller in callers:
                    await caller.aclose()

    @property
    def waiting(self) -> int:
        """How many wait for something."""
        return len(self._tasks)

    @property
    def deliveries(self) -> list[Delivery]:
        bodies = [(each.headers["webhook-id"], json.loads(each.body)["data"]) for each in self.receiver.received]
        return [Delivery(webhook_id, body["job_id"], body["state"]) for webhook_id, body in bodies]

    async def want(self, wishes: Iterator[Wish], *, rate: float, seed: int, until: asyncio.Event) -> None:
        """Have wishes come at ``rate`` a second, at random moments, until ``until``."""
        chance = random.Random(f"{seed} arrivals")
        while not until.is_set():
            wish = next(wishes)
            self.begin(self.fulfil(wish), wish.op)
            try:
                async with asyncio.timeout(chance.expovariate(rate)):
                    await until.wait()
            except TimeoutError:
                continue

    def begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.complaints.append(f"{type(error).__name__}: {error}"[:1000])

    async def settle(self, within_s: float) -> None:
        """Wait until every client has what it waited for."""
        if self._tasks:
            _, waiting = await asyncio.wait(self._tasks, timeout=within_s)
            self.complaints += [f"still waits after {within_s:g} s: {each.get_name()}" for each in waiting]

    async def fulfil(self, wish: Wish) -> None:
        """One job, from its POST to its end as far as its client cares."""
        body = body_of(wish, self.receiver.address, datetime.now(UTC))
        job_id, *_ = await asyncio.gather(*(self._post(wish, body) for _ in range(1 + wish.is_posted_twice)))
        if job_id is None:
            return
        if wish.cancel_after_s is not None:
            self.begin(self._cancel(wish, job_id), f"cancel of {job_id}")
        if wish.is_followed:
            await self._follow(wish, job_id)

    async def _post(self, wish: Wish, body: dict[str, Any]) -> str | None:
        """The job that it was acknowledged as. Without a key nobody may try twice."""
        headers = {} if wish.key is None else {"idempotency-key": wish.key}
        while True:
            job_id = None
            try:
                answer = await self.callers[wish.tenant].post("/v1/jobs", json=body, headers=headers)
                self.counts[f"POST {answer.status_code}"] += 1
                job_id = answer.json()["id"] if answer.status_code == 202 else None
                assert answer.status_code in (202, 503), answer.text
            except GONE:
                self.counts["POST without an answer"] += 1
            self.answers.append(Answer(wish.op, wish.key, job_id, wish.has_webhook))
            if job_id is not None or wish.key is None:
                return job_id
            await asyncio.sleep(PAUSE_S)

    async def _cancel(self, wish: Wish, job_id: str) -> None:
        await asyncio.sleep(wish.cancel_after_s or 0)
        while True:
            try:
                if wish.is_cancelled_in_sql:
                    await asyncio.to_thread(self._cancel_in_sql, job_id)
                    self.counts["cancelled in SQL"] += 1
                    return
                answer = await self.callers[wish.tenant].post(f"/v1/jobs/{job_id}/cancel")
                self.counts[f"cancel {answer.status_code}"] += 1
                if answer.status_code in (202, 409):  # 409: it has ended
                    return
            except (*GONE, psycopg.OperationalError):
                self.counts["cancel without an answer"] += 1
            await asyncio.sleep(PAUSE_S)

    def _cancel_in_sql(self, job_id: str) -> None:
        with psycopg.connect(self.world.database_url, connect_timeout=5) as connection:
            connection.execute("INSERT INTO admin_requests (action, target) VALUES ('cancel', %s)", [job_id])

    async def _follow(self, wish: Wish, job_id: str) -> None:
        """Read the job's stream to its end, over as many connections as that takes."""
        ids: list[str] = []
        ended = None
        while ended is None:
            headers = {"last-event-id": ids[-1]} if ids else {}
            try:
                async with self.callers[wish.tenant].stream(
                    "GET", f"/v1/jobs/{job_id}/events", headers=headers, timeout=30
                ) as answer:
                    self.counts[f"streams {answer.status_code}"] += 1
                    assert answer.status_code in (200, 503), (answer.status_code, job_id, ids)
                    async for frame in frames(answer):
                        if frame.id is not None:
                            ids.append(frame.id)
                        if frame.event == "state" and frame.data["state"] in FINAL:
                            ended = frame.data["state"]
            except GONE:
                self.counts["streams cut"] += 1
            if ended is None:
                await asyncio.sleep(PAUSE_S)
        self.streams.append(Stream(job_id, tuple(ids), ended))


def body_of(wish: Wish, receiver: str, now: datetime) -> dict[str, Any]:
    """The body of its POST."""
    body: dict[str, Any] = {
        "app": wish.app,
        "endpoint": wish.endpoint,
        "input": {"seconds": wish.seconds, "writes": wish.writes, "fails": wish.fails},
        "priority": wish.priority,
        "tags": [wish.op],
    }
    if wish.delay_s is not None:
        body["run_at"] = (now + timedelta(seconds=wish.delay_s)).isoformat()
    if wish.start_timeout_s is not None:
        body["start_timeout"] = wish.start_timeout_s
    if wish.has_webhook:
        body["webhook_url"] = f"http://{receiver}/hook"
    return body
