"""Paths: out of a folder, past a name, under a name that is not one."""

from __future__ import annotations

from typing import Any

from tests.integration.security.acts import Http, Uploaded
from tests.integration.security.refusals import FalError, PlainName, Problem
from tests.integration.security.rows import rows

WRONG, NONE = Problem(422, "invalid_input"), Problem(404, "not_found")
NO_APP, NO_APP_OF_FALS = Problem(404, "unknown_app"), FalError(404, "unknown_app")


def get(target: str, *, key: str | None = "stranger") -> Http:
    return Http("GET", target, key=key)


def file(name: str) -> Http:
    return Http("POST", f"/v1/files?file_name={name}", b"x", (("content-type", "text/plain"),))


def presigned(name: str) -> Http:
    return Http("POST", "/v1/files/uploads", {"file_name": name, "content_type": "text/plain", "size_bytes": 1})


def named(face: str, name: str) -> Uploaded:
    return Uploaded(face, b"a text", "text/plain", name)


def job(**fields: Any) -> Http:
    return Http("POST", "/v1/jobs", {"app": "$app", "input": {"text": "x"}, **fields})


ROWS = rows(
    "path",
    ("a file's name that climbs", file("..%2f..%2fetc%2fpasswd"), WRONG),
    ("a file's name that climbs in Windows' way", file("..%5c..%5cx"), WRONG),
    ("a file's name with NUL", file("x.png%00.html"), WRONG),
    ("a file's name with an end of line", file("x%0d%0aset-cookie:%20a=b"), WRONG),
    ("a file's name that is a folder", file(".."), WRONG),
    ("a presigned file's name that climbs", presigned("../../x"), WRONG),
    ("a presigned file's name with NUL", presigned("x\0y"), Problem(400, "invalid_request")),
    ("a name at fal's face that climbs", named("fal", "../../../x"), PlainName()),
    ("a name at fal's face that climbs in Windows' way", named("fal", "..\\..\\x"), PlainName()),
    ("a name for a place at fal's face that climbs", named("placed", "../../x"), PlainName()),
    ("a name for a place at fal's face with an end of line", named("placed", "x\r\nset-cookie: a"), PlainName()),
    ("an output and up", get("/outputs/$token/../../v1/jobs", key=None), NONE),
    ("an output and up, encoded", get("/outputs/$token/%2e%2e%2f%2e%2e%2fetc%2fpasswd", key=None), NONE),
    ("an output of another name", get("/outputs/$token/other.txt", key=None), NONE),
    ("an output with NUL", get("/outputs/$token/said.txt%00", key=None), NONE),
    ("an output whose token is a pattern", get("/outputs/%25%25%25%25/said.txt", key=None), WRONG),
    ("from an open path to a closed one", get("/healthz/../v1/keys", key=None), NONE),
    ("from an open path to a closed one, encoded", get("/healthz/%2e%2e/v1/keys", key=None), NONE),
    ("slashes twice", get("//v1//keys", key=None), NONE),
    ("a path in capitals", get("/V1/JOBS", key=None), NONE),
    ("letters that are longer than they may be", get("/v1/apps/%c0%ae%c0%ae/%c0%af"), NO_APP),
    ("a job's id that climbs", get("/v1/jobs/..%2fkeys"), NONE),
    ("an app's name that climbs", get("/v1/apps/%2e%2e/%2e%2e"), NO_APP),
    ("an app's name with NUL", get("/v1/apps/a%00/b"), NO_APP),
    ("a submit for a path in place of an app", job(app="../../etc/passwd"), NO_APP),
    ("an endpoint that climbs", job(endpoint="/../../v1/keys"), NO_APP),
    ("an endpoint without a slash", job(endpoint="digest"), NO_APP),
    ("a submit at fal's face that climbs", Http("POST", "/queue/../v1/keys", {}), NO_APP_OF_FALS),
    ("an app's name at fal's face that climbs", Http("POST", "/queue/%2e%2e/x%2f..", {}), NO_APP_OF_FALS),
    ("an app's name at fal's face with NUL", Http("POST", "/queue/a%00/b", {}), NO_APP_OF_FALS),
    ("an endpoint at fal's face that climbs", Http("POST", "/queue/$app/%2e%2e/%2e%2e/v1/keys", {}), NO_APP_OF_FALS),
    (
        "a file at fal's address that climbs",
        get("/cdn/files/..%2f..%2fetc/passwd", key=None),
        FalError(404, "not_found"),
    ),
    ("a file's id at fal's address with NUL", get("/cdn/files/file_00%00/x", key=None), FalError(422)),
    (
        "a proxied path that climbs",
        Http("GET", "/api/fal/proxy", headers=(("x-fal-target-url", "https://queue.fal.run/../v1/keys"),)),
        NO_APP_OF_FALS,
    ),
    (
        "a proxied path that climbs, encoded",
        Http("GET", "/api/fal/proxy", headers=(("x-fal-target-url", "https://queue.fal.run/%2e%2e/v1/keys"),)),
        NO_APP_OF_FALS,
    ),
    ("a whole address in place of a path", get("http://169.254.169.254/latest/meta-data/"), NONE),
)
