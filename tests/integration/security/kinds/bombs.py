"""Bombs: bodies that are larger than they say, deeper than anybody reads, or not what they are called."""

from __future__ import annotations

import gzip
import io
import zipfile

from tests.integration.security.acts import Headers, Http, Raw
from tests.integration.security.refusals import FalError, NoAnswer, Problem
from tests.integration.security.rows import HUSH, rows
from tests.integration.security.world import MAX_BODY_BYTES, MAX_UPLOAD_BYTES

TOO_LARGE, NO_JSON, WRONG = (
    Problem(413, "payload_too_large"),
    Problem(400, "invalid_request"),
    Problem(422, "invalid_input"),
)
TOO_MUCH_HEAD = Problem(431, "head_too_large", closes=True)
TOKEN: Headers = (("authorization", "Bearer $stranger_token"), ("content-type", "image/png"))
JSON: Headers = (("content-type", "application/json"),)
WELL = b'{"app": "$app", "input": {"text": "x"}}'
MEGABYTE = b"x" * 1_000_000


def body(content: bytes, *headers: tuple[str, str]) -> Http:
    return Http("POST", "/v1/jobs", content, headers or JSON)


def given(value: bytes) -> Http:
    """A submit with this JSON as its input's text."""
    return body(b'{"app": "$app", "input": {"text": ' + value + b"}}")


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", b"\0" * 10_000_000)
    return file.getvalue()


def form(parts: int) -> bytes:
    one = b'--x\r\ncontent-disposition: form-data; name="a"; filename="../a"\r\n\r\nb\r\n'
    return one * parts + b"--x--\r\n"


ROWS = rows(
    "zip and body bombs",
    ("a body over the limit", body(b" " * (MAX_BODY_BYTES + 1)), TOO_LARGE),
    (
        "a body over the limit without its length",
        Http("POST", "/v1/jobs", None, JSON, chunks=(b" " * 50_000,) * 5),
        TOO_LARGE,
    ),
    (
        "a body over the limit at fal's face",
        Http("POST", "/queue/$app", b" " * (MAX_BODY_BYTES + 1), JSON),
        FalError(413, "payload_too_large"),
    ),
    (
        "a body over the limit at fal's face without its length",
        Http("POST", "/queue/$app", None, JSON, chunks=(b" " * 50_000,) * 5),
        FalError(413, "payload_too_large"),
    ),
    (
        "a body of a thousand times the limit that is never sent",
        Http("POST", "/v1/jobs", b"{}", JSON, length=MAX_BODY_BYTES * 1000, ends=True),
        NoAnswer(),
    ),
    ("a body that ends before its length", Http("POST", "/v1/jobs", WELL, JSON, length=1000, ends=True), NoAnswer()),
    (
        "a file that ends before its length",
        Http("POST", "/v1/files", b"x", (("content-type", "image/png"),), length=1000, ends=True),
        NoAnswer(),
    ),
    ("a body that goes on after its length", Http("POST", "/v1/jobs", b"{}" + WELL, JSON, length=2), WRONG),
    ("a file over the limit", Http("POST", "/v1/files", MEGABYTE + b"x", (("content-type", "image/png"),)), TOO_LARGE),
    (
        "a file over the limit without its length",
        Http("POST", "/v1/files", None, (("content-type", "image/png"),), chunks=(b"x" * 300_000,) * 4),
        TOO_LARGE,
    ),
    (
        "a file at fal's face over the limit",
        Http("POST", "/cdn/files/upload", None, TOKEN, None, (b"x" * 300_000,) * 4),
        FalError(413, "payload_too_large"),
    ),
    (
        "a presigned file over the limit",
        Http(
            "POST",
            "/v1/files/uploads",
            {"file_name": "x", "content_type": "image/png", "size_bytes": MAX_UPLOAD_BYTES + 1},
        ),
        TOO_LARGE,
    ),
    (
        "a presigned file of less than nothing",
        Http("POST", "/v1/files/uploads", {"file_name": "x", "content_type": "image/png", "size_bytes": -1}),
        WRONG,
    ),
    (
        "a head of a hundred kilobytes",
        Http("GET", "/healthz", headers=(("x-a", HUSH * 10_000),), key=None),
        TOO_MUCH_HEAD,
    ),
    ("ten thousand headers", Http("GET", "/healthz", headers=(("a", "b"),) * 10_000, key=None), TOO_MUCH_HEAD),
    ("an address of a hundred kilobytes", Http("GET", "/" + "a" * 100_000, key=None), TOO_MUCH_HEAD),
    ("a head that never ends", Raw(b"GET /healthz HTTP/1.1\r\nhost: $host\r\n" + b"a: b\r\n" * 20_000), TOO_MUCH_HEAD),
    ("lists in lists", given(b"[" * 50_000 + b"]" * 50_000), NO_JSON),
    ("objects in objects", given(b'{"a":' * 1000 + b"1" + b"}" * 1000), NO_JSON),
    ("brackets that nobody closes", body(b"[" * 150_000), NO_JSON),
    (
        "objects in objects at fal's face",
        Http("POST", "/queue/$app", b'{"a":' * 1000 + b"1" + b"}" * 1000, JSON),
        FalError(422),
    ),
    ("a number of ten thousand digits", given(b"9" * 10_000), NO_JSON),
    ("a number beyond all numbers", given(b"1e400"), NO_JSON),
    ("no number", given(b"NaN"), NO_JSON),
    ("half of a pair of surrogates", given(b'"\\ud800"'), NO_JSON),
    ("the character NUL", given(b'"\\u0000"'), NO_JSON),
    (
        "twenty thousand fields",
        body(b'{"app": "$app", "input": {' + b",".join(b'"%d": 1' % n for n in range(15_000)) + b"}}"),
        WRONG,
    ),
    (
        "JSON under gzip",
        body(gzip.compress(b" " * 10_000_000), ("content-type", "application/json"), ("content-encoding", "gzip")),
        NO_JSON,
    ),
    ("a zip in place of JSON", body(zipped(), ("content-type", "application/zip")), NO_JSON),
    ("a zip under the name of JSON", body(zipped()), NO_JSON),
    ("a form in place of JSON", body(form(1000), ("content-type", "multipart/form-data; boundary=x")), NO_JSON),
    (
        "a form in place of a file",
        Http("POST", "/v1/files", form(1000), (("content-type", "multipart/form-data; boundary=x"),)),
        NO_JSON,
    ),
    (
        "a form in place of a submit at fal's face",
        Http("POST", "/queue/$app", form(1000), (("content-type", "multipart/form-data; boundary=x"),)),
        FalError(400, "invalid_request"),
    ),
    (
        "JSON in another alphabet",
        body(WELL.decode().encode("utf-16"), ("content-type", "application/json; charset=utf-16")),
        NO_JSON,
    ),
)
