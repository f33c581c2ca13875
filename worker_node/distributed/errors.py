"""Errors of the runner: one class for each cause that a caller can act on.

A tree of its own, so that the library stands alone; whoever embeds it maps ``code`` and ``retryable`` to its own.
"""

from __future__ import annotations

from collections.abc import Sequence


class RunnerError(RuntimeError):
    """Base of every error that this library raises."""

    code: str = "runner_error"
    retryable: bool = False
    hint: str = ""


class InvalidWorker(RunnerError):
    """The worker class cannot be named to a fresh interpreter, or is no DistributedWorker."""

    code = "invalid_worker"
    hint = "Name a class at the top of an importable module, as a class or as 'package.module:Class'."


class AlreadyRunning(RunnerError):
    """``start`` was called on a runner that has ranks."""

    code = "already_running"
    hint = "Await stop() first, or use the runner as it is."


class NotRunning(RunnerError):
    """A call was made on a runner that was not started, or was stopped meanwhile."""

    code = "not_running"
    retryable = True
    hint = "Await start() before the first call."


class TooManyWaiting(RunnerError):
    """The bounded queue of waiting calls is full."""

    code = "too_many_waiting"
    retryable = True
    hint = "Call later, or raise max_waiting."

    def __init__(self, *, waiting: int) -> None:
        super().__init__(f"{waiting} calls are waiting already")
        self.waiting = waiting


class SerializationFailed(RunnerError):
    """A value has no form on the wire."""

    code = "serialization_failed"
    hint = "Send numbers, strings, bytes, lists, tuples, dicts, sets, datetimes, paths, tensors, arrays or PIL images."

    def __init__(self, reason: str, *, path: str = "") -> None:
        super().__init__(f"{path or 'value'}: {reason}")
        self.path, self.reason = path, reason


class InvalidImageFormat(RunnerError):
    """Pictures were asked for in a format that is not served."""

    code = "invalid_image_format"
    hint = "Ask for jpeg, png or webp."

    def __init__(self, image_format: object) -> None:
        super().__init__(f"there is no image format {image_format!r}")
        self.image_format = image_format


class RankError(RunnerError):
    """Something that happened on one rank."""

    def __init__(self, message: str, *, rank: int) -> None:
        super().__init__(message)
        self.rank = rank


class RemoteError(RankError):
    """An exception that user code raised on a rank, with the traceback it had there."""

    verb = "raised"

    def __init__(self, *, rank: int, type_name: str, message: str, traceback: str) -> None:
        super().__init__(f"rank {rank} {self.verb} {type_name}: {message}", rank=rank)
        self.type_name, self.message, self.traceback = type_name, message, traceback
        if traceback:
            self.add_note(f"Traceback on rank {rank}:\n{traceback}")


class SetupFailed(RemoteError):
    """A rank could not load its worker class or its ``setup`` raised."""

    code = "setup_failed"
    hint = "The traceback of the rank is in the notes of this error."
    verb = "failed in setup with"


class RankFailed(RemoteError):
    """The worker's ``__call__`` raised on a rank. ``others`` holds what further ranks raised in the same call."""

    code = "rank_failed"
    hint = "The traceback of the rank is in the notes of this error."
    others: tuple[RankError, ...] = ()


class RankDied(RankError):
    """A rank's process ended by itself: a crash, a kill or an exit."""

    code = "rank_died"
    retryable = True
    hint = "Exit code -9 is most often the out-of-memory killer, -11 a crash in native code."

    def __init__(self, *, rank: int, exit_code: int, last_output: Sequence[str] = ()) -> None:
        super().__init__(f"rank {rank} exited with code {exit_code}", rank=rank)
        self.exit_code, self.last_output = exit_code, tuple(last_output)
        if self.last_output:
            self.add_note(f"Last output of rank {rank}:\n" + "\n".join(self.last_output))


class SpawnFailed(RunnerError):
    """The ranks could not be started for a cause outside of them."""

    code = "spawn_failed"
    retryable = True
    hint = "Most often the machine lacks memory, processes, open files or space in the folder for temporary files."


class StartTimeout(RunnerError, TimeoutError):
    """Not every rank was ready in time."""

    code = "start_timeout"
    retryable = True
    hint = "Loading weights counts: raise start(timeout=...)."

    def __init__(self, *, timeout_s: float, missing: Sequence[int]) -> None:
        super().__init__(f"ranks {list(missing)} were not ready within {timeout_s:g} s")
        self.timeout_s, self.missing = timeout_s, tuple(missing)


class CallTimeout(RunnerError, TimeoutError):
    """A call did not end in time, or was silent for longer than its streaming timeout."""

    code = "call_timeout"
    hint = "The ranks were told to stop; the next call works."

    def __init__(self, *, timeout_s: float, what: str = "the call did not end", hint: str = hint) -> None:
        super().__init__(f"{what} within {timeout_s:g} s")
        self.timeout_s, self.hint = timeout_s, hint


class CallCancelled(RunnerError):
    """The call was cancelled. Raised at the caller, and in workers by ``raise_if_cancelled``."""

    code = "call_cancelled"
    hint = "cancel() was called, or its caller went away."


class PoolBroken(RunnerError):
    """Rebuilding the ranks failed too often in a row; ``reasons`` has the error of each try."""

    code = "pool_broken"
    hint = "Mend the cause named in the reasons, then start() the runner again."

    def __init__(self, reasons: Sequence[RunnerError]) -> None:
        super().__init__("the ranks could not be rebuilt: " + "; ".join(str(reason) for reason in reasons))
        self.reasons = tuple(reasons)
