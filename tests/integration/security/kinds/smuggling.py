"""Header smuggling: requests that two readers would read in two ways, and headers that would come back."""

from __future__ import annotations

from tests.integration.security.acts import Http, Raw
from tests.integration.security.refusals import Problem, Without
from tests.integration.security.rows import rows

BROKEN = Problem(400, "invalid_request", closes=True)
NO_HOST = Problem(400, "invalid_request")
HIDDEN = b"GET /v1/keys HTTP/1.1\r\nhost: $host\r\nauthorization: Key $stranger_key\r\n\r\n"
EVIL = ("evil.test",)


def post(*lines: bytes, body: bytes = b"") -> Raw:
    """A POST with these headers as they stand, and bytes after them."""
    return Raw(b"\r\n".join([b"POST /v1/jobs HTTP/1.1", b"host: $host", *lines, b"", b""]) + body)


def get(*lines: bytes, target: bytes = b"/v1/jobs/$waiting") -> Raw:
    key = b"authorization: Key $stranger_key"
    return Raw(b"\r\n".join([b"GET " + target + b" HTTP/1.1", *lines, key, b"connection: close", b"", b""]))


def listed(*headers: tuple[str, str]) -> Http:
    """A submit, whose answer is full of links."""
    return Http("POST", "/v1/jobs/$waiting/cancel", headers=headers)


ROWS = rows(
    "header smuggling",
    (
        "a length and chunks",
        post(b"content-length: 6", b"transfer-encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
        BROKEN,
    ),
    (
        "chunks and a length",
        post(b"transfer-encoding: chunked", b"content-length: 6", body=b"0\r\n\r\n" + HIDDEN),
        BROKEN,
    ),
    ("two lengths", post(b"content-length: 0", b"content-length: %d" % len(HIDDEN), body=HIDDEN), BROKEN),
    ("two lengths in one", post(b"content-length: 0, 5", body=HIDDEN), BROKEN),
    ("a length with a sign", post(b"content-length: +5", body=HIDDEN), BROKEN),
    ("a length in hex", post(b"content-length: 0x5", body=HIDDEN), BROKEN),
    ("a length beyond all lengths", post(b"content-length: 99999999999999999999999", body=HIDDEN), BROKEN),
    ("a space before the colon", post(b"content-length : 5", body=HIDDEN), BROKEN),
    (
        "chunks that are not the last coding",
        post(b"transfer-encoding: chunked, identity", body=b"0\r\n\r\n" + HIDDEN),
        BROKEN,
    ),
    ("an unknown coding", post(b"transfer-encoding: xchunked", body=b"0\r\n\r\n" + HIDDEN), BROKEN),
    ("chunks after a tab", post(b"transfer-encoding:\x0bchunked", body=b"0\r\n\r\n" + HIDDEN), BROKEN),
    (
        "a chunk beyond all lengths",
        post(b"transfer-encoding: chunked", body=b"ffffffffffffffffff\r\nx\r\n0\r\n\r\n"),
        BROKEN,
    ),
    ("a chunk that is longer than it says", post(b"transfer-encoding: chunked", body=b"1\r\nxyz\r\n0\r\n\r\n"), BROKEN),
    ("a header over two lines", get(b"host: $host", b"x-a: b", b" content-length: 5"), BROKEN),
    ("an end of line that is half of one", Raw(b"GET /v1/jobs HTTP/1.1\nhost: $host\n\n"), BROKEN),
    ("a carriage return in a value", get(b"host: $host", b"x-a: b\rset-cookie: c"), BROKEN),
    ("NUL in a value", get(b"host: $host", b"x-a: b\0c"), BROKEN),
    ("a name that is none", get(b"host: $host", b"x a: b"), BROKEN),
    ("HTTP 0.9", Raw(b"GET /v1/jobs\r\n\r\n"), BROKEN),
    ("HTTP 2 without a word", Raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), BROKEN),
    ("HTTP 9", Raw(b"GET /v1/jobs HTTP/9.9\r\nhost: $host\r\n\r\n"), BROKEN),
    ("a method that is none", Raw(b"G\x01T /v1/jobs HTTP/1.1\r\nhost: $host\r\n\r\n"), BROKEN),
    ("a tunnel", Raw(b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nhost: $host\r\n\r\n" + HIDDEN), BROKEN),
    ("no host", get(), NO_HOST),
    ("two hosts", get(b"host: $host", b"host: evil.test"), NO_HOST),
    ("a host that is none", get(b"host: ["), NO_HOST),
    ("a host with a path", get(b"host: $host/evil.test?"), NO_HOST),
    ("a host with a user", get(b"host: evil.test@$host"), NO_HOST),
    ("a host with markup", get(b"host: <script>evil.test</script>"), NO_HOST),
    ("another host", get(b"host: evil.test"), Without(404, EVIL)),
    (
        "a forwarded host",
        get(b"host: $host", b"x-forwarded-host: evil.test", b"forwarded: host=evil.test"),
        Without(404, EVIL),
    ),
    (
        "a forwarded address",
        get(
            b"host: $host",
            b"x-forwarded-for: evil.test",
            b"x-real-ip: evil.test",
            b"x-original-url: /v1/keys",
            b"x-rewrite-url: /v1/keys",
        ),
        Without(404, EVIL),
    ),
    ("a forwarded scheme", get(b"host: $host", b"x-forwarded-proto: javascript"), Without(404, ("javascript:",))),
    (
        "another method in a header",
        Http("GET", "/v1/jobs/$waiting", headers=(("x-http-method-override", "DELETE"),)),
        Problem(404, "not_found"),
    ),
    (
        "a request's id with an end of line",
        get(b"host: $host", b"x-request-id: a%0d%0aset-cookie: evil.test"),
        Without(404, EVIL),
    ),
    (
        "a request's id with markup",
        get(b"host: $host", b"x-request-id: <script>evil.test</script>"),
        Without(404, EVIL),
    ),
    (
        "a request's id of ten kilobytes",
        get(b"host: $host", b"x-request-id: " + b"evil.test" * 1000),
        Without(404, EVIL),
    ),
    (
        "a path with an end of line",
        get(b"host: $host", target=b"/nowhere%0d%0aset-cookie:%20evil=1"),
        Without(404, ("set-cookie', ",)),
    ),
    (
        "a header that a proxy is asked to drop",
        Raw(b"GET /v1/jobs HTTP/1.1\r\nhost: $host\r\nconnection: close, x-request-id, host\r\n\r\n"),
        Problem(401, "unauthenticated"),
    ),
    (
        "an upgrade to HTTP 2",
        Raw(
            b"GET /v1/keys HTTP/1.1\r\nhost: $host\r\nconnection: upgrade, http2-settings, close\r\nupgrade: h2c\r\n"
            b"http2-settings: AAMAAABkAAQAAP__\r\n\r\n"
        ),
        Problem(401, "unauthenticated"),
    ),
)
