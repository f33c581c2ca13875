"""Tenant crossing: a stranger with a key of every right, and the ids of another tenant, wherever an id may stand."""

from __future__ import annotations

from typing import Any

from tests.integration.security.acts import Headers, Http, Input
from tests.integration.security.refusals import Exactly, FalError, JobFailed, Nothing, Problem, Without
from tests.integration.security.rows import rows

NONE, NONE_OF_FALS = Problem(404, "not_found"), FalError(404, "not_found")
PAGE: Headers = (("accept", "application/json"),)
TOKEN: Headers = (("authorization", "Bearer $stranger_token"),)
OF_THE_VICTIM = ("$job", "$waiting", "$key_id", "$secret_id", "$delivery")


def get(target: str) -> Http:
    return Http("GET", target)


def page(query: str) -> Http:
    return Http("GET", f"/v1/events?after=0&{query}", headers=PAGE)


def post(target: str, body: Any = None) -> Http:
    return Http("POST", target, body)


def part(method: str, target: str, body: Any) -> Http:
    return Http(method, f"/cdn/files/$parts_file/x/multipart/$parts/{target}", body, TOKEN, key=None)


ROWS = rows(
    "tenant crossing",
    ("a job", get("/v1/jobs/$job"), NONE),
    ("a job's events", get("/v1/jobs/$job/events"), NONE),
    (
        "a job's events from the last seen",
        Http("GET", "/v1/jobs/$job/events", headers=(("last-event-id", "1.0.0"),)),
        NONE,
    ),
    ("a job's deliveries", get("/v1/jobs/$job/deliveries"), NONE),
    ("to cancel a job", post("/v1/jobs/$waiting/cancel"), NONE),
    ("to try a job again", post("/v1/jobs/$job/retry"), NONE),
    ("to send a delivery again", post("/v1/deliveries/$delivery/redeliver"), NONE),
    ("a file", get("/v1/files/$file"), NONE),
    ("to delete a job", Http("DELETE", "/v1/jobs/$job"), NONE),
    ("to delete a job's input and result", Http("DELETE", "/v1/jobs/$job/payload"), NONE),
    ("to delete a file", Http("DELETE", "/v1/files/$file"), NONE),
    ("to revoke a key", Http("DELETE", "/v1/keys/$key_id"), NONE),
    ("to retire a secret", Http("DELETE", "/v1/webhooks/secrets/$secret_id"), NONE),
    ("a job at fal's face", get("/queue/$app/requests/$job"), NONE_OF_FALS),
    ("a status at fal's face", get("/queue/$app/requests/$job/status?logs=1"), NONE_OF_FALS),
    ("a stream of statuses at fal's face", get("/queue/$app/requests/$job/status/stream"), NONE_OF_FALS),
    ("to delete a payload at fal's face", Http("DELETE", "/rest/v1/models/requests/$job/payloads"), NONE_OF_FALS),
    ("to delete a payload as fal's clients did", Http("PUT", "/rest/requests/delete_io/$job"), NONE_OF_FALS),
    (
        "to cancel at fal's face",
        Http("PUT", "/queue/$app/requests/$waiting/cancel"),
        Exactly(404, {"status": "NOT_FOUND"}),
    ),
    (
        "a job through fal's proxy",
        Http("GET", "/api/fal/proxy", headers=(("x-fal-target-url", "https://queue.fal.run/$app/requests/$job"),)),
        NONE_OF_FALS,
    ),
    ("a part for an upload", part("PUT", "1", b"x"), NONE_OF_FALS),
    ("to complete an upload", part("POST", "complete", {"parts": [{"partNumber": 1, "etag": "x"}]}), NONE_OF_FALS),
    ("a file of our face at fal's address", Http("GET", "/cdn/files/$file/x", key=None), NONE_OF_FALS),
    ("children of a job", get("/v1/jobs?parent=$job"), Nothing("jobs")),
    ("jobs by a tag", get("/v1/jobs?tag=marked-4f1c"), Nothing("jobs")),
    ("jobs of all times", get("/v1/jobs?since=2000-01-01T00:00:00Z&limit=200"), Without(200, OF_THE_VICTIM)),
    ("jobs from a cursor of another", get("/v1/jobs?cursor=$cursor"), Without(200, OF_THE_VICTIM)),
    ("events of a job", page("job_id=$job"), Nothing("events")),
    ("events of a job's children", page("parent_id=$job"), Nothing("events")),
    ("events of a job's family", page("root_id=$job"), Nothing("events")),
    ("all events", page(""), Without(200, OF_THE_VICTIM)),
    ("keys", get("/v1/keys"), Without(200, OF_THE_VICTIM)),
    ("secrets", get("/v1/webhooks/secrets"), Without(200, OF_THE_VICTIM)),
    ("the audit log", get("/v1/audit"), Without(200, OF_THE_VICTIM)),
    (
        "the same idempotency key",
        Http(
            "POST",
            "/v1/jobs",
            {"app": "$app", "input": {"text": "x"}, "run_at": "2027-01-01T00:00:00Z"},
            (("idempotency-key", "the-same"),),
        ),
        Without(202, OF_THE_VICTIM, frozenset({"jobs", "job_events", "job_heads"})),
    ),
    ("a file as an input", Input("$file"), JobFailed("not_found")),
    ("a file at fal's address as an input", Input("$public_file"), JobFailed("not_found")),
    ("an output as an input", Input("/outputs/$token/$output"), JobFailed("not_found")),
)
