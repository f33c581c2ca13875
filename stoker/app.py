"""App and endpoint: what a user writes to serve a model.

Knows nothing of processes: the app host (``worker_node.apphost``) imports the class, reads its manifest, calls its
endpoints and fills in ``Call``, through which an endpoint reaches its ranks and the job's events. Mistakes fail when
the class is defined (``stoker.definition``).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel

from stoker.definition import Endpoint, check, endpoint, find_endpoints, manifest_of
from stoker.errors import AppError
from stoker.events import EventKind
from stoker.files import File
from stoker.manifest import Manifest

__all__ = ["App", "Call", "current_call", "endpoint"]


class Call(Protocol):
    """What the app host offers an endpoint while it serves one job."""

    async def run(self, payload: Mapping[str, Any]) -> Any:
        """Give ``payload`` to every rank; rank 0's result."""

    async def fetch(self, url: str) -> Path:
        """Bring what ``url`` names to this machine."""

    async def call(
        self, app: str, request: BaseModel | Mapping[str, Any], endpoint: str, key: str | None
    ) -> dict[str, Any]:
        """Have another app's job done; its result."""

    def emit(self, kind: EventKind, data: Mapping[str, Any]) -> None:
        """Add an event to the job."""


current_call: ContextVar[Call] = ContextVar("stoker_call")
"""Set by the app host around each call, so that two calls never meet; a call's tasks and threads inherit it."""


class App:
    """What a node serves under a name: endpoints, and a worker class for its ranks if it has any.

    Attributes:
        name: ``owner/alias``.
        worker: the ``DistributedWorker`` class, or ``"package.module:Class"`` where importing it is heavy. An app
            without one has no ranks.
        num_gpus: how many ranks it wants, one a GPU.
        setup_args: keyword arguments of the worker's ``setup``. A text may be set for one node by the environment:
            ``STOKER_TEXT_TO_IMAGE_MODEL`` is ``model`` of ``.../text-to-image``.
        min_runners: 1 starts the ranks with the node, 0 at the first job.
        keep_alive: seconds that idle ranks stay warm; None for as long as the node lives.
        store_io: False has inputs and results removed soon after a job's end, unless the request says otherwise.
        keep_outputs: seconds after a job's end that its outputs are kept, unless the request says otherwise; None for
            as long as the installation keeps any.
        max_multiplexing: how many calls that need no GPU one node serves at a time. Ranks serve one.
        owns_ranks: its own ``setup`` makes and starts them, as those of apps written for fal do (stoker.compat.fal).
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    description: ClassVar[str] = ""
    worker: ClassVar[type | str | None] = None
    num_gpus: ClassVar[int] = 0
    setup_args: ClassVar[Mapping[str, Any]] = {}
    min_runners: ClassVar[int] = 1
    keep_alive: ClassVar[float | None] = None
    max_multiplexing: ClassVar[int] = 4
    owns_ranks: ClassVar[bool] = False
    store_io: ClassVar[bool] = True
    keep_outputs: ClassVar[float | None] = None

    endpoints: ClassVar[Mapping[str, Endpoint]] = {}

    def __init_subclass__(cls, *, is_base: bool = False) -> None:
        super().__init_subclass__()
        if not is_base:
            check(cls, App)
            cls.endpoints = find_endpoints(cls)

    @classmethod
    def manifest(cls) -> Manifest:
        """What callers may know of this app."""
        description = cls.description or cls.__doc__ or ""
        shown = manifest_of(cls.name, cls.title, description, cls.num_gpus, cls.endpoints.values())
        return replace(shown, store_io=cls.store_io, keep_outputs_s=cls.keep_outputs)

    async def setup(self) -> None:
        """Prepare this app's process, before the first call. Ranks have a ``setup`` of their own."""

    async def teardown(self) -> None:
        """Tidy up, before an orderly end."""

    async def run(self, request: BaseModel | Mapping[str, Any], **extra: Any) -> Any:
        """Call the worker on every rank with the request's fields and ``extra`` as keyword arguments; rank 0's result.

        Each streamed result of a rank becomes a progress event of the job, with previews where it holds pictures. A
        File reaches the ranks as its path; pictures, arrays and paths in the result come back as Files.

        Raises:
            AppError: a rank raised; ``type_name`` and ``traceback`` are its own.
            WorkerCrashed: a rank died. The next call finds fresh ones.
            JobCancelled: the job was cancelled. Let it pass.
        """
        return await _call().run({**_plain(request), **extra})

    async def call(
        self, app: str, request: BaseModel | Mapping[str, Any], endpoint: str = "/", *, key: str | None = None
    ) -> dict[str, Any]:
        """Have ``app`` do a job and wait for it; its result, with each File as a File that can be fetched or passed on.

        The job is a child of this one. It is known by ``app``, ``endpoint`` and ``key``, or the input where there is no
        key: another attempt of this job finds it, whether it still runs or has succeeded, and does not start it again.
        Only endpoints that hold no GPUs may call.

        Raises:
            ChildFailed: the child failed; ``child_id``, ``error_type`` and ``error_message`` say which and why. The
                same call starts it anew.
            ChildCancelled: somebody cancelled it.
            CallRefused: there is no such app, the request breaks its schema, or calls are too deep already.
        """
        return await _call().call(app, request, endpoint, key)

    async def fetch(self, file: File) -> Path:
        """Bring a File to this machine: for links that the endpoint made. Those of its request are here already."""
        return file.path if isinstance(file.source, Path) else file.at(await _call().fetch(file.url)).path

    def progress(self, **data: Any) -> None:
        """Tell how far the job is: ``step``, ``total``, ``eta_s`` are shown by every client, more is yours."""
        _call().emit(EventKind.PROGRESS, data)

    def log(self, message: str) -> None:
        """Add a line to the job's log."""
        _call().emit(EventKind.LOG, {"message": str(message)})


def _call() -> Call:
    try:
        return current_call.get()
    except LookupError:
        raise AppError(
            "run, call, fetch, progress and log belong to a job, and none is being served here",
            hint="Call them inside an endpoint. A thread of your own needs 'contextvars.copy_context().run', "
            "which asyncio.to_thread does for you.",
        ) from None


def _plain(value: Any) -> Any:
    """``value`` without pydantic: models as dicts, Files as paths."""
    if isinstance(value, File):
        return value.path
    if isinstance(value, BaseModel):
        return {name: _plain(field) for name, field in value}
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value) if type(value) in (list, tuple) else list(map(_plain, value))
    return value
