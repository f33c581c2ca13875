"""SQL through filters: quotes, comments and patterns wherever a request's text becomes a part of a question."""

from __future__ import annotations

from urllib.parse import quote

from tests.integration.security.acts import Headers, Http
from tests.integration.security.refusals import FalError, Nothing, Problem
from tests.integration.security.rows import rows

WRONG, NONE, NO_APP = Problem(422, "invalid_input"), Problem(404, "not_found"), Problem(404, "unknown_app")
UNREADABLE = Problem(400, "invalid_request")
PAGE: Headers = (("accept", "application/json"),)
ALL, DROP = quote("' OR '1'='1"), quote("x'; DROP TABLE jobs; --")
UNION = quote("x' UNION SELECT id, secret_sha256 FROM api_keys --")


def jobs(query: str) -> Http:
    return Http("GET", f"/v1/jobs?{query}")


def events(query: str) -> Http:
    return Http("GET", f"/v1/events?{query}", headers=PAGE)


ROWS = rows(
    "SQL through filters",
    ("a tag that is always true", jobs(f"tag={ALL}"), Nothing("jobs")),
    ("a tag that is a pattern", jobs("tag=%25"), Nothing("jobs")),
    ("a tag that is an array", jobs("tag=%7Bmarked-4f1c%2C%22%22%7D"), Nothing("jobs")),
    ("an app that drops a table", jobs(f"app={DROP}"), Nothing("jobs")),
    ("a state that is always true", jobs(f"state={ALL}"), WRONG),
    ("a time that is a function", jobs(f"since={quote('now()')}"), WRONG),
    ("a parent that is a union", jobs(f"parent={UNION}"), WRONG),
    ("a limit that is a question", jobs(f"limit={quote('(SELECT 1)')}"), WRONG),
    ("a cursor that drops a table", jobs(f"cursor={DROP}"), UNREADABLE),
    ("a cursor of another kind", jobs("cursor=bm90LWEtY3Vyc29y"), UNREADABLE),
    ("a place in the events that drops a table", events(f"after={DROP}"), UNREADABLE),
    ("a place in the events beyond all numbers", events("after=1." + "9" * 30 + "." + "0" * 32 + ".1"), UNREADABLE),
    ("events of an app that is always true", events(f"after=0&app={ALL}"), Nothing("events")),
    ("events of a kind that is a union", events(f"kind={UNION}"), WRONG),
    ("events of a job that is a union", events(f"job_id={UNION}"), WRONG),
    (
        "the last event of a job's, that drops a table",
        Http("GET", "/v1/jobs/$job/events", headers=(("last-event-id", "1; DROP TABLE jobs"),)),
        NONE,
    ),
    ("the audit log before what is no number", Http("GET", f"/v1/audit?before={DROP}"), WRONG),
    ("the audit log before what no number is", Http("GET", "/v1/audit?before=" + "9" * 30), WRONG),
    ("a tenant that drops a table", Http("POST", f"/v1/tenants/{DROP}", {"weight": 1}), NONE),
    ("a queue that drops a table", Http("POST", f"/v1/queues/a/{DROP}/pause"), NO_APP),
    ("a key that is always true", Http("DELETE", f"/v1/keys/{ALL}"), WRONG),
    ("a node that is always true", Http("POST", f"/v1/nodes/{ALL}/drain"), NONE),
    ("a delivery that is always true", Http("POST", f"/v1/deliveries/{ALL}/redeliver"), WRONG),
    ("an app that is a pattern", Http("GET", "/v1/apps/%25/%25"), NO_APP),
    ("an app that drops a table at fal's face", Http("POST", f"/queue/a/{DROP}", {}), FalError(404, "unknown_app")),
    (
        "a request's id that is a union at fal's face",
        Http("GET", f"/queue/$app/requests/{UNION}"),
        FalError(404, "not_found"),
    ),
    (
        "a key whose id is a union",
        Http("GET", "/v1/jobs", headers=(("authorization", "Key ' OR ''=':x"),), key=None),
        Problem(401, "unauthenticated"),
    ),
)
