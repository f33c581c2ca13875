"""The client: one method for each thing that a caller does with jobs, apps and files.

Synchronous and safe to share between threads. What the API refuses is raised as the class of ``stoker.errors`` that it
names.
"""

from __future__ import annotations

import builtins
import mimetypes
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote
from uuid import UUID

import httpx2

from stoker.client import stream
from stoker.client.models import AppInfo, Job, JobPage, JobsEvent, Output, StreamedEvent, UploadedFile
from stoker.client.problems import check, reaching
from stoker.errors import ConfigurationError, Conflict, PayloadRemoved
from stoker.states import JobState

TIMEOUT_S = 30.0


class Client:
    """Speaks to the API at ``base_url`` with ``api_key`` (``<id>:<secret>``)."""

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.base_url = base_url.rstrip("/")
        # Not a default header of the HTTP client: the key must not travel with a link to the object store.
        self._key = {"Authorization": f"Key {api_key}"}
        self._http = httpx2.Client(base_url=self.base_url, timeout=timeout_s)
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a stream that waits to reconnect ends."""
        self._closed.set()
        self._http.close()

    def submit(
        self,
        app: str,
        input: Mapping[str, Any],  # noqa: A002 (the API's own word)
        *,
        endpoint: str = "/",
        priority: int | None = None,
        run_at: datetime | None = None,
        start_timeout_s: float | None = None,
        run_timeout_s: float | None = None,
        max_attempts: int | None = None,
        tags: Sequence[str] = (),
        webhook_url: str | None = None,
        idempotency_key: str | None = None,
        store_io: bool | None = None,
        keep_outputs_s: float | None = None,
        no_retry: bool | None = None,
    ) -> Job:
        """Ask ``app`` for a job. It is stored when this returns.

        Raises:
            InvalidInput: ``input`` breaks the app's schema.
            UnknownApp: no node ever published the app.
        """
        body = {
            "app": app,
            "endpoint": endpoint,
            "input": dict(input),
            "priority": priority,
            "run_at": run_at and run_at.isoformat(),
            "start_timeout": start_timeout_s,
            "run_timeout": run_timeout_s,
            "max_attempts": max_attempts,
            "tags": builtins.list(tags) or None,
            "webhook_url": webhook_url,
            "store_io": store_io,
            "keep_outputs": keep_outputs_s,
            "no_retry": no_retry,
        }
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        given = {name: value for name, value in body.items() if value is not None}
        return Job.model_validate(self._call("POST", "/v1/jobs", json=given, headers=headers))

    def get(self, job_id: UUID | str) -> Job:
        """The job as it is now.

        Raises:
            NotFound: the key's tenant has no such job.
        """
        return Job.model_validate(self._call("GET", _job(job_id)))

    def events(self, job_id: UUID | str, *, after: str | None = None) -> Iterator[StreamedEvent]:
        """The job's events from its first, or after the id ``after``, to its last; reconnects when it is cut.

        Raises:
            Unreachable: the API is gone for a minute.
        """
        return stream.follow(self._http, f"{_job(job_id)}/events", self._key, after, self._closed.wait)

    def all_events(
        self,
        *,
        after: str | None = None,
        job_ids: Sequence[UUID | str] = (),
        app: str | None = None,
        kinds: Sequence[str] = (),
        states: Sequence[str] = (),
        parent_id: UUID | str | None = None,
        root_id: UUID | str | None = None,
    ) -> Iterator[JobsEvent]:
        """The rows of all of the tenant's jobs, or those chosen, as they come; reconnects when it is cut, never ends.

        From now on; of given jobs from their first. ``after`` an event's id: what came since; "0": all that is kept.

        Raises:
            Unreachable: the API is gone for a minute.
        """
        wanted = {
            "job_id": [str(job_id) for job_id in job_ids],
            "app": [app] if app else [],
            "kind": builtins.list(kinds),
            "state": builtins.list(states),
            "parent_id": [str(parent_id)] if parent_id else [],
            "root_id": [str(root_id)] if root_id else [],
        }
        return stream.follow_many(self._http, wanted, self._key, after, self._closed.wait)

    def result(self, job_id: UUID | str, *, wait: bool = True) -> Job:
        """The job in its final state.

        Raises:
            Conflict: it has not ended, and ``wait`` is False.
            PayloadRemoved: it has succeeded, and its result is not kept any more.
        """
        job = self.get(job_id)
        if not job.state.is_final and wait:
            for _ in self.events(job_id):
                pass
            job = self.get(job_id)
        if not job.state.is_final:
            raise Conflict(f"job {job.id} is {job.state}", hint="Wait for it, or follow its events.")
        if job.payload_removed_at is not None and job.state is JobState.SUCCEEDED:
            raise PayloadRemoved(f"the result of job {job.id} was removed")
        return job

    def cancel(self, job_id: UUID | str) -> Job:
        """Ask for the job to be cancelled. A running one stops soon after.

        Raises:
            Conflict: it has ended.
        """
        return Job.model_validate(self._call("POST", f"{_job(job_id)}/cancel"))

    def delete(self, job_id: UUID | str) -> None:
        """Delete a job that has ended, with all that is its own, and all that it has started.

        Raises:
            Conflict: it, or one of those, has not ended.
        """
        self._call("DELETE", _job(job_id))

    def retry(self, job_id: UUID | str) -> Job:
        """A new job with the input of one that has ended."""
        return Job.model_validate(self._call("POST", f"{_job(job_id)}/retry"))

    def apps(self) -> tuple[AppInfo, ...]:
        """What the nodes publish."""
        return tuple(AppInfo.model_validate(app) for app in self._call("GET", "/v1/apps")["apps"])

    def upload(self, path: Path | str, *, content_type: str | None = None) -> UploadedFile:
        """Store the file at ``path``, streamed. Its id then stands for it in an input."""
        path = Path(path)
        kind = content_type or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        with path.open("rb") as content, reaching(self.base_url):
            response = self._http.post(
                "/v1/files",
                params={"file_name": path.name},
                content=content,
                headers=self._key | {"Content-Type": kind, "Content-Length": str(path.stat().st_size)},
            )
        check(response)
        return UploadedFile.model_validate(response.json())

    def download(self, output: Output, folder: Path | str) -> Path:
        """Save ``output`` in ``folder`` under its own name; the path it has there.

        Raises:
            ConfigurationError: it cannot be written there.
        """
        target = Path(folder) / (Path(output.name).name or "output")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._fetch(output, target)
        except OSError as error:
            raise ConfigurationError(
                f"{target} cannot be written: {error.strerror or error}",
                hint=f"Was {folder} made by another user? Then chown it, or save in a folder that you may write.",
            ) from error
        return target

    def _fetch(self, output: Output, target: Path) -> None:
        with reaching(self.base_url), self._http.stream("GET", output.url, follow_redirects=True) as response:
            if response.is_error:
                response.read()
            check(response)
            with target.open("wb") as out:
                for piece in response.iter_bytes():
                    out.write(piece)

    def list(
        self,
        *,
        app: str | None = None,
        state: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        parent: UUID | str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> JobPage:
        """The tenant's jobs, newest first; ``get`` has their input, result and outputs. ``parent``: what it started."""
        wanted = {
            "app": app,
            "state": state,
            "tag": tag,
            "since": since and since.isoformat(),
            "parent": parent and str(parent),
            "cursor": cursor,
            "limit": limit,
        }
        params = {name: value for name, value in wanted.items() if value is not None}
        return JobPage.model_validate(self._call("GET", "/v1/jobs", params=params))

    def _call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        with reaching(self.base_url):
            response = self._http.request(
                method, path, json=json, params=params, headers={**self._key, **(headers or {})}
            )
        check(response)
        return response.json() if response.content else None


def _job(job_id: UUID | str) -> str:
    return f"/v1/jobs/{quote(str(job_id), safe='')}"
