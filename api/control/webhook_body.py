"""The body of a webhook: one object that receivers of ours and those written for fal both read.

Pure. fal's fields stand at the top (``request_id`` is the job's id), beside ``type``, ``timestamp`` and ``data`` as
Standard Webhooks has them; ``payload`` is the result for both.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson

from api.fal.errors import of_job
from api.job_json import absolute, with_links
from stoker.job_views import JobView
from stoker.states import JobState


def webhook_body(job: JobView, base_url: str) -> bytes:
    """What is sent of a final job. The same bytes at every try, as long as its result is kept."""
    is_ok = job.state is JobState.SUCCEEDED
    refused = of_job(job.error)  # what fal's clients are answered in place of the result
    body: dict[str, Any] = {
        "type": f"job.{job.state.value}",
        "timestamp": _time(job.finished_at),
        "request_id": str(job.id),
        "gateway_request_id": str(job.id),
        "status": "OK" if is_ok else "ERROR",
        "payload": with_links(job.result, job.outputs, base_url) if is_ok else refused.body,
        "error": None if is_ok else f"Invalid status code: {refused.status}",
        "data": {
            "job_id": str(job.id),
            "app": job.app,
            "endpoint": job.endpoint,
            "state": job.state.value,
            "attempt": job.attempt,
            "tags": list(job.tags),
            "error": job.error,
            "outputs": [{"name": output.name, "url": absolute(output.link, base_url)} for output in job.outputs],
        },
    }
    if is_ok and job.payload_removed_at is not None:
        body["payload_error"] = "the result was removed before it could be sent"
    return orjson.dumps(body)


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None
