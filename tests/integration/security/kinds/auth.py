"""Auth: no key, half a key, two keys, a key in the wrong place, a key that is over, and one that may not do this."""

from __future__ import annotations

from typing import Any

from tests.integration.security.acts import Http, Raw
from tests.integration.security.refusals import FalError, Problem
from tests.integration.security.rows import HUSH, rows

NO_KEY, FORBIDDEN = Problem(401, "unauthenticated"), Problem(403, "forbidden")
NO_KEY_OF_FALS = FalError(401, "unauthenticated")
TWO_KEYS = Problem(400, "invalid_request", closes=True)
JOB = {"app": "$app", "input": {"text": "x"}}
WORDS = {"text": "x"}


def given(*values: str | bytes, target: str = "/v1/jobs") -> Http:
    """A request with these Authorization headers."""
    return Http("GET", target, headers=tuple(("authorization", value) for value in values), key=None)


def asked(method: str, target: str, body: Any = None, *, key: str | None) -> Http:
    return Http(method, target, body, key=key)


ROWS = rows(
    "auth",
    ("no header", given(), NO_KEY),
    ("an empty header", given(""), NO_KEY),
    ("a scheme and nothing else", given("Key"), NO_KEY),
    ("another scheme", given(f"Basic {HUSH}"), NO_KEY),
    ("a key without a scheme", given("$stranger_key"), NO_KEY),
    ("an id without a secret", given("Key $stranger_key_id"), NO_KEY),
    ("another one's id with the own secret", given("Key $victim_key_id:$stranger_secret"), NO_KEY),
    ("bytes that are no text", given(b"Key $stranger_key_id:\xff\xfe\xe9"), NO_KEY),
    ("a space that is none", given("Key $stranger_key\N{NO-BREAK SPACE}"), NO_KEY),
    ("a key of a hundred kilobytes", given("Key sk_x:" + HUSH * 10_000), Problem(431, "head_too_large", closes=True)),
    ("a key of a kilobyte", given("Key sk_x:" + HUSH * 100), NO_KEY),
    ("two headers, the good one first", given("Key $stranger_key", f"Key sk_x:{HUSH}"), TWO_KEYS),
    ("two headers, the good one last", given(f"Key sk_x:{HUSH}", "Key $stranger_key"), TWO_KEYS),
    ("two keys in one header", given("Key $stranger_key, Key $runner_key"), NO_KEY),
    ("an id in capitals", given("Key $stranger_loud:$stranger_secret"), NO_KEY),
    ("a secret in the other case", given("Key $stranger_key_id:$stranger_swapped"), NO_KEY),
    ("a key in the query", Http("GET", "/v1/jobs?key=$stranger_key&api_key=$stranger_key", key=None), NO_KEY),
    ("a key in a cookie", Http("GET", "/v1/jobs", headers=(("cookie", "key=$stranger_key"),), key=None), NO_KEY),
    (
        "a key in headers of others",
        Http(
            "GET",
            "/v1/jobs",
            headers=(("x-api-key", "$stranger_key"), ("proxy-authorization", "Key $stranger_key")),
            key=None,
        ),
        NO_KEY,
    ),
    ("a key in the body", Http("POST", "/v1/jobs", {**JOB, "key": "$stranger_key"}, key=None), NO_KEY),
    (
        "a key after the body",
        Raw(
            b"POST /v1/jobs HTTP/1.1\r\nhost: $host\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"transfer-encoding: chunked\r\ntrailer: authorization\r\n\r\n2\r\n{}\r\n0\r\n"
            b"authorization: Key $stranger_key\r\n\r\n"
        ),
        NO_KEY,
    ),
    ("a key past its time", given("Key $late_key"), NO_KEY),
    ("a revoked key", given("Key $revoked_key"), NO_KEY),
    (
        "a revoked key at fal's face",
        given("Key $revoked_key", target="/queue/$app/requests/$job"),
        FalError(401, "unauthenticated"),
    ),
    ("an upload token as a key", given("Bearer $stranger_token"), NO_KEY),
    ("an upload token as a page's", asked("GET", "/run/$app?fal_jwt_token=$stranger_token", key=None), NO_KEY_OF_FALS),
    ("a page's token as a key", given("Bearer $page_token"), NO_KEY),
    ("a page's token for another app", asked("GET", "/run/$app?fal_jwt_token=$page_token", key=None), NO_KEY_OF_FALS),
    ("a page's token made wider", asked("GET", "/run/$app?fal_jwt_token=$page_token~$app", key=None), NO_KEY_OF_FALS),
    (
        "a page's token where none is taken",
        asked("POST", "/queue/acme/other?fal_jwt_token=$page_token", {}, key=None),
        NO_KEY_OF_FALS,
    ),
    (
        "a page's token for an upload",
        Http("POST", "/cdn/files/upload", b"x", (("authorization", "Bearer $page_token"),), key=None),
        NO_KEY_OF_FALS,
    ),
    (
        "a page's token for a reading key",
        asked("POST", "/rest/tokens/", {"allowed_apps": ["app"]}, key="reader"),
        FalError(403, "forbidden"),
    ),
    (
        "a key as an upload token",
        Http("POST", "/cdn/files/upload", b"x", (("authorization", "Bearer $stranger_key"),), key=None),
        FalError(401, "unauthenticated"),
    ),
    (
        "a whole key as the id of one to revoke",
        asked("DELETE", "/v1/keys/$stranger_key", key="stranger"),
        Problem(422, "invalid_input"),
    ),
    (
        "a whole key as a path",
        asked("GET", "/v1/jobs/Key%20$stranger_key", key="stranger"),
        Problem(422, "invalid_input"),
    ),
    ("to submit with a reading key", asked("POST", "/v1/jobs", JOB, key="reader"), FORBIDDEN),
    (
        "to submit with a reading key at fal's face",
        asked("POST", "/queue/$app", WORDS, key="reader"),
        FalError(403, "forbidden"),
    ),
    ("to run with a reading key", asked("POST", "/run/$app", WORDS, key="reader"), FalError(403, "forbidden")),
    ("to upload with a reading key", Http("POST", "/v1/files", b"x", key="reader"), FORBIDDEN),
    (
        "an upload token for a reading key",
        asked("POST", "/rest/storage/auth/token", {}, key="reader"),
        FalError(403, "forbidden"),
    ),
    ("to cancel with a reading key", asked("POST", "/v1/jobs/$waiting/cancel", key="reader"), FORBIDDEN),
    ("to delete a file with a reading key", asked("DELETE", "/v1/files/$file", key="reader"), FORBIDDEN),
    ("to see keys with a running key", asked("GET", "/v1/keys", key="runner"), FORBIDDEN),
    (
        "to make an admin's key with a running key",
        asked("POST", "/v1/keys", {"scopes": ["admin"]}, key="runner"),
        FORBIDDEN,
    ),
    ("to read the audit log with a running key", asked("GET", "/v1/audit", key="runner"), FORBIDDEN),
    ("to pause an app with a running key", asked("POST", "/v1/queues/$app/pause", key="runner"), FORBIDDEN),
    ("to be first with a key that may not", asked("POST", "/v1/jobs", {**JOB, "priority": 0}, key="runner"), FORBIDDEN),
    (
        "a key that is better than the first",
        asked("POST", "/v1/keys", {"scopes": ["run"], "best_priority": -1}, key="stranger"),
        Problem(422, "invalid_input"),
    ),
)
