"""HostCalls: the calls that an app's process works on, what else it may take, and what its end means for each.

It starts and ends no process: ``worker_node.host`` does, and holds one for its app.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from uuid import UUID

from stoker.errors import CrashedBeside, StokerError
from worker_node.apphost.protocol import Message
from worker_node.host_call import PendingCall
from worker_node.host_values import AppReplaced, AppSpec, HostCall
from worker_node.suspicion import Suspicion


class HostCalls:
    """``send`` reaches the process and ``kill`` ends it; what calls make is put into the spool of ``spec``."""

    def __init__(self, spec: AppSpec, send: Callable[[Message], None], kill: Callable[[], None]) -> None:
        self._folder = spec.spool.resolve() / "calls"
        self._alone_s, self._send, self._kill = spec.alone_s, send, kill
        self._pending: dict[str, PendingCall] = {}
        self._suspicion = Suspicion()

    @property
    def are_one_at_a_time(self) -> bool:
        """Whether a call must be alone in the process: one of several has killed it, and which is to be found out."""
        return self._suspicion.is_on(time.monotonic())

    @property
    def names(self) -> dict[str, object]:
        """The job in work, for log lines; with several no line is any one's."""
        calls = [pending.call.names for pending in self._pending.values()]
        return {**calls[0]} if len(calls) == 1 else {"jobs": [each["job_id"] for each in calls]} if calls else {}

    def have_room(self, *, uses_gpus: bool, most: int) -> bool:
        """Whether a process that can serve could take a call that uses GPUs, or one of ``most`` at a time without any.

        As many again may have come back from waiting for other apps' jobs.
        """
        pending = list(self._pending.values())
        if any(each.waited_s < self._alone_s for each in pending) and self.are_one_at_a_time:
            return False
        at_work = [each for each in pending if not each.waits]
        alike = sum(each.uses_gpus == uses_gpus for each in at_work)
        return alike == 0 if uses_gpus else alike < 2 * most

    def begin(self, call: HostCall, *, uses_gpus: bool) -> PendingCall:
        """Have the process serve a call."""
        folder = self._folder / re.sub(r"\W", "-", call.call_id)
        pending = PendingCall(call, uses_gpus, folder, self._send, self._kill)
        self._pending[call.call_id] = pending
        self._suspicion.begins(call.job_id)
        pending.outcome.add_done_callback(lambda _: self._pending.pop(call.call_id, None))
        return pending

    def cancel(self, call_id: str, within_s: float | None) -> bool:
        """Ask a call to stop; False: there is none."""
        pending = self._pending.get(call_id)
        if pending is not None:
            pending.cancel(within_s)
        return pending is not None

    def take(self, message: Message) -> None:
        """Take in what the process says of a call."""
        pending = self._pending.get(getattr(message, "call_id", ""))
        if pending is not None:
            pending.take(message)
            if pending.outcome.done():
                self._suspicion.clears(pending.call.job_id)

    def came_up(self) -> None:
        """The process can serve."""
        self._suspicion.comes_back(time.monotonic())

    def is_over(self, job_id: UUID) -> None:
        """The job is final: it will not come back, so nobody needs to look out for it."""
        self._suspicion.clears(job_id)

    def went_down(self, problem: str, error: StokerError, *, was_killed: bool) -> None:
        """The process has ended: by ``error``, or by the node's own doing, which is no fault of who was in it."""
        lost = list(self._pending.values())
        # A call that waits for another app's job is not to blame where it was alone for long, and then was not.
        trusted = [each for each in lost if each.waited_s >= self._alone_s] if self.are_one_at_a_time else []
        suspects = [each for each in lost if each not in trusted] or lost
        if was_killed:
            error = AppReplaced("the app's process was ended because of another call")
            self._suspicion.leave(each.call.job_id for each in lost)
        else:
            self._suspicion.leave(each.call.job_id for each in trusted)
            self._suspicion.cast(each.call.job_id for each in suspects)
            if len(suspects) > 1:
                error = CrashedBeside(f"{problem} while it served {len(suspects)} jobs")
        for pending in lost:
            pending.lose(error if pending in suspects else AppReplaced(f"{problem}, while this job waited for another"))
