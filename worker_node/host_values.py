"""What goes into an app host and what comes out of it, as values. ``host`` and the executor use them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from stoker.errors import WorkerCrashed
from stoker.events import EventKind

HostState = Literal["starting", "ready", "down"]
RunnerState = Literal["none", "starting", "warm", "busy", "rebuilding", "broken"]

_SECRET_NAMES = ("DATABASE_URL", "REDIS_URL")
_SECRET_BEGINNINGS = ("S3_", "AWS_", "PG", "CELERY_")


@dataclass(frozen=True)
class AppSpec:
    """Which app to serve and with what.

    ``world_size`` None is the app's ``num_gpus``. ``spool`` is a folder of this host alone. ``env`` is the child's
    whole environment: what could reach an engine is taken out of it.

    ``alone_s``: while one call at a time is served, one that waits for another app is alone for so long: it may be at
    work, too, and what kills the process then is its doing. After that it makes room, perhaps for the very job that it
    waits for.
    """

    import_string: str
    world_size: int | None
    spool: Path
    env: Mapping[str, str]
    alone_s: float = 5.0


@dataclass(frozen=True)
class HostStatus:
    """An app host at one moment. ``restarts`` counts processes that had to be replaced."""

    state: HostState
    runner: RunnerState
    pid: int | None
    rank_pids: tuple[int, ...]
    restarts: int


@dataclass(frozen=True)
class HostEvent:
    """An event of a call. ``data`` is JSON; ``rank`` is in it too where there is one."""

    kind: EventKind
    rank: int | None
    data: dict[str, Any]


@dataclass(frozen=True)
class LocalFile:
    """A File that an app made. ``pointer`` is the JSON pointer of its place in a result or a request.

    ``metadata`` are its own fields.
    """

    pointer: str
    path: Path
    file_name: str
    content_type: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class AppCall:
    """What an endpoint asks of another app. ``key`` stands for the input in the name of the job that it becomes.

    ``files`` lie in the spool, and have no links in ``input`` yet.
    """

    app: str
    endpoint: str
    input: dict[str, Any]
    key: str | None
    files: tuple[LocalFile, ...] = ()


@dataclass(frozen=True)
class AppAnswer:
    """What came of it. ``files`` are the JSON pointers of the Files in ``result``."""

    result: dict[str, Any]
    files: tuple[str, ...]


@dataclass(frozen=True)
class HostCall:
    """One call. ``fetch`` brings what a File's url names into the spool; ``on_event`` must not block.

    ``call_app`` has another app's job done; it is cancelled when nobody waits for that any more.
    """

    call_id: str
    endpoint: str
    input: dict[str, Any]
    job_id: UUID
    attempt: int
    on_event: Callable[[HostEvent], None]
    fetch: Callable[[str], Awaitable[Path]]
    call_app: Callable[[AppCall], Awaitable[AppAnswer]]

    @property
    def names(self) -> dict[str, str | int]:
        """What log lines about this call carry."""
        return {"job_id": str(self.job_id), "attempt": self.attempt}


@dataclass(frozen=True)
class HostResult:
    """What a call gave. Files stand in ``result`` without a url; their bytes lie in ``folder``, the caller's to remove.

    ``warm``: the ranks were there. ``peak_memory_bytes``: of the ranks' host memory, since they started.
    """

    result: dict[str, Any]
    files: tuple[LocalFile, ...]
    cold_start_s: float
    run_s: float
    warm: bool
    peak_memory_bytes: int | None
    folder: Path


class AppReplaced(WorkerCrashed):
    """The node itself ended the app's process, because of another call. The job did nothing wrong: it is given back."""

    code, title, retryable, crash = "app_replaced", "The app's process was replaced", True, False
    hint = "Another call of this app did not heed its cancel; the node's log names its job."


def without_credentials(env: Mapping[str, str]) -> dict[str, str]:
    """``env`` without what opens an engine or is a key of ours."""
    return {
        name: value
        for name, value in env.items()
        if name not in _SECRET_NAMES
        and not name.startswith(_SECRET_BEGINNINGS)
        and not (name.startswith("STOKER_") and ("KEY" in name or "SECRET" in name or "TOKEN" in name))
    }
