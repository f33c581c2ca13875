"""The protocol: HTTP/1.1 as it may come in. Each request has one reading, or is refused before anybody acts on it.

uvicorn's, which parses with llhttp, and what that lets pass: a head without an end or that never comes, two hosts or
none, a host that is none, two keys, headers after the body. What is refused here is answered by a problem, and the
connection closes. No connection becomes another protocol's.
"""

from __future__ import annotations

import asyncio
import re
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.problems import problem
from stoker.errors import InvalidRequest, StokerError

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200
HEAD_S = 30.0
"""A connection whose next head has not come by then is closed: it would hold its place for as long as it likes."""
ONCE = (b"host", b"authorization", b"content-type")
"""Sent twice, a proxy might go by the one and we by the other."""
HOST = re.compile(rb"([A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
VERSIONS = ("1.0", "1.1")


class HeadTooLarge(InvalidRequest):
    """The address and the headers of a request are more than anybody reads."""

    code, title, status = "head_too_large", "The request's headers are too large", 431
    hint = f"At most {MAX_HEADERS} headers, and {MAX_HEAD_BYTES} bytes with the address. Large values go into the body."


class Protocol(HttpToolsProtocol):
    """One connection."""

    _is_head, _head_bytes = True, 0
    _refusal: StokerError | None = None
    _head_is_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if not self._is_head or self.transport.is_closing():
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refusal = HeadTooLarge(f"the head has more than {MAX_HEAD_BYTES} bytes")
            self.send_400_response("")
        elif self._head_is_due is None and self._head_bytes:
            self._wait_for_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        # After the head these are trailers. Nobody who looks at a request before us has seen them in it.
        if self._is_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_head = False
        self._stop_waiting()
        self._refusal = self._wrong_with_head()
        if self._refusal is not None:
            raise self._refusal  # the parser stops at that, and ``send_400_response`` is called
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_head, self._head_bytes = True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - there is only one
        if self.cycle is not None and not self.cycle.response_complete:
            # What is written before another answer is out would be taken for that one, or for a part of it.
            if self.pipeline or self.cycle.response_started:
                self.transport.close()
                return
            if not self.cycle.more_body:
                self.cycle.keep_alive = False
                self.flow.pause_reading()
                return
        error = self._refusal or InvalidRequest(
            "what came is no request of HTTP/1.1", hint="Let a client of HTTP write it: its lengths and lines must fit."
        )
        request_id = uuid4().hex
        headers = {"connection": "close", "x-request-id": request_id, "x-content-type-options": "nosniff"}
        answer = problem(error, request_id, headers)
        lines = b"".join(b"%s: %s\r\n" % header for header in answer.raw_headers)
        self.transport.write(b"".join([STATUS_LINE[answer.status_code], lines, b"\r\n", bytes(answer.body)]))
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """A request that would rather be of another protocol is answered as what it is."""

    def _wrong_with_head(self) -> StokerError | None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            return HeadTooLarge(f"the head has {len(self.headers)} headers and {size} bytes")
        if self.parser.get_http_version() not in VERSIONS:
            return InvalidRequest("this is neither HTTP/1.1 nor HTTP/1.0", hint="Let a client of HTTP/1.1 write it.")
        named = [name for name, _ in self.headers]
        twice = next((name.decode() for name in ONCE if named.count(name) > 1), None)
        if twice is not None:
            return InvalidRequest(f"the header {twice} stands there twice", hint="Send it once.")
        host = next((value for name, value in self.headers if name == b"host"), None)
        if (host is None and self.parser.get_http_version() == "1.1") or (
            host is not None and not HOST.fullmatch(host)
        ):
            return InvalidRequest(
                "the request names no host", hint="Send the header Host: a name or address, and a port."
            )
        return None

    def _wait_for_head(self) -> None:
        self._head_is_due = self.loop.call_later(HEAD_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._head_is_due is not None:
            self._head_is_due.cancel()
            self._head_is_due = None
