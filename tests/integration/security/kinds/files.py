"""Files as inputs: what is uploaded under a name, a type or a shape that is not its own, and read again by its link."""

from __future__ import annotations

import base64
import struct
import zlib

from tests.integration.security.acts import Http, Input, Uploaded
from tests.integration.security.refusals import Download, JobFailed, Problem
from tests.integration.security.rows import rows

BYTES = "application/octet-stream"
HTML = b"<!DOCTYPE html><html><script>alert(document.domain)</script></html>"
LATE_HTML = b"\xef\xbb\xbf \r\n\t<!-- a -->\n<ScRiPt>alert(1)</ScRiPt>"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
BARE_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
PNG_THAT_IS_NONE = b"\x89PNG" + HTML
GIF_AND_SCRIPT = b"GIF89a/*\x00*/=1;alert(1)//"
UTF16_HTML = HTML.decode().encode("utf-16")
PDF = b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj"


def picture(width: int, height: int, *, is_whole: bool = False) -> str:
    """A black PNG of so many points, or one that only says so, as a link. Whole, 100,000,000 are 12 kB of it."""
    points = zlib.compress(bytes((1 + -(-width // 8)) * height if is_whole else 9), 9)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", points), (b"IEND", b"")]
    written = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(written)).decode()


def seen(link: str) -> Input:
    """A job whose app decodes it."""
    return Input(link, "/look", "image")


def named(kind: str) -> Http:
    return Http("POST", "/v1/files?file_name=x", b"x", (("content-type", kind),))


ROWS = rows(
    "files as inputs",
    ("HTML", Uploaded("native", HTML, "text/html", "x.html"), Download(("text/html",))),
    ("HTML as a picture", Uploaded("native", HTML, "image/png"), Download((BYTES,))),
    ("HTML as text", Uploaded("native", HTML, "text/plain", "x.txt"), Download((BYTES,))),
    ("HTML that begins late, as text", Uploaded("native", LATE_HTML, "text/plain", "x.txt"), Download((BYTES,))),
    ("HTML in another alphabet, as text", Uploaded("native", UTF16_HTML, "text/plain", "x.txt"), Download((BYTES,))),
    (
        "HTML as XHTML",
        Uploaded("native", HTML, "application/xhtml+xml", "x.xhtml"),
        Download(("application/xhtml+xml",)),
    ),
    ("HTML under no type", Uploaded("native", HTML, BYTES, "x.html"), Download((BYTES,))),
    ("HTML as a picture at fal's face", Uploaded("fal", HTML, "image/jpeg"), Download((BYTES,))),
    ("HTML as a picture at a place of fal's face", Uploaded("placed", HTML, "image/webp"), Download((BYTES,))),
    ("HTML as a picture past us", Uploaded("presigned", HTML, "image/png"), Download((BYTES,))),
    ("SVG", Uploaded("native", SVG, "image/svg+xml", "x.svg"), Download(("image/svg+xml",))),
    ("SVG in capitals", Uploaded("native", SVG, "Image/SVG+XML", "x.svg"), Download(("image/svg+xml",))),
    ("SVG as a picture", Uploaded("native", SVG, "image/png"), Download((BYTES,))),
    ("SVG without a head, as a picture", Uploaded("fal", BARE_SVG, "image/gif"), Download((BYTES,))),
    ("SVG as text", Uploaded("native", BARE_SVG, "text/plain", "x.txt"), Download((BYTES,))),
    ("SVG as a film past us", Uploaded("presigned", SVG, "video/mp4"), Download((BYTES,))),
    ("a picture that is none", Uploaded("native", PNG_THAT_IS_NONE, "image/png"), Download((BYTES,))),
    ("sound that is none", Uploaded("native", GIF_AND_SCRIPT[6:], "audio/mpeg", "x.mp3"), Download((BYTES,))),
    (
        "a document with a script, as a picture",
        Uploaded("native", PDF, "image/png"),
        Download((BYTES, "application/pdf")),
    ),
    ("a picture of a hundred thousand million points", seen(picture(400_000, 250_000)), JobFailed("invalid_file")),
    ("a picture of more points than are read", seen(picture(10_000, 10_001, is_whole=True)), JobFailed("invalid_file")),
    ("a picture that ends before its points", seen(picture(100, 100)), JobFailed("invalid_file")),
    ("a text in place of a picture", seen("data:image/png;base64,aGVsbG8="), JobFailed("invalid_file")),
    ("a type that is none", named("picture"), Problem(400, "invalid_request")),
    ("two types in one", named("image/png, text/html; charset=x"), Problem(400, "invalid_request")),
    (
        "a type of letters that are none",
        named("image/p\N{LATIN SMALL LETTER E WITH ACUTE}g"),
        Problem(400, "invalid_request"),
    ),
    (
        "a presigned type with a header in it",
        Http("POST", "/v1/files/uploads", {"file_name": "x", "content_type": "image/png\r\nx: y", "size_bytes": 1}),
        Problem(422, "invalid_input"),
    ),
    ("a data URI that is broken", Input("data:image/png;base64,%%%"), JobFailed("invalid_file")),
    ("a data URI without an end", Input("data:image/png;base64"), JobFailed("invalid_file")),
    ("a file that there is not", Input("file_00000000000000000000000000000000"), JobFailed("not_found")),
    ("a file whose id climbs", Input("file_../../../etc/passwd"), JobFailed("not_found")),
    ("an output whose token climbs", Input("/outputs/../../etc/passwd"), JobFailed("not_found")),
    ("an output without a token", Input("/outputs/"), JobFailed("not_found")),
)
