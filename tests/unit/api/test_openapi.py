"""The OpenAPI document says of every operation what it answers, also when it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from api.app import create_app
from api.openapi import document
from stoker.settings import ApiSettings

SETTINGS = ApiSettings.model_validate(
    {
        "database_url": "postgresql://nobody@nowhere/nothing",
        "redis_url": "redis://nowhere",
        "s3_endpoint_url": "http://nowhere",
        "s3_access_key_id": "nobody",
        "s3_secret_access_key": "nothing",
        "s3_bucket": "nothing",
        "s3_region": "nowhere",
    }
)
WITHOUT_POSTGRES = {"/healthz", "/readyz"}
OPEN_FORM = {"/v1/apps/{owner}/{alias}/openapi.json", "/metrics"}
"""What is answered there is of no form of ours."""


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return document(create_app(SETTINGS))


def operations(whole: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, found in whole["paths"].items():
        for method, operation in found.items():
            yield method, path, operation


def test_every_reference_leads_somewhere(whole: dict[str, Any]) -> None:
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(whole)))

    assert len(references) > 40
    for reference in references:
        kind, name = reference.removeprefix("#/components/").split("/")
        assert name in whole["components"][kind], reference
    assert "HTTPValidationError" not in whole["components"]["schemas"]


def test_every_refusal_is_a_problem_with_the_requests_id(whole: dict[str, Any]) -> None:
    refusals = 0
    for method, path, operation in operations(whole):
        for status, response in operation["responses"].items():
            assert "X-Request-Id" in response["headers"], (method, path, status)
            if int(status) >= 400 and path not in WITHOUT_POSTGRES:
                schema = response["content"]["application/problem+json"]["schema"]
                assert list(response["content"]) == ["application/problem+json"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (method, path, status)
                refusals += 1
    assert refusals > 150


def test_an_operation_that_asks_for_a_key_says_what_becomes_of_a_bad_one(whole: dict[str, Any]) -> None:
    for method, path, operation in operations(whole):
        statuses = set(operation["responses"])
        if operation.get("security"):
            assert {"401", "429"} <= statuses, (method, path)
        if path not in WITHOUT_POSTGRES:
            assert "503" in statuses, (method, path)
        if "requestBody" in operation:
            assert {"400", "413", "422"} <= statuses, (method, path)


def test_every_answer_has_a_form_that_names_its_fields(whole: dict[str, Any]) -> None:
    schemas = whole["components"]["schemas"]
    for method, path, operation in operations(whole):
        for status, response in operation["responses"].items():
            if status.startswith("2") and "application/json" in response.get("content", {}) and path not in OPEN_FORM:
                reference = response["content"]["application/json"]["schema"].get("$ref", "")
                assert schemas[reference.removeprefix("#/components/schemas/")]["properties"], (method, path)


def test_headers_that_openapi_leaves_to_itself_are_no_parameters(whole: dict[str, Any]) -> None:
    """A parameter of one of these names is ignored by whoever reads the document (OpenAPI 3.1, 4.8.12.1)."""
    for method, path, operation in operations(whole):
        names = {parameter["name"].lower() for parameter in operation.get("parameters", ())}
        assert not names & {"accept", "content-type", "authorization"}, (method, path)
