"""Errors in the form that fal's clients read: a status, ``detail`` and often ``error_type``.

Pure: no I/O. Their clients take 409 for something to try again, so it is never sent; what cannot be tried again with
any hope says so where they look for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stoker.errors import Conflict, InvalidInput, QueueFull, RateLimited, StokerError, Unauthenticated, Unavailable

PATHS = ("/queue/", "/run/", "/rest/", "/cdn/", "/api/fal/")
"""Where fal's clients call. They take an error without the id of a request for a broken proxy's, and try again."""
ERROR_TYPE = "x-fal-error-type"
TIMEOUT_TYPE = "x-fal-request-timeout-type"
RETRY_AFTER_S = 2
BODY = ("body", "input")
"""Where our own face has what is the whole body here."""

PLACES: dict[tuple[str | int, ...], list[str | int]] = {("body", "webhook_url"): ["query", "fal_webhook"]}

ENDS = {
    "start_timeout": (504, "request_timeout"),
    "run_timeout": (504, "request_timeout"),
    "stall_timeout": (504, "request_timeout"),
    "cancelled": (499, "client_cancelled"),
    "worker_crashed": (503, "runner_disconnected"),
    "crashed_beside": (503, "runner_disconnected"),
    "node_lost": (503, "runner_disconnected"),
    "app_error": (500, "runner_server_error"),
    "out_of_memory": (500, "runner_server_error"),
    "gpu_failed": (500, "runner_server_error"),
    "collective_failed": (500, "runner_server_error"),
    "child_failed": (500, "runner_server_error"),
    "child_cancelled": (500, "runner_server_error"),
    "call_refused": (500, "runner_server_error"),
}
"""What a job's error becomes. Those of an input that only the node could judge are 422; all others are ours."""
UNUSABLE_INPUT = frozenset({"invalid_input", "invalid_file", "invalid_request", "payload_too_large"})


@dataclass(frozen=True)
class FalError:
    """An answer that says what went wrong."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def error_type(self) -> str | None:
        return self.headers.get(ERROR_TYPE)


def of_request(error: StokerError) -> FalError:
    """What a request that was refused is answered."""
    if isinstance(error, InvalidInput):
        return of_places([{**entry, "loc": _place(entry["loc"])} for entry in error.errors])
    status = 400 if isinstance(error, Conflict) else error.status
    headers = {ERROR_TYPE: error.code}
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Key"
    if isinstance(error, Unavailable | QueueFull):
        headers["retry-after"] = str(RETRY_AFTER_S)
    if isinstance(error, RateLimited):
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    return FalError(status, {"detail": f"{error}. {error.hint}", "error_type": error.code}, headers)


def of_places(entries: Sequence[Mapping[str, Any]]) -> FalError:
    """An input that is wrong in these places."""
    detail = [{"loc": list(entry["loc"]), "msg": entry["msg"], "type": entry["type"]} for entry in entries]
    return FalError(422, {"detail": detail})


def of_job(error: Mapping[str, Any] | None) -> FalError:
    """What stands in place of the result of a job that has failed, or was cancelled: then it has no error."""
    code = "cancelled" if error is None else error["code"]
    message = "the request was cancelled" if error is None else error["message"]
    if code in UNUSABLE_INPUT:
        return of_places([{"loc": ["body"], "msg": message, "type": code}])
    status, error_type = ENDS.get(code, (500, "internal_error"))
    headers = {ERROR_TYPE: error_type}
    if status == 504:
        headers[TIMEOUT_TYPE] = "user"  # their clients would ask again, or run it again, for what stays as it is
    return FalError(status, {"detail": message, "error_type": error_type}, headers)


def _place(loc: Sequence[str | int]) -> list[str | int]:
    known = PLACES.get(tuple(loc))
    return known or (["body", *loc[2:]] if tuple(loc[:2]) == BODY else list(loc))
