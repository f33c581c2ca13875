"""An app's own OpenAPI document: how its endpoints are called through ``POST /v1/jobs``.

Pure: no I/O. Schemas that an endpoint defines for itself ($defs) move to the document's components, under the
endpoint's name, since a reference inside an OpenAPI document begins at the document's root.
"""

from __future__ import annotations

import re
from typing import Any

from api import openapi
from api.answers import refused
from api.bodies import NewJobBody
from stoker.apps import AppRow
from stoker.errors import Forbidden, QueueFull, RateLimited, UnknownApp
from stoker.manifest import EndpointManifest

KEY: list[dict[str, list[str]]] = [{"key": []}]
DEFS = "#/$defs/"
REFUSES = (Forbidden, UnknownApp, RateLimited, QueueFull)


def app_openapi(app: AppRow, base_url: str) -> dict[str, Any]:
    """The document."""
    schemas: dict[str, Any] = {}
    bodies = [_body(app.app, endpoint, schemas) for endpoint in app.endpoints]
    results = [_hoist(endpoint.output_schema, f"{_name(endpoint)}Output", schemas) for endpoint in app.endpoints]
    document = {
        "openapi": "3.1.0",
        "info": {"title": app.title or app.app, "description": app.description, "version": app.version},
        "servers": [{"url": base_url}],
        "paths": {
            "/v1/jobs": {
                "post": {
                    "operationId": "submit",
                    "security": KEY,
                    "summary": f"Submit a job to {app.app}",
                    "requestBody": {"required": True, "content": {"application/json": {"schema": {"oneOf": bodies}}}},
                    "responses": {
                        "202": {"description": "Accepted", "content": {"application/json": {"schema": _job(results)}}},
                        **{str(status): told for status, told in refused(*REFUSES).items()},
                    },
                }
            }
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "Authorization"}},
        },
    }
    openapi.complete(document)
    return document


def _body(app: str, endpoint: EndpointManifest, schemas: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": endpoint.summary or f"{app}{endpoint.path}",
        "type": "object",
        "required": ["app", "input", *(["endpoint"] if endpoint.path != "/" else [])],
        "additionalProperties": False,
        "properties": {
            **NewJobBody.model_json_schema()["properties"],
            "app": {"const": app},
            "endpoint": {"const": endpoint.path, "default": "/"},
            "input": _hoist(endpoint.input_schema, f"{_name(endpoint)}Input", schemas),
        },
    }


def _job(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "state": {"type": "string"},
            "result": {"anyOf": [*results, {"type": "null"}]},
        },
    }


def _hoist(schema: dict[str, Any], name: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """Put ``schema`` and its definitions into ``schemas``; a reference to it."""
    own = {key: value for key, value in schema.items() if key != "$defs"}
    for inner, definition in schema.get("$defs", {}).items():
        schemas[f"{name}.{inner}"] = _moved(definition, name)
    schemas[name] = _moved(own, name)
    return {"$ref": f"#/components/schemas/{name}"}


def _moved(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {
            key: f"#/components/schemas/{name}.{inner[len(DEFS) :]}"
            if key == "$ref" and isinstance(inner, str) and inner.startswith(DEFS)
            else _moved(inner, name)
            for key, inner in value.items()
        }
    return [_moved(inner, name) for inner in value] if isinstance(value, list) else value


def _name(endpoint: EndpointManifest) -> str:
    return "".join(part.capitalize() for part in re.findall(r"[A-Za-z0-9]+", endpoint.path)) or "Main"
