"""A job's status as fal's clients read it: in the queue, in progress, or completed, whichever way it has ended.

Pure: no I/O. Fields that their Python client takes for granted are always there: ``logs`` is a list, never null.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from api.fal import errors
from stoker.events import Event
from stoker.job_status import JobStatus
from stoker.states import JobState

IN_QUEUE, IN_PROGRESS, COMPLETED = "IN_QUEUE", "IN_PROGRESS", "COMPLETED"
WORD = {
    JobState.SCHEDULED: IN_QUEUE,
    JobState.QUEUED: IN_QUEUE,
    JobState.RUNNING: IN_PROGRESS,
    JobState.SUCCEEDED: COMPLETED,
    JobState.FAILED: COMPLETED,
    JobState.CANCELLED: COMPLETED,
}
LEVELS = {"STDERR", "STDOUT", "ERROR", "INFO", "WARN", "DEBUG"}


def links(app: str, job_id: UUID, base_url: str) -> dict[str, Any]:
    """The request's id and the places that clients follow as they come."""
    own = f"{base_url}/queue/{app}/requests/{job_id}"
    return {
        "request_id": str(job_id),
        "response_url": own,
        "status_url": f"{own}/status",
        "cancel_url": f"{own}/cancel",
    }


def status_json(job_id: UUID, status: JobStatus, base_url: str, lines: Iterable[Event] = ()) -> dict[str, Any]:
    """The status, with these lines of the log."""
    word = WORD[status.state]
    answer = {"status": word, **links(status.app, job_id, base_url)}
    if word == IN_QUEUE:
        return answer | {"queue_position": status.queue_position or 0}
    answer["logs"] = [log_json(line) for line in lines]
    if word == COMPLETED:
        answer |= {"metrics": {"inference_time": status.run_s}, "error": None, "error_type": None}
        if status.state is not JobState.SUCCEEDED:
            answer |= _failure(status)
    return answer


def log_json(line: Event) -> dict[str, Any]:
    """A line of the log."""
    level = str(line.data.get("level") or "INFO").upper()
    level = {"WARNING": "WARN", "CRITICAL": "ERROR"}.get(level, level)
    rank = line.data.get("rank")
    return {
        "message": str(line.data.get("message", "")),
        "level": level if level in LEVELS else "INFO",
        "source": "USER",
        "timestamp": line.created_at.isoformat().replace("+00:00", "Z"),
        "labels": {} if rank is None else {"rank": str(rank)},
    }


def _failure(status: JobStatus) -> dict[str, Any]:
    failed = errors.of_job(status.error)
    detail = failed.body["detail"]
    message = detail if isinstance(detail, str) else "; ".join(entry["msg"] for entry in detail)
    return {"error": message, "error_type": failed.error_type or "bad_request"}
