"""The edge: what every request meets first and every response passes last.

A request id, a log line, metrics, and the answer to what nobody expected: 503 while Postgres is away or refuses for
now, else 500.
"""

from __future__ import annotations

import re
import time
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import shown
from api.fal.errors import PATHS
from api.metrics import Metrics
from api.problems import refusal
from stoker import log
from stoker.database import is_passing
from stoker.errors import StokerError, Unavailable

REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
JOB_ID = re.compile(r"[0-9A-Fa-f-]{32,36}")
"""Anything else in its place may be a key that somebody took for one."""
GONE = 499
"""How the log and the metrics name a request whose client left before the answer."""
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})

logger = log.get(__name__)


class Edge:
    """ASGI middleware, outside of all but what answers browsers for pages of other origins."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        began, status = time.perf_counter(), 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=message["headers"])
                headers["x-request-id"] = request_id
                if scope["path"].startswith(PATHS):
                    headers.setdefault("x-fal-request-id", request_id)
                headers.setdefault("x-content-type-options", "nosniff")
                headers.setdefault("cache-control", "no-store")
                self._metrics.seconds.labels(scope["method"], _route(scope)).observe(time.perf_counter() - began)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_on)
            except ClientDisconnect:
                status = GONE
            except Exception as error:
                # The one place where any exception may end: a caller always gets an answer with the request's id.
                if status:
                    logger.exception("response_broken", path=shown.path(scope), **_names(scope))
                    raise
                await refusal(_unexpected(error, scope), scope)(scope, receive, send_on)
            finally:
                self._metrics.requests.labels(scope["method"], _route(scope), str(status)).inc()
                if scope["path"] not in QUIET:
                    taken = round((time.perf_counter() - began) * 1000, 1)
                    names = _names(scope)
                    logger.info(
                        "request",
                        method=scope["method"],
                        path=shown.path(scope),
                        status=status,
                        duration_ms=taken,
                        **names,
                    )


def _unexpected(error: Exception, scope: Scope) -> StokerError:
    if is_passing(error):
        logger.warning(
            "postgres_lost", path=shown.path(scope), reason=str(error)[:200], next="answered 503", **_names(scope)
        )
        return Unavailable("Postgres cannot be reached, or is too busy")
    logger.error("unexpected_error", path=shown.path(scope), exc_info=error, **_names(scope))
    return StokerError("an unexpected error; the log has it under this request id")


def _route(scope: Scope) -> str:
    """The route's pattern: a label with ids in it would grow without bound."""
    return getattr(scope.get("route"), "path", "") or "none"


def _names(scope: Scope) -> dict[str, str]:
    """The job that the path names."""
    job_id = str(scope.get("path_params", {}).get("job_id", ""))
    return {"job_id": job_id} if JOB_ID.fullmatch(job_id) else {}
