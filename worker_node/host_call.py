"""PendingCall: one call of an app host as the supervisor sees it, until its result or its error.

Fetches files, calls other apps, passes events on, and knows how long a cancel may take. ``host`` holds one for each
call and tells it when the child is gone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stoker import log
from stoker.errors import InvalidFile, JobCancelled, StokerError
from stoker.events import EventKind
from worker_node.apphost import failures, protocol
from worker_node.apphost.protocol import Message
from worker_node.host_values import AppCall, HostCall, HostEvent, HostResult, LocalFile

logger = log.get(__name__)

CANCEL_GRACE_S = 2.0
"""How long a cancelled call may take before its process is killed, where that did not even hear the cancel."""
CANCEL_REBUILD_S = 3.0
"""How much longer where it did: a runner gives its ranks a grace of their own before it kills them."""


class PendingCall:
    """A call that the child works on. ``kill`` ends the child; ``folder`` is where it puts what the call made."""

    def __init__(
        self, call: HostCall, uses_gpus: bool, folder: Path, send: Callable[[Message], None], kill: Callable[[], None]
    ) -> None:
        self.call, self.uses_gpus, self.is_cancelled = call, uses_gpus, False
        self._folder, self._send, self._kill = folder, send, kill
        self._loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[HostResult] = self._loop.create_future()
        # Nobody may be waiting any more when it ends in an error.
        self.outcome.add_done_callback(lambda outcome: outcome.cancelled() or outcome.exception())
        self._heard_cancel = False
        self._fetch_error: StokerError | None = None
        self._fetches: set[asyncio.Task[None]] = set()
        self._children: dict[int, asyncio.Task[None]] = {}
        self._waits_since = 0.0
        text = json.dumps(call.input, allow_nan=False)
        self._send(protocol.Start(call.call_id, call.endpoint, text, str(call.job_id), call.attempt))

    @property
    def waits(self) -> bool:
        """Whether it waits for another app's job, and so is at no work itself."""
        return bool(self._children) and not self.outcome.done()

    @property
    def waited_s(self) -> float:
        """How long it has waited so without a break; 0 where it does not."""
        return time.monotonic() - self._waits_since if self.waits else 0.0

    def cancel(self, within_s: float | None = None) -> None:
        """Ask the child to stop the call, and end the child if it does not; after ``within_s`` whatever it says."""
        if within_s is not None:
            self._loop.call_later(within_s, self._end)
        if self.is_cancelled or self.outcome.done():
            return
        self.is_cancelled = True
        self._send(protocol.Cancel(self.call.call_id))
        self._loop.call_later(CANCEL_GRACE_S, self._press)

    def take(self, message: Message) -> None:
        """Take in one message about this call."""
        match message:
            case protocol.Happened(kind=kind, rank=rank, data_json=text):
                self._take_event(HostEvent(EventKind(kind), rank, _data_of(text)))
            case protocol.Cancelling():
                self._heard_cancel = True
            case protocol.Fetch(number=number, url=url):
                task = self._loop.create_task(self._fetch(number, url))
                self._fetches.add(task)
                task.add_done_callback(self._fetches.discard)
            case protocol.CallApp(number=number):
                if not self._children:
                    self._waits_since = time.monotonic()
                child = self._loop.create_task(self._call_app(message))
                self._children[number] = child
                child.add_done_callback(lambda _: self._children.pop(number, None))
            case protocol.LeaveCall(number=number) if number in self._children:
                self._children[number].cancel()
            case protocol.Done():
                self._conclude(self._result_of(message))
            case protocol.Failed(error=error):
                self._conclude(failures.revive(error))

    def lose(self, error: StokerError) -> None:
        """The child is gone."""
        self._conclude(JobCancelled("the job was cancelled while it ran") if self.is_cancelled else error)

    def _conclude(self, outcome: HostResult | StokerError) -> None:
        if self.outcome.done():
            return
        for task in (*self._fetches, *self._children.values()):
            task.cancel()
        if isinstance(outcome, HostResult):
            self.outcome.set_result(outcome)
        elif isinstance(outcome, InvalidFile) and self._fetch_error is not None:
            self.outcome.set_exception(self._fetch_error)
        else:
            self.outcome.set_exception(outcome)

    def _press(self) -> None:
        if self.outcome.done():
            return
        if self._heard_cancel:
            self._heard_cancel = False
            self._loop.call_later(CANCEL_REBUILD_S, self._press)
            return
        self._end()

    def _end(self) -> None:
        if self.outcome.done():
            return
        logger.warning("cancel_was_not_heard", then="the app's process is killed", **self.call.names)
        self._kill()

    def _take_event(self, event: HostEvent) -> None:
        try:
            self.call.on_event(event)
        except Exception:
            logger.exception("event_was_not_taken", kind=event.kind.value, rank=event.rank, **self.call.names)

    async def _fetch(self, number: int, url: str) -> None:
        try:
            path = await self.call.fetch(url)
        except Exception as error:  # noqa: BLE001 - whatever it is, the child waits for an answer
            hint = ""
            if isinstance(error, StokerError):
                self._fetch_error, hint = error, error.hint
            self._send(protocol.Fetched(self.call.call_id, number, problem=str(error) or repr(error), hint=hint))
        else:
            self._send(protocol.Fetched(self.call.call_id, number, path=str(path)))

    async def _call_app(self, asked: protocol.CallApp) -> None:
        try:
            files = _files_of(asked.files)
            answer = await self.call.call_app(
                AppCall(asked.app, asked.endpoint, json.loads(asked.input_json), asked.key, files)
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the child waits for an answer
            described = failures.describe(error)
            self._send(protocol.CallEnded(self.call.call_id, asked.number, error=described))
        else:
            text = json.dumps(answer.result, ensure_ascii=False)
            self._send(protocol.CallEnded(self.call.call_id, asked.number, text, list(answer.files)))

    def _result_of(self, done: protocol.Done) -> HostResult:
        return HostResult(
            result=json.loads(done.result_json),
            files=_files_of(done.files),
            cold_start_s=done.cold_start_s,
            run_s=done.run_s,
            warm=done.warm,
            peak_memory_bytes=done.peak_memory_bytes,
            folder=self._folder,
        )


def _files_of(listed: list[list[Any]]) -> tuple[LocalFile, ...]:
    return tuple(LocalFile(at, Path(path), *rest) for at, path, *rest in listed)


def _data_of(text: str) -> dict[str, Any]:
    """The data of an event. The app host keeps to the limit, but what runs in it may write to the socket by itself."""
    if len(text) > protocol.MAX_EVENT_BYTES:
        return {"message": f"left out: an event of {len(text)} characters"}
    data: dict[str, Any] = json.loads(text)
    return data
