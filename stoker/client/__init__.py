"""A small client of the HTTP API: submit jobs, follow them, fetch what they made.

It needs httpx2 and pydantic alone and knows nothing of engines or nodes. The command line is built on it.

    with Client("http://127.0.0.1:8000", key) as client:
        job = client.submit("acme/echo", {"text": "hello"})
        for event in client.events(job.id):
            print(event.kind, event.data)
        print(client.result(job.id).result)
"""

from __future__ import annotations

from stoker.client.client import Client
from stoker.client.models import (
    AppInfo,
    Job,
    JobPage,
    JobProblem,
    JobsEvent,
    JobSummary,
    Output,
    StreamedEvent,
    UploadedFile,
)
from stoker.client.problems import Unreachable

__all__ = [
    "AppInfo",
    "Client",
    "Job",
    "JobPage",
    "JobProblem",
    "JobSummary",
    "JobsEvent",
    "Output",
    "StreamedEvent",
    "Unreachable",
    "UploadedFile",
]
