"""Children: other apps' jobs that the jobs of this node have started, and wait for.

An app's process asks; here the job is submitted under the lease of the one that asks, and waited for. While
an attempt only waits it counts in no cap and holds no seat. What may happen to a child is ``stoker.children``'s to say;
nothing is cancelled here: a child outlives this attempt of its parent, but not its parent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar
from uuid import UUID

from stoker import apps, children, job_queries, log
from stoker.children import Child, NewChild
from stoker.crash_points import Point, reach
from stoker.database import is_passing
from stoker.errors import (
    CallRefused,
    ChildCancelled,
    ChildFailed,
    InvalidInput,
    InvalidRequest,
    JobCancelled,
    LeaseLost,
    QueueFull,
    UnknownApp,
)
from stoker.job_views import JobView
from stoker.states import JobState
from stoker.stored_json import as_given
from stoker.validation import validate
from worker_node import passed_on
from worker_node.attempt import Attempt, StopReason
from worker_node.engines import Engines
from worker_node.host_values import AppAnswer, AppCall, LocalFile
from worker_node.patience import Patience

COMMIT_S = 10.0
SHOWN_ERRORS = 5

logger = log.get(__name__)
T = TypeVar("T")


class Calls:
    """What one attempt asks of other apps."""

    def __init__(self, engines: Engines, attempt: Attempt) -> None:
        self._engines, self._attempt = engines, attempt
        self._open = 0
        self._known: set[UUID] = set()
        """The children that the attempt's log names."""
        self._heard: set[UUID] = set()
        self._hearing: dict[UUID, asyncio.Lock] = {}
        self._telling = asyncio.Lock()
        self._told: bool | None = False
        """Whether it waits, as Postgres knows it; None while that is being said."""

    async def call(self, asked: AppCall) -> AppAnswer:
        """Have the job done, or find it done.

        Raises:
            CallRefused, ChildFailed, ChildCancelled: as ``App.call`` says.
            JobCancelled, LeaseLost: the attempt itself is stopped.
        """
        children.refuse_gpus(uses_gpus=self._attempt.claim.uses_gpus)  # before it is said to wait: it never may
        for file in asked.files:
            await self._pass_on(asked, file)
        new = await self._checked(asked)
        parent = self._attempt.lease
        async with self._waiting():
            child = await self._fenced(self._try(lambda: children.submit(self._engines.db, parent, new, self._known)))
            self._known.add(child.job_id)
            reach(Point.NODE_CHILD_STARTED)
            self._note(child, asked.app)
            if not child.state.is_final:
                await self._engines.ends.of(child.job_id)
            job = await self._try(lambda: job_queries.get(self._engines.db, child.job_id, None))
            if child.state is not JobState.SUCCEEDED:
                reach(Point.NODE_CHILD_ENDED)
                await self._hear(job)
        return answer_of(job)

    async def _pass_on(self, asked: AppCall, file: LocalFile) -> None:
        """Have the request name a file that the app has just made."""
        db, claim = self._engines.db, self._attempt.claim
        file_id = await passed_on.id_of(claim, file)
        if not await self._try(lambda: passed_on.is_known(db, claim, file_id)):
            stored = await passed_on.put(self._engines.storage, self._attempt, file_id, file)
            await self._try(lambda: passed_on.record(db, claim, file_id, file, stored))
        passed_on.link(asked.input, file, file_id)

    async def _checked(self, asked: AppCall) -> NewChild:
        try:
            version = await self._try(lambda: apps.newest(self._engines.db, asked.app))
            schema = version.endpoint(asked.endpoint).input_schema
            await asyncio.to_thread(validate, schema, asked.input)
            as_given(asked.input)
        except InvalidInput as error:
            raise CallRefused(_places(asked, error), hint=error.hint) from error
        except (UnknownApp, InvalidRequest) as error:
            raise CallRefused(str(error), hint=error.hint) from error
        return NewChild(version=version, endpoint=asked.endpoint, input=asked.input, key=asked.key)

    async def _hear(self, job: JobView) -> None:
        """Have the parent's log say that the child has ended, once however many calls wait for it."""
        async with self._hearing.setdefault(job.id, asyncio.Lock()):
            if job.id in self._heard:
                return
            parent = self._attempt.lease
            hear = partial(children.hear_ended, self._engines.db, parent, job.id, job.app, job.state)
            self._engines.tell(parent.job_id, await self._fenced(self._try(hear)), job.tenant_id)
            self._heard.add(job.id)

    @asynccontextmanager
    async def _waiting(self) -> AsyncIterator[None]:
        """While one call at least is open, the attempt only waits."""
        self._open += 1
        try:
            await self._fenced(self._tell())
            yield
        finally:
            self._open -= 1
            with suppress(LeaseLost):  # whoever goes on hears of it at the next heartbeat
                await self._tell()

    async def _tell(self) -> None:
        """Have Postgres, the seat and the clocks know whether the attempt waits.

        It goes on if the call is given up meanwhile: what Postgres was told is known again, and put right.
        """
        telling = asyncio.create_task(self._agree())
        telling.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be waiting any more
        await asyncio.shield(telling)

    async def _agree(self) -> None:
        async with self._telling:
            claim = self._attempt.claim
            while not self._attempt.is_over and (waits := self._open > 0) is not self._told:
                self._told = None
                say = partial(children.set_waiting, self._engines.db, claim.lease, waits=waits)
                if await self._try(say):
                    self._engines.doorbell.ring(claim.app)
                self._told = waits
            if not self._attempt.is_over:
                self._attempt.wait(self._open > 0)

    async def _fenced(self, act: Awaitable[T]) -> T:
        """Do what the lease alone allows; without it the attempt has no business to go on."""
        try:
            return await act
        except LeaseLost:
            self._attempt.stop(StopReason.LEASE_LOST)
            raise

    async def _try(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do it, again and again while what prevents it passes."""
        patience = Patience(self._attempt, unless=self._attempt.stopped)
        while True:
            try:
                async with self._engines.turns, asyncio.timeout(COMMIT_S):
                    return await act()
            except Exception as error:
                if not (isinstance(error, QueueFull | TimeoutError) or is_passing(error)):
                    raise
                if not await patience.wait("call_is_held_up", error):
                    raise JobCancelled("the job was stopped before its call was answered") from error

    def _note(self, child: Child, app: str) -> None:
        verb = "child_started" if child.created else "child_found"
        logger.info(verb, child=str(child.job_id), app=app, state=str(child.state), **self._attempt.names)
        claim = self._attempt.claim
        if child.parent_seq is not None:
            self._engines.tell(claim.job_id, child.parent_seq, claim.tenant_id)
        if child.created and child.state is JobState.QUEUED:
            self._engines.doorbell.ring(app)


def answer_of(job: JobView) -> AppAnswer:
    """What the app is told of a child that has ended. Pure.

    Raises:
        ChildFailed, ChildCancelled
    """
    if job.state is JobState.CANCELLED:
        message = f"child {job.id} of {job.app} was cancelled"
        raise ChildCancelled(message, child_id=str(job.id), app=job.app, error_type="cancelled")
    if job.state is JobState.FAILED or job.result is None:
        error = job.error or {}
        code, said = error.get("code", ""), error.get("message", "")
        message = f"child {job.id} of {job.app} failed: {code}: {said}"
        raise ChildFailed(message, child_id=str(job.id), app=job.app, error_type=code, error_message=said)
    return AppAnswer(job.result, tuple(output.pointer for output in job.outputs if output.pointer))


def _places(asked: AppCall, error: InvalidInput) -> str:
    places = [f"{'.'.join(map(str, entry['loc'])) or 'it'}: {entry['msg']}" for entry in error.errors[:SHOWN_ERRORS]]
    return f"the request breaks the schema of {asked.app}{asked.endpoint}: {'; '.join(places)}"
