"""Definition: what makes a class an app that can be served, checked when the class is made.

Pure: reads classes, runs nothing of theirs. ``stoker.app`` calls it. Each mistake is an ``AppDefinitionError`` with a
hint.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, RootModel
from pydantic.errors import PydanticUserError
from pydantic.json_schema import JsonSchemaMode

from stoker.errors import AppDefinitionError
from stoker.files import File
from stoker.manifest import MOST_KEPT_S, EndpointKind, EndpointManifest, Manifest

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}/[a-z0-9][a-z0-9_-]{0,62}")
PATH = re.compile(r"/([a-z0-9_-]+(/[a-z0-9_-]+)*)?", re.IGNORECASE)
WORKER = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")
DEFAULT_RUN_TIMEOUT_S: Mapping[EndpointKind, float] = {"inference": 600.0, "training": 86_400.0}
MOST_CALLS = 100
_MARK = "__stoker_endpoint__"

Method = TypeVar("Method", bound=Callable[..., Coroutine[Any, Any, Any]])


@dataclass(frozen=True)
class Options:
    """What the decorator was given."""

    path: str
    kind: EndpointKind
    run_timeout_s: float
    start_timeout_s: float | None
    stall_timeout_s: float | None
    max_attempts: int
    num_gpus: int | None


@dataclass(frozen=True)
class Endpoint:
    """One endpoint of an app: the method, its models and its limits. ``response`` is None where a dict is returned."""

    method: str
    request: type[BaseModel]
    response: type[BaseModel] | None
    options: Options
    uses_gpus: bool
    summary: str


def endpoint(
    path: str,
    *,
    kind: EndpointKind = "inference",
    run_timeout: float | None = None,
    start_timeout: float | None = None,
    stall_timeout: float | None = None,
    max_attempts: int = 1,
    num_gpus: int | None = None,
) -> Callable[[Method], Method]:
    """Make an async method of an App callable by jobs.

    Args:
        path: begins with a slash.
        kind: "inference" or "training".
        run_timeout: seconds a job may run; 600, or a day for training.
        start_timeout: seconds a job may wait to be started; None for ever.
        stall_timeout: seconds a job may be silent; None for ever.
        max_attempts: how often a job is tried whose code raises. Lost nodes and crashes have their own count.
        num_gpus: 0 for an endpoint that never calls ``run``: it holds no slot. Otherwise leave it out.
    """
    if not isinstance(path, str):
        raise AppDefinitionError("endpoint needs a path", hint='Write @endpoint("/") with the parentheses.')
    if not PATH.fullmatch(path):
        hint = 'A path is "/" or like "/train": letters, digits, - and _ after each slash.'
        raise AppDefinitionError(f"{path!r} cannot be the path of an endpoint", hint=hint)
    if kind not in get_args(EndpointKind):
        raise AppDefinitionError(f"endpoint {path}: kind is {kind!r}", hint='It is "inference" or "training".')
    for name, seconds in (("run", run_timeout), ("start", start_timeout), ("stall", stall_timeout)):
        if seconds is not None and not (_is_number(seconds) and seconds > 0):
            raise AppDefinitionError(f"endpoint {path}: {name}_timeout is {seconds!r}", hint="Seconds, more than 0.")
    if not isinstance(max_attempts, int) or max_attempts < 1:
        raise AppDefinitionError(f"endpoint {path}: max_attempts is {max_attempts!r}", hint="It is 1 or more.")
    if num_gpus not in (None, 0):
        hint = "Leave it out for the app's own num_gpus, or set it to 0 for an endpoint that never calls run."
        raise AppDefinitionError(f"endpoint {path}: num_gpus is {num_gpus!r}", hint=hint)
    run_timeout_s = DEFAULT_RUN_TIMEOUT_S[kind] if run_timeout is None else float(run_timeout)
    options = Options(path, kind, run_timeout_s, start_timeout, stall_timeout, max_attempts, num_gpus)

    def mark(method: Method) -> Method:
        setattr(method, _MARK, options)
        return method

    return mark


def check(cls: type, base: type) -> None:
    """Look at everything but the endpoints.

    Raises:
        AppDefinitionError: ``cls`` cannot be served.
    """
    where, values = cls.__qualname__, {name: getattr(cls, name, None) for name in base.__annotations__}
    name, worker, num_gpus, args = (values[key] for key in ("name", "worker", "num_gpus", "setup_args"))
    if not isinstance(name, str):
        raise AppDefinitionError(f"{where} has no name", hint='Add: name = "owner/alias".')
    if not NAME.fullmatch(name):
        hint = "A name is owner/alias: small letters, digits, - and _, at most 63 each."
        raise AppDefinitionError(f"{where}: {name!r} cannot be an app's name", hint=hint)
    if not isinstance(num_gpus, int) or num_gpus < 0:
        raise AppDefinitionError(f"{where}: num_gpus is {num_gpus!r}", hint="It is a whole number.")
    if worker is not None and num_gpus == 0:
        raise AppDefinitionError(
            f"{where} has a worker but no num_gpus", hint="Add how many ranks it wants: num_gpus = 1."
        )
    if worker is None and num_gpus > 0 and not values["owns_ranks"]:
        hint = "Name the DistributedWorker class: worker = MyWorker. An app without one has no ranks."
        raise AppDefinitionError(f"{where} wants {num_gpus} GPUs but has no worker", hint=hint)
    _check_worker(where, worker)
    if not isinstance(args, Mapping) or not all(isinstance(key, str) for key in args):
        hint = "It is a dict: the keyword arguments of the worker's setup."
        raise AppDefinitionError(f"{where}: setup_args is {args!r}", hint=hint)
    if values["min_runners"] not in (0, 1):
        raise AppDefinitionError(f"{where}: min_runners is {values['min_runners']!r}", hint="It is 0 or 1.")
    keep_alive = values["keep_alive"]
    if keep_alive is not None and not (_is_number(keep_alive) and keep_alive > 0):
        raise AppDefinitionError(f"{where}: keep_alive is {keep_alive!r}", hint="Seconds, or None for ever.")
    _check_kept(where, values["store_io"], values["keep_outputs"])
    calls = values["max_multiplexing"]
    if not isinstance(calls, int) or isinstance(calls, bool) or not 1 <= calls <= MOST_CALLS:
        hint = f"How many calls that need no GPU a node serves at a time: 1 to {MOST_CALLS}."
        raise AppDefinitionError(f"{where}: max_multiplexing is {calls!r}", hint=hint)
    for taken in ("run", "call", "fetch", "progress", "log", "manifest", "endpoints"):
        if taken in vars(cls):
            hint = f"App.{taken} is what an app calls; give yours another name."
            raise AppDefinitionError(f"{where} defines {taken}, which belongs to App", hint=hint)


def find_endpoints(cls: type) -> dict[str, Endpoint]:
    """The endpoints of an app class by path, its base classes' first.

    Raises:
        AppDefinitionError: one cannot be served, two share a path, or there is none.
    """
    members: dict[str, object] = {}
    for owner in reversed(cls.__mro__):
        members |= vars(owner)
    found: dict[str, Endpoint] = {}
    for name, method in members.items():
        options = getattr(method, _MARK, None)
        if not isinstance(options, Options) or not callable(method):
            continue
        if options.path in found:
            hint = f"{found[options.path].method} has it already: give one of them another path."
            raise AppDefinitionError(f"{cls.__qualname__}.{name}: the path {options.path} is taken", hint=hint)
        found[options.path] = _endpoint(cls, name, method, options)
    if not found:
        hint = 'Put @endpoint("/") before an async method.'
        raise AppDefinitionError(f"{cls.__qualname__} has no endpoint", hint=hint)
    return found


def manifest_of(app: str, title: str, description: str, num_gpus: int, endpoints: Iterable[Endpoint]) -> Manifest:
    """The face of an app; without a title it bears its alias."""
    return Manifest(
        app=app,
        title=title or app.partition("/")[2].replace("-", " ").replace("_", " ").capitalize(),
        description=inspect.cleandoc(description),
        num_gpus=num_gpus,
        endpoints=tuple(
            EndpointManifest(
                path=each.options.path,
                kind=each.options.kind,
                input_schema=each.request.model_json_schema(mode="validation"),
                output_schema=each.response.model_json_schema(mode="serialization") if each.response else {},
                uses_gpus=each.uses_gpus,
                run_timeout_s=each.options.run_timeout_s,
                start_timeout_s=each.options.start_timeout_s,
                stall_timeout_s=each.options.stall_timeout_s,
                max_attempts=each.options.max_attempts,
                summary=each.summary,
            )
            for each in endpoints
        ),
    )


def _endpoint(cls: Any, name: str, method: Callable[..., object], options: Options) -> Endpoint:
    where = f"{cls.__qualname__}.{name}"
    if not inspect.iscoroutinefunction(method):
        hint = "Write 'async def'; put slow calls in 'await asyncio.to_thread(...)' or in the worker."
        raise AppDefinitionError(f"{where} is not an async method", hint=hint)
    try:
        hints = get_type_hints(method)
    except NameError as error:
        hint = "Define the request and response models at the top of the module, before the app."
        raise AppDefinitionError(f"{where}: its annotations name something unknown: {error}", hint=hint) from error
    parameters = list(inspect.signature(method).parameters)[1:]
    request = hints.get(parameters[0]) if len(parameters) == 1 else None
    if not _is_object_model(request):
        hint = f"Write 'async def {name}(self, request: MyRequest) -> MyResponse', with two pydantic models."
        raise AppDefinitionError(f"{where} needs one parameter, annotated with a pydantic model", hint=hint)
    returns = hints.get("return", dict)
    response = returns if _is_object_model(returns) else None
    if response is None and (getattr(returns, "__origin__", returns)) not in (dict, Mapping, type(None), Any):
        hint = "Annotate a pydantic model or dict. Put a File, a list or a number in a field of a model."
        raise AppDefinitionError(f"{where} cannot return {returns!r}", hint=hint)
    _check_schema(where, request, "validation")
    if response is not None:
        _check_schema(where, response, "serialization")
    summary = inspect.cleandoc(method.__doc__ or "").partition("\n")[0]
    has_ranks = cls.worker is not None or cls.owns_ranks
    return Endpoint(name, request, response, options, has_ranks and options.num_gpus != 0, summary)


def _check_schema(where: str, model: type[BaseModel], mode: JsonSchemaMode) -> None:
    try:
        model.model_json_schema(mode=mode)
    except PydanticUserError as error:
        hint = "Callers see it as JSON: use types that JSON has, File for bytes, and models defined before the app."
        raise AppDefinitionError(f"{where}: {model.__name__} has no JSON Schema: {error.message}", hint=hint) from error


def _check_worker(where: str, worker: object) -> None:
    if worker is None or (isinstance(worker, str) and WORKER.fullmatch(worker)):
        return
    if isinstance(worker, str):
        raise AppDefinitionError(f"{where}: worker is {worker!r}", hint='As a text it is "package.module:Class".')
    if not isinstance(worker, type) or not hasattr(worker, "setup"):
        hint = "Name a subclass of worker_node.distributed.DistributedWorker."
        raise AppDefinitionError(f"{where}: {worker!r} cannot be a worker", hint=hint)
    if "<locals>" in worker.__qualname__:
        hint = "Ranks are processes of their own that import it: move it to the top of its module."
        raise AppDefinitionError(f"{where}: {worker.__qualname__} is defined inside a function", hint=hint)


def _check_kept(where: str, store_io: object, keep_outputs: object) -> None:
    if not isinstance(store_io, bool):
        raise AppDefinitionError(f"{where}: store_io is {store_io!r}", hint="It is True or False.")
    if keep_outputs is not None and not (_is_number(keep_outputs) and 0 < keep_outputs <= MOST_KEPT_S):
        raise AppDefinitionError(f"{where}: keep_outputs is {keep_outputs!r}", hint="Seconds, or None for no limit.")


def _is_object_model(found: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(found, type) and issubclass(found, BaseModel) and not issubclass(found, RootModel | File)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
