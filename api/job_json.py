"""A job as callers see it.

Pure: no I/O. Rows carry relative links; they are made absolute here, and only at the places that are known to be ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from stoker.events import Event, EventKind
from stoker.families import ChildView
from stoker.job_views import AttemptView, JobSummary, JobView, OutputView

OUTPUTS = "/outputs/"
STABLE_LINK = re.compile(r"/outputs/[\w-]{32}/")


def job_json(job: JobView, base_url: str) -> dict[str, Any]:
    """All that the API says of a job."""
    return {
        **summary_json(job, base_url),
        "input": job.input,
        "result": with_links(job.result, job.outputs, base_url),
        "outputs": [_output_json(output, base_url) for output in job.outputs],
        "root_id": str(job.family.root_id) if job.family.root_id else None,
        "children": [_child_json(child, base_url) for child in job.family.children],
        "tree": {"jobs": 1 + job.family.below, "gpu_seconds": job.gpu_seconds + job.family.gpu_seconds_below},
    }


def summary_json(job: JobSummary, base_url: str) -> dict[str, Any]:
    """A job as a list shows it."""
    self_link = f"{base_url}/v1/jobs/{job.id}"
    return {
        "id": str(job.id),
        "app": job.app,
        "endpoint": job.endpoint,
        "kind": job.kind,
        "version": job.version,
        "state": job.state.value,
        "priority": job.priority,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "attempts": [_attempt_json(attempt, base_url) for attempt in job.attempts],
        "error": job.error,
        "progress": job.progress,
        "queue_position": job.queue_position,
        "tags": list(job.tags),
        "webhook_url": job.webhook_url,
        "created_at": _time(job.created_at),
        "available_at": _time(job.available_at),
        "started_at": _time(job.started_at),
        "finished_at": _time(job.finished_at),
        "cancel_requested_at": _time(job.cancel_requested_at),
        "gpu_seconds": job.gpu_seconds,
        "timings": {
            "queued_s": _seconds(job.available_at, job.started_at),
            "run_s": _seconds(job.started_at, job.finished_at),
        },
        "retried_from": str(job.retried_from) if job.retried_from else None,
        "parent_id": str(job.parent_id) if job.parent_id else None,
        "served": job.served,
        "last_seq": job.last_seq,
        "store_io": job.store_io,
        "no_retry": job.no_retry,
        "outputs_expire_at": _time(job.outputs_expire_at),
        "outputs_removed_at": _time(job.outputs_removed_at),
        "payload_removed_at": _time(job.payload_removed_at),
        "links": {"self": self_link, "events": f"{self_link}/events", "cancel": f"{self_link}/cancel"},
    }


def event_data(event: Event, job: JobView, base_url: str) -> Mapping[str, Any]:
    """What stands in the SSE ``data`` line of an event."""
    if event.kind is EventKind.STATE and event.data.get("result") is not None:
        return {**event.data, "result": with_links(event.data["result"], job.outputs, base_url)}
    return with_own_link(event.kind, event.data, base_url)


def with_own_link(kind: EventKind, data: Mapping[str, Any], base_url: str) -> Mapping[str, Any]:
    """An event's data, with the link absolute that an output or the end of a long log has."""
    if kind is EventKind.OUTPUT:
        return _with_link(data, base_url)
    if kind is EventKind.LOG and isinstance(file := data.get("log_file"), dict):
        return {**data, "log_file": _with_link(file, base_url)}
    return data


def with_links(result: Any, outputs: Iterable[OutputView], base_url: str) -> Any:
    """``result`` with the links at its outputs' pointers absolute, and those of Files that other jobs made.

    Other strings are the app's own and stay.
    """
    if result is None:
        return None
    result = _with_passed_on(result, base_url)
    for output in outputs:
        file = _at(result, output.pointer) if output.pointer else None
        if isinstance(file, dict):
            file["url"] = absolute(file.get("url"), base_url)
    return result


def absolute(link: Any, base_url: str) -> Any:
    """A link to an output, from the base on."""
    return f"{base_url}{link}" if isinstance(link, str) and link.startswith(OUTPUTS) else link


def _with_link(file: Mapping[str, Any], base_url: str) -> dict[str, Any]:
    return {**file, "url": absolute(file.get("url"), base_url)}


def _with_passed_on(value: Any, base_url: str) -> Any:
    """A copy in which the Files that a child has made and the job has passed on have absolute links."""
    if isinstance(value, dict):
        copied = {name: _with_passed_on(item, base_url) for name, item in value.items()}
        if isinstance(url := copied.get("url"), str) and STABLE_LINK.match(url):
            copied["url"] = absolute(url, base_url)
        return copied
    return [_with_passed_on(item, base_url) for item in value] if isinstance(value, list) else value


def _at(value: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) leads to, None if it leads nowhere."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def _child_json(child: ChildView, base_url: str) -> dict[str, Any]:
    return {
        "id": str(child.id),
        "app": child.app,
        "endpoint": child.endpoint,
        "state": child.state.value,
        "name": child.name,
        "generation": child.generation,
        "links": {"self": f"{base_url}/v1/jobs/{child.id}"},
    }


def _attempt_json(attempt: AttemptView, base_url: str) -> dict[str, Any]:
    return {
        "attempt": attempt.attempt,
        "node_id": attempt.node_id,
        "outcome": attempt.outcome,
        "error": attempt.error,
        "claimed_at": _time(attempt.claimed_at),
        "ended_at": _time(attempt.ended_at),
        "gpu_seconds": attempt.gpu_seconds,
        "warm": attempt.warm,
        "phases": attempt.phases,
        "peak_memory_bytes": attempt.peak_memory_bytes,
        "log_file": attempt.log_file and _with_link(attempt.log_file, base_url),
    }


def _output_json(output: OutputView, base_url: str) -> dict[str, Any]:
    return {
        **output.metadata,
        "url": absolute(output.link, base_url),
        "content_type": output.content_type,
        "file_name": output.name,
        "file_size": output.size_bytes,
        "name": output.name,
        "sha256": output.sha256,
        "attempt": output.attempt,
    }


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return round((end - start).total_seconds(), 3) if start and end else None
