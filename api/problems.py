"""Problems: every error as ``application/problem+json``, with a code for programs and a hint for people.

Codes, titles and hints are those of ``stoker.errors``; the framework's own errors are given one of them here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from api import shown
from api.fal import errors as fal_errors
from stoker.depth import MAX_DEPTH
from stoker.errors import (
    InvalidInput,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    QueueFull,
    RateLimited,
    StokerError,
    Unauthenticated,
    Unavailable,
)

MEDIA_TYPE = "application/problem+json"
TYPE_BASE = "urn:stoker:error:"
RETRY_AFTER_S = 2
METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
SCHEMA: dict[str, Any] = {
    "description": "docs/errors.md has every code.",
    "type": "object",
    "required": ["type", "code", "title", "status", "detail", "hint", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "code": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "hint": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "description": "Of code invalid_input: what is wrong, and where.",
            "type": "array",
            "items": {
                "type": "object",
                "required": ["loc", "msg", "type"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "msg": {"type": "string"},
                    "type": {"type": "string"},
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}
"""A problem's body, as the OpenAPI document shows it."""


class MethodNotAllowed(InvalidRequest):
    """The path exists, the method does not."""

    code, title, status = "method_not_allowed", "This path does not know that method", 405
    hint = "The Allow header names the methods; /openapi.json has them all."


def install(app: FastAPI) -> None:
    """Answer every exception that a route raises on purpose."""
    app.add_exception_handler(StokerError, _on_stoker_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_exception)


def problem(error: StokerError, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
    """``error`` as a response."""
    body: dict[str, Any] = {
        "type": f"{TYPE_BASE}{error.code}",
        "code": error.code,
        "title": error.title,
        "status": error.status,
        "detail": str(error),
        "hint": error.hint,
        "request_id": request_id,
    }
    if isinstance(error, InvalidInput):
        body["errors"] = error.errors
    extra = dict(headers or {})
    if isinstance(error, Unauthenticated):
        extra["www-authenticate"] = "Key"
    if isinstance(error, Unavailable | QueueFull):
        extra["retry-after"] = str(RETRY_AFTER_S)
    if isinstance(error, RateLimited):
        extra["retry-after"] = str(math.ceil(error.retry_after_s))
    return Response(orjson.dumps(body, default=str), error.status, extra, MEDIA_TYPE)


def refusal(error: StokerError, scope: Scope, headers: Mapping[str, str] | None = None) -> Response:
    """``error`` as the face that was asked says it: a problem, or what fal's clients read."""
    if not scope["path"].startswith(fal_errors.PATHS):
        return problem(error, scope.get("state", {}).get("request_id", ""), headers)
    answer = fal_errors.of_request(error)
    return Response(orjson.dumps(answer.body), answer.status, {**(headers or {}), **answer.headers}, "application/json")


def request_id_of(request: Request) -> str:
    request_id: str = request.scope.get("state", {}).get("request_id", "")
    return request_id


async def _on_stoker_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StokerError)  # noqa: S101 - Starlette calls it for nothing else
    return refusal(error, request.scope)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    found = error.errors()
    if any(entry["type"] == "json_invalid" for entry in found):
        where = next(entry for entry in found if entry["type"] == "json_invalid")
        reason = InvalidRequest(
            f"the body is not JSON that can be accepted: {where.get('ctx', {}).get('error', where['msg'])}",
            hint=f"Send one JSON object in UTF-8, at most {MAX_DEPTH} levels deep. NaN and Infinity are not JSON.",
        )
        return problem(reason, request_id_of(request))
    return problem(_invalid_request(found), request_id_of(request))


def _invalid_request(found: Sequence[Mapping[str, Any]]) -> InvalidInput:
    entries = [{"loc": list(entry["loc"]), "msg": entry["msg"], "type": entry["type"]} for entry in found]
    places = ", ".join(".".join(str(part) for part in entry["loc"]) for entry in entries[:5])
    return InvalidInput(
        f"the request cannot be read: {places}",
        errors=entries,
        hint="Each entry of errors names a place and what is wrong there; the request's form is in /openapi.json.",
    )


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    headers = error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"allow": ", ".join(_allowed(request))}
    return refusal(from_http(error, request), request.scope, headers)


def _allowed(request: Request) -> list[str]:
    """All methods of the path: the framework names those of its first route alone."""
    routes = request.app.router.routes
    return [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def from_http(error: HTTPException, request: Request) -> StokerError:
    """What the framework says on its own account, as an error of ours."""
    path = shown.path(request.scope)[:200]
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFound(f"nothing is at {path!r}", hint="/openapi.json lists every path.")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed(f"{path!r} does not know {request.method}")
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return PayloadTooLarge(error.detail)
    if error.status_code == HTTPStatus.UNAUTHORIZED:
        return Unauthenticated(error.detail)
    return InvalidRequest(error.detail)
