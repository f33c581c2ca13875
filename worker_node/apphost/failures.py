"""Failures: how what went wrong in an app host crosses to the supervisor.

``describe`` is used by the app host, ``revive`` by ``worker_node.host``. The runner's own errors become Stoker's here.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from stoker.errors import (
    AppError,
    CallRefused,
    ChildCancelled,
    ChildFailed,
    CollectiveFailed,
    GpuFailed,
    InvalidFile,
    InvalidInput,
    JobCancelled,
    OutOfMemory,
    StokerError,
    WorkerCrashed,
)
from worker_node.apphost.crashes import crash_of, crash_on_ranks
from worker_node.distributed.errors import (
    CallCancelled,
    PoolBroken,
    RankDied,
    RemoteError,
    RunnerError,
    SpawnFailed,
)

MAX_TEXT = 20_000
MAX_PLACES = 500
"""So many mistakes of an input are told; the frame to the supervisor has to hold them."""
_OURS = str(Path(__file__).parent)
_BY_CODE: dict[str, type[StokerError]] = {kind.code: kind for kind in (InvalidFile, JobCancelled, WorkerCrashed)}
_APP_ERRORS: dict[str, type[AppError]] = {
    kind.code: kind
    for kind in (AppError, OutOfMemory, GpuFailed, CollectiveFailed, ChildFailed, ChildCancelled, CallRefused)
}
_OF_CHILD = ("child_id", "app", "error_type", "error_message")


def from_runner(error: RunnerError) -> StokerError:
    """The runner's error in Stoker's words."""
    if isinstance(error, CallCancelled):
        return JobCancelled(str(error))
    if (crash := crash_on_ranks(error)) is not None:
        type_name = getattr(error, "type_name", "") or type(error).__name__
        said = getattr(error, "traceback", "") or "\n".join(getattr(error, "__notes__", ()))
        return crash(str(error), type_name=type_name, traceback=said)
    if isinstance(error, RankDied | PoolBroken | SpawnFailed):
        return WorkerCrashed(str(error), hint=error.hint or None)
    if isinstance(error, RemoteError):
        return AppError(
            str(error), type_name=error.type_name, traceback=error.traceback, hint="The traceback is that of the rank."
        )
    return AppError(str(error), type_name=type(error).__name__, hint=error.hint or None)


def from_validation(error: ValidationError) -> InvalidInput:
    """The mistakes that a request model found, without the values."""
    found = [
        {"loc": list(entry["loc"]), "msg": entry["msg"], "type": entry["type"]}
        for entry in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    return InvalidInput(f"the input breaks the app's request model in {len(found)} place(s)", errors=found)


def describe(error: BaseException) -> dict[str, Any]:
    """An error as plain values, whatever its class makes of its text: a call that failed must be able to say so."""
    if isinstance(error, RunnerError):
        error = from_runner(error)
    known = isinstance(error, AppError | InvalidInput | InvalidFile | JobCancelled | WorkerCrashed)
    if isinstance(error, StokerError) and known:
        return {
            "code": str(error.code),
            "message": _text(error)[:MAX_TEXT],
            "hint": _text(error.hint)[:MAX_TEXT],
            "type_name": _text(getattr(error, "type_name", "") or type(error).__name__)[:MAX_TEXT],
            "traceback": _text(getattr(error, "traceback", "") or _traceback(error))[-MAX_TEXT:],
            "errors": _places(getattr(error, "errors", [])),
            "child": {name: _text(getattr(error, name, ""))[:MAX_TEXT] for name in _OF_CHILD},
        }
    text = _text(error)
    kind = crash_of(type(error).__qualname__, text) or AppError
    message = f"{type(error).__qualname__}: {text}" if text else type(error).__qualname__
    if isinstance(error, SystemExit):
        message = f"the app called sys.exit({_text(error.code)})"
    elif isinstance(error, asyncio.CancelledError):
        message = "the app cancelled its own endpoint"
    return {
        "code": kind.code,
        "message": message[:MAX_TEXT],
        "hint": _text(error.hint)[:MAX_TEXT] if isinstance(error, StokerError) else kind.hint,
        "type_name": type(error).__qualname__,
        "traceback": _traceback(error)[-MAX_TEXT:],
        "errors": [],
    }


def beyond_words(call: str) -> dict[str, Any]:
    """What stands for an error of which nothing more can be said."""
    return {
        "code": AppError.code,
        "message": f"{call} failed, and its error could not be described",
        "hint": "The node's log has the traceback.",
        "type_name": "",
        "traceback": "",
        "errors": [],
    }


def revive(described: dict[str, Any]) -> StokerError:
    """The error that ``describe`` was given, or the AppError that stands for it."""
    code, message, hint = (str(described[key]) for key in ("code", "message", "hint"))
    if code == InvalidInput.code:
        return InvalidInput(message, errors=described["errors"], hint=hint)
    if code in _BY_CODE:
        return _BY_CODE[code](message, hint=hint)
    kind = _APP_ERRORS.get(code, AppError)
    if issubclass(kind, ChildFailed):
        return kind(
            message, type_name=described["type_name"], traceback=described["traceback"], hint=hint, **described["child"]
        )
    return kind(message, type_name=described["type_name"], traceback=described["traceback"], hint=hint)


def _text(value: object) -> str:
    """What ``value`` says, in signs that can be stored. Asking it runs code of the app, which may raise."""
    try:
        text = str(value)
    except Exception as raised:  # noqa: BLE001 - the error that is being described must not be lost to another
        return f"(str() of this {type(value).__qualname__} raised {type(raised).__qualname__})"
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _places(errors: object) -> list[dict[str, Any]]:
    """The entries of ``InvalidInput.errors`` in the one shape they are meant to have; apps fill them in themselves."""
    entries = list(errors) if isinstance(errors, Iterable) else [errors]
    return [_place(entry if isinstance(entry, Mapping) else {"msg": entry}) for entry in entries[:MAX_PLACES]]


def _place(entry: Mapping[str, Any]) -> dict[str, Any]:
    loc = entry.get("loc", ())
    steps = loc if isinstance(loc, list | tuple) else [loc]
    return {
        "loc": [step if isinstance(step, int) and abs(step) < 2**31 else _text(step) for step in steps],
        "msg": _text(entry.get("msg", ""))[:MAX_TEXT],
        "type": _text(entry.get("type", "value_error")),
    }


def _traceback(error: BaseException) -> str:
    """The traceback as the app's author knows it: without the frames of the app host above the endpoint."""
    try:
        return _text("".join(traceback.format_exception(type(error), error, _below_ours(error.__traceback__))))
    except Exception as raised:  # noqa: BLE001 - as above: formatting asks the app's own classes
        return f"(the traceback could not be written: {type(raised).__qualname__})"


def _below_ours(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS) and trace.tb_next is not None:
        trace = trace.tb_next
    return trace
