"""What the API answers, typed. Fields that a newer API adds are kept and come out of ``model_dump`` again."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from stoker.events import EventKind
from stoker.states import JobState


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class JobProblem(_Answer):
    """Why a job did not succeed. ``code`` is for programs, ``hint`` says what to do next."""

    code: str
    message: str = ""
    hint: str = ""


class Output(_Answer):
    """An object that a job stored. ``url`` stays valid as long as the output is kept."""

    url: str
    name: str = ""
    content_type: str | None = None
    file_size: int | None = Field(default=None, description="Bytes.")


class JobSummary(_Answer):
    """A job as a list shows it. Times are UTC."""

    id: UUID
    app: str
    endpoint: str = "/"
    state: JobState
    attempt: int = 0
    error: JobProblem | None = None
    progress: dict[str, Any] | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    served: bool = Field(default=True, description="Whether a live node serves the app.")
    outputs_expire_at: datetime | None = None
    outputs_removed_at: datetime | None = None
    payload_removed_at: datetime | None = Field(default=None, description="Since then it has no input and no result.")


class Job(JobSummary):
    """A job as GET /v1/jobs/{id} shows it."""

    input: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    outputs: tuple[Output, ...] = ()


class JobPage(_Answer):
    """Some jobs, newest first. ``next_cursor`` asks for the ones after them; None at the end."""

    jobs: tuple[JobSummary, ...]
    next_cursor: str | None = None


class AppInfo(_Answer):
    """An app that nodes publish."""

    app: str
    title: str = ""
    description: str = ""
    num_gpus: int = 0
    endpoints: tuple[dict[str, Any], ...] = ()
    live_nodes: int = 0


class UploadedFile(_Answer):
    """A stored input. Its ``id`` stands for it wherever an input wants a File."""

    id: str
    content_type: str | None = None
    file_name: str | None = None
    file_size: int | None = Field(default=None, description="Bytes.")


class StreamedEvent(BaseModel):
    """One event of a job. ``id`` is what a later stream continues after."""

    model_config = ConfigDict(frozen=True)

    id: str
    kind: EventKind
    data: dict[str, Any]

    @property
    def final_state(self) -> JobState | None:
        """The state in which the job ended, if this is its last event."""
        if self.kind is not EventKind.STATE:
            return None
        state = JobState(self.data["state"])
        return state if state.is_final else None


class JobsEvent(_Answer):
    """One event of many jobs' stream. A ``gap`` is of no job: events before the next one may be missing."""

    id: str
    kind: Literal["state", "log", "output", "gap"]
    job_id: UUID | None = None
    app: str | None = None
    seq: int | None = None
    created_at: datetime | None = None
    data: dict[str, Any] = Field(default_factory=dict)
