"""A stream that is cut is taken up again after the last event that came."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stoker.client import Client, Unreachable
from stoker.errors import NotFound
from stoker.states import JobState


def event(event_id: str, state: str) -> bytes:
    return f'event: state\nid: {event_id}\ndata: {{"state": "{state}"}}\n\n'.encode()


class Script:
    """An HTTP server that answers one request after the other as it was told, and remembers what it was asked."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self.answers, self.asked = list(answers), list[str | None]()


@contextmanager
def serving(script: Script) -> Iterator[Client]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script.asked.append(self.headers["Last-Event-ID"])
            status, body = script.answers.pop(0)
            self.send_response(status)
            if status == 200:
                self.send_header("Content-Type", "text/event-stream")
                # More is announced than comes: to the client the connection breaks.
                self.send_header("Content-Length", str(len(body) + 1))
            else:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with Client(f"http://127.0.0.1:{server.server_port}", "sk_a:b") as client:
                yield client
        finally:
            server.shutdown()
            thread.join()


def test_a_cut_stream_goes_on_after_the_last_event_that_came():
    script = Script(
        (200, b"retry: 1\n\n" + event("1.0.0", "queued") + event("2.1.0", "running")[:-4]),
        (200, event("2.1.0", "running")),
        (200, event("3.1.0", "succeeded")),
    )

    with serving(script) as client:
        seen = [(each.id, each.data["state"]) for each in client.events("x")]

    assert seen == [("1.0.0", "queued"), ("2.1.0", "running"), ("3.1.0", "succeeded")]
    assert script.asked == [None, "1.0.0", "2.1.0"]


def test_a_server_that_restarts_in_between_costs_no_event():
    script = Script(
        (200, b"retry: 1\n\n" + event("1.0.0", "queued")),
        (503, json.dumps({"code": "unavailable", "detail": "restarting"}).encode()),
        (200, event("2.1.0", "cancelled")),
    )

    with serving(script) as client:
        assert [each.final_state for each in client.events("x")] == [None, JobState.CANCELLED]


def test_after_the_final_event_there_is_nothing():
    with serving(Script((204, b""))) as client:
        assert list(client.events("x", after="3.1.0")) == []


def test_a_job_that_is_not_there_is_an_error_with_its_hint():
    script = Script((404, json.dumps({"code": "not_found", "detail": "no job x", "hint": "look again"}).encode()))

    with serving(script) as client, pytest.raises(NotFound, match="no job x") as refused:
        list(client.events("x"))

    assert refused.value.hint == "look again"


def test_a_server_that_was_never_there_is_unreachable_at_once():
    with serving(Script()) as client:
        gone = Client(client.base_url, "sk_a:b")

    with gone, pytest.raises(Unreachable):
        list(gone.events("x"))
