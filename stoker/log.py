"""Logs: one line for each change of state, for the operator, on standard error.

``configure`` is called once by an entry point; modules take ``log.get(__name__)`` and write an event name with fields.
Lines of libraries (uvicorn, celery, sqlalchemy) take the same form. Nothing here decides what is logged.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, Literal

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

SECRET_NAMES = re.compile(r"(?i)(authorization|secret|password|api_key|access_key|token|database_url|redis_url)")
URL_PASSWORD = re.compile(r"(?P<before>[a-z0-9+]+://[^/\s:@]*:)[^@\s/]+@")


def get(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def about(**names: str | int) -> AbstractContextManager[None]:
    """Have each line of this task, and of the tasks begun in the context, carry ``names``: whose work it is."""
    return structlog.contextvars.bound_contextvars(**names)


def note(**names: str | int) -> None:
    """Have the rest of this task's lines carry ``names`` that were not known when it began."""
    structlog.contextvars.bind_contextvars(**names)


def configure(log_format: Literal["auto", "json", "text"], *, service: str, level: int = logging.INFO) -> None:
    """Send every log line of this process to standard error: text on a terminal, else JSON (``auto``)."""
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        _name_service(service),
        redact,
    ]
    rendering: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_json)]
        if as_json
        # The default one prints every local variable, keys and prompts among them.
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blot out values that are secret by their name, and passwords inside URLs."""
    return {name: _redacted(name, value) for name, value in event.items()}


def _redacted(name: str, value: Any) -> Any:
    if _is_secret(name):
        return "***"
    if isinstance(value, str) and "://" in value:
        return URL_PASSWORD.sub(r"\g<before>***@", value)
    return value


@lru_cache(maxsize=1000)
def _is_secret(name: str) -> bool:
    return SECRET_NAMES.search(name) is not None


def _json(event: EventDict, **_: object) -> str:
    try:
        return orjson.dumps(event, default=repr).decode()
    except TypeError:  # what it has no form for: a key that is no text, a number beyond 64 bits, half a surrogate
        return json.dumps(event, default=repr)


def _name_service(service: str) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    return add
