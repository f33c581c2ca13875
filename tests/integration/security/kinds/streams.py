"""Websockets and event streams without a key, or with another's: nothing begins, no connection is another's."""

from __future__ import annotations

from tests.integration.security.acts import Headers, Http
from tests.integration.security.refusals import FalError, Problem, Without
from tests.integration.security.rows import rows

NO_KEY, NO_KEY_OF_FALS = Problem(401, "unauthenticated"), FalError(401, "unauthenticated")
NONE_OF_FALS = FalError(404, "not_found")
SOCKET: Headers = (
    ("connection", "Upgrade, close"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
)
STREAM: Headers = (("accept", "text/event-stream"),)


def socket(target: str, *headers: tuple[str, str], key: str | None = None) -> Http:
    return Http("GET", target, headers=(*SOCKET, *headers), key=key)


def stream(target: str, method: str = "GET") -> Http:
    return Http(method, target, {} if method == "POST" else None, STREAM, key=None)


ROWS = rows(
    "websocket and SSE without a key",
    ("a socket for jobs", socket("/v1/jobs"), NO_KEY),
    ("a socket for all events", socket("/v1/events"), NO_KEY),
    ("a socket for a job's events", socket("/v1/jobs/$job/events"), NO_KEY),
    ("a socket for statuses at fal's face", socket("/queue/$app/requests/$job/status/stream"), NO_KEY_OF_FALS),
    ("a socket for fal's realtime", socket("/run/$app/realtime"), NO_KEY_OF_FALS),
    ("a socket with a key in its query", socket("/v1/events?fal_jwt_token=$stranger_key"), NO_KEY),
    (
        "a socket with a key as its protocol",
        socket("/v1/events", ("sec-websocket-protocol", "key, $stranger_key")),
        NO_KEY,
    ),
    ("a socket where no key is asked for", socket("/healthz"), Without(200, ("sec-websocket-accept",))),
    ("a socket with a stranger's key", socket("/queue/$app/requests/$job/status/stream", key="stranger"), NONE_OF_FALS),
    ("a socket to nowhere", socket("/nowhere"), Problem(404, "not_found")),
    (
        "a socket through fal's proxy",
        socket("/api/fal/proxy", ("x-fal-target-url", "https://fal.run/$app/realtime")),
        NO_KEY_OF_FALS,
    ),
    ("a stream of all events", stream("/v1/events"), NO_KEY),
    ("a stream of a job's events", stream("/v1/jobs/$job/events"), NO_KEY),
    ("a stream of statuses", stream("/queue/$app/requests/$job/status/stream"), NO_KEY_OF_FALS),
    ("a stream of a run", stream("/run/$app/stream", "POST"), NO_KEY_OF_FALS),
)
