"""The API's OpenAPI document: what the framework knows of the routes, and what is true of all of them.

Every refusal is a problem; a key that is asked for may be none, not allowed, or used too often; an engine may be away.
What a route refuses for reasons of its own it says itself (``api.answers``).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from api import problems
from api.answers import Events
from stoker.errors import (
    InvalidInput,
    InvalidRequest,
    PayloadTooLarge,
    RateLimited,
    StokerError,
    Unauthenticated,
    Unavailable,
)

PROBLEM = "#/components/schemas/Problem"
NO_STORE = ("/healthz", "/readyz")
"""Paths that answer without Postgres, or say for themselves that it is away."""
FRAMEWORKS = ("HTTPValidationError", "ValidationError")
"""The framework's own form of a refusal, which is never sent."""

HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {"description": "It stands in the log.", "required": True, "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "integer"}},
    "WWW-Authenticate": {"required": True, "schema": {"const": "Key"}},
}
COMES_WITH = {"401": "WWW-Authenticate", "429": "Retry-After", "503": "Retry-After"}
"""What a refusal has besides the request's id, which every answer has."""


def install(app: FastAPI) -> None:
    """Have ``/openapi.json`` answer with it."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the framework's way to replace it


def document(app: FastAPI) -> dict[str, Any]:
    """The document, made anew."""
    found = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schemas = found["components"]["schemas"]
    for name in FRAMEWORKS:
        schemas.pop(name, None)
    schemas |= _of_shape("Events", Events)
    complete(found)
    whole: dict[str, Any] = _plain(found)
    return whole


def complete(document: dict[str, Any]) -> None:
    """Say in a document of routes of ours what is true of all of them."""
    document["components"]["headers"] = HEADERS
    document["components"]["schemas"]["Problem"] = problems.SCHEMA
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete(path, operation)


def _complete(path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    for stream in (response.get("content", {}).get("text/event-stream", {}) for response in responses.values()):
        stream.pop("schema", None)  # the framework's: each event has a form of its own
    for error in _of_all(path, operation):
        responses.setdefault(str(error.status), {"description": error.title})
    for status, response in responses.items():
        names = ["X-Request-Id", *(name for at, name in COMES_WITH.items() if at == status)]
        shown = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
        response["headers"] = {**response.get("headers", {}), **shown}
        if int(status) >= HTTPStatus.BAD_REQUEST and path not in NO_STORE:
            response["content"] = {problems.MEDIA_TYPE: {"schema": {"$ref": PROBLEM}}}
        if status == str(InvalidInput.status) and response["description"] == "Validation Error":
            response["description"] = "A parameter or the body is not of the form that is shown here"


def _of_all(path: str, operation: dict[str, Any]) -> list[type[StokerError]]:
    told: list[type[StokerError]] = []
    if path not in NO_STORE:
        told.append(Unavailable)
    if operation.get("security"):
        told += [Unauthenticated, RateLimited]
    if "requestBody" in operation:
        told += [InvalidRequest, InvalidInput, PayloadTooLarge]
    return told


def _of_shape(name: str, shape: type[Any]) -> dict[str, Any]:
    """A shape that no route has as its one answer, with what it is made of."""
    schema = TypeAdapter(shape).json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs", {}), name: schema}


def _plain(value: Any) -> Any:
    """References without what the framework puts beside them, which is of the type that a route's function has."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            return {"$ref": value["$ref"]}
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
