"""App and endpoint for app files that were written for fal: with their imports changed they run here.

The class's own ``setup`` makes and starts its runner, with the node's GPUs for the app when their turn has come; its
endpoints call the runner themselves. ``ATTRIBUTES`` says what becomes of each setting; docs/from-fal.md shows it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from stoker import app as native
from stoker.compat.fal.streams import Response, result_of
from stoker.errors import AppDefinitionError

OWNER = "local"
ANSWERS = {"Response", "StreamingResponse", "EventSourceResponse"}
"""Return annotations that say nothing about the result."""
ATTRIBUTES = {
    "num_gpus": "honoured",
    "keep_alive": "honoured",
    "app_name": "mapped",
    "min_concurrency": "mapped",
    "request_timeout": "mapped",
    "max_concurrency": "ignored",
    "max_multiplexing": "honoured",
    "concurrency_buffer": "ignored",
    "concurrency_buffer_perc": "ignored",
    "scaling_delay": "ignored",
    "startup_timeout": "ignored",
    "machine_type": "ignored",
    "requirements": "ignored",
    "local_python_modules": "ignored",
    "image": "ignored",
    "regions": "ignored",
    "app_auth": "ignored",
    "host_kwargs": "ignored",
}

log = logging.getLogger("stoker.compat.fal")


class App(native.App, is_base=True):
    """A fal app. Its name is ``local/`` and the class's name in small letters, unless ``app_name`` says another."""

    app_name: ClassVar[str] = ""
    machine_type: ClassVar[Any] = None
    requirements: ClassVar[Any] = ()
    min_concurrency: ClassVar[int] = 0
    request_timeout: ClassVar[float | None] = None

    def __init_subclass__(cls, *, name: str = "", **settings: Any) -> None:
        for key, value in settings.items():
            setattr(cls, key, value)
        alias = name or cls.app_name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", cls.__name__)
        cls.name = (alias if "/" in alias else f"{OWNER}/{alias}").lower()
        cls.owns_ranks = cls.num_gpus > 0
        cls.min_runners = int(cls.min_concurrency > 0)
        for method in ("setup", "teardown"):
            if method in vars(cls) and not inspect.iscoroutinefunction(vars(cls)[method]):
                setattr(cls, method, _in_thread(vars(cls)[method]))
        super().__init_subclass__()
        if (limit := cls.request_timeout) is not None:
            cls.endpoints = {
                path: replace(found, options=replace(found.options, run_timeout_s=float(limit)))
                for path, found in cls.endpoints.items()
            }
        unused = [key for key in (*settings, *vars(cls)) if ATTRIBUTES.get(key) == "ignored"]
        if unused:
            log.warning("%s: these settings of fal's mean nothing here: %s", cls.name, ", ".join(dict.fromkeys(unused)))


def endpoint(path: str, *, is_websocket: bool = False, **unused: Any) -> Callable[[Any], Any]:
    """Make a method of an App callable by jobs; a ``Response`` that it wants is given, and not sent."""
    if is_websocket:
        raise AppDefinitionError(f"endpoint {path} is a websocket", hint="Stream with StreamingResponse instead.")
    if unused:
        log.warning("endpoint %s: these settings of fal's mean nothing here: %s", path, ", ".join(unused))

    def mark(method: Any) -> Any:
        myself, *taken = inspect.signature(method).parameters.values()
        extra = [parameter.name for parameter in taken[1:] if _last_word(parameter.annotation) == "Response"]
        call = method if inspect.iscoroutinefunction(method) else _in_thread(method)

        @functools.wraps(method)
        async def serve(self: Any, *given: Any, **named: Any) -> Any:
            named |= {name: Response() for name in extra[max(len(given) - 1, 0) :] if name not in named}
            answer = await call(self, *given, **named)
            return await result_of(answer) if hasattr(answer, "body_iterator") else answer

        known = {parameter.name: parameter.annotation for parameter in taken[:1]}
        if _last_word(returns := inspect.signature(method).return_annotation) not in ANSWERS | {"_empty"}:
            known["return"] = returns
        serve.__annotations__ = known
        serve.__signature__ = inspect.Signature([myself, *taken[:1]])  # type: ignore[attr-defined] # inspect reads it
        return native.endpoint(path)(serve)

    return mark


def _in_thread(method: Any) -> Any:
    @functools.wraps(method)
    async def call(*given: Any, **named: Any) -> Any:
        return await asyncio.to_thread(method, *given, **named)

    return call


def _last_word(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return text.rpartition(".")[2]
