"""Limits: more of something than there may be, each with its own place in the answer."""

from __future__ import annotations

from typing import Any

from tests.integration.security.acts import Headers, Http
from tests.integration.security.refusals import FalError, Problem
from tests.integration.security.rows import rows

WRONG = Problem(422, "invalid_input")
PAGE: Headers = (("accept", "application/json"),)


def job(given: dict[str, Any] | None = None, **fields: Any) -> Http:
    return Http("POST", "/v1/jobs", {"app": "$app", "input": given or {"text": "x"}, **fields})


ROWS = rows(
    "limits",
    ("a prompt that is longer than its app takes", job({"text": "x" * 101}), WRONG),
    (
        "a prompt that is longer than its app takes, at fal's face",
        Http("POST", "/queue/$app", {"text": "x" * 101}),
        FalError(422),
    ),
    ("a field that its app does not know", job({"text": "x", "model": "/etc"}), WRONG),
    ("twenty-one tags", job(tags=["a"] * 21), WRONG),
    ("a tag of a hundred and one letters", job(tags=["a" * 101]), WRONG),
    ("an empty tag", job(tags=[""]), WRONG),
    ("more tries than there may be", job(max_attempts=21), WRONG),
    ("a priority before the first", job(priority=-1), WRONG),
    ("a priority beyond all numbers", job(priority=10**30), WRONG),
    ("a time of a year", job(run_timeout=3.2e7), WRONG),
    ("a time that is none", job(start_timeout=-1), WRONG),
    ("a moment in eleven years", job(run_at="2037-12-31T00:00:00Z"), WRONG),
    ("a name of an app of a thousand letters", job(app="a" * 1000), WRONG),
    (
        "an idempotency key of three hundred letters",
        Http("POST", "/v1/jobs", {"app": "$app", "input": {"text": "x"}}, (("idempotency-key", "k" * 300),)),
        WRONG,
    ),
    ("a page of a million", Http("GET", "/v1/jobs?limit=1000000"), WRONG),
    ("events of a hundred and one jobs", Http("GET", "/v1/events?" + "job_id=$job&" * 101, headers=PAGE), WRONG),
    ("a file's name of three hundred letters", Http("POST", "/v1/files?file_name=" + "a" * 300, b"x"), WRONG),
    ("a key's name of a thousand letters", Http("POST", "/v1/keys", {"scopes": ["read"], "name": "a" * 1000}), WRONG),
    ("a part beyond the last", Http("PUT", "/cdn/uploads/$place/10001", b"x", key=None), FalError(422)),
    (
        "a wish that is no number",
        Http("POST", "/queue/$app", {"text": "x"}, (("x-fal-request-timeout", "1e999"),)),
        FalError(422),
    ),
)
