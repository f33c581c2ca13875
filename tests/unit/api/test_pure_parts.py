"""What the API computes without asking anybody."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from api.app_openapi import app_openapi
from api.job_json import event_data, with_links
from api.told import encode, is_last
from stoker.apps import AppRow
from stoker.events import Event, EventId, EventKind
from stoker.job_views import OutputView
from stoker.manifest import EndpointManifest
from stoker.storage import disposition

BASE = "https://stoker.example"
PASSED_ON = f"/outputs/{'t' * 32}/a.png"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def output(pointer: str) -> OutputView:
    return OutputView(uuid4(), 1, "a.png", pointer, "image/png", 1, "0" * 64, "/outputs/token/a.png", {})


@pytest.mark.parametrize(
    ("result", "pointer", "expected"),
    [
        ({"image": {"url": "/outputs/t/a"}}, "/image", {"image": {"url": f"{BASE}/outputs/t/a"}}),
        ({"images": [{"url": "/outputs/t/a"}]}, "/images/0", {"images": [{"url": f"{BASE}/outputs/t/a"}]}),
        ({"a/b~c": {"url": "/outputs/t/a"}}, "/a~1b~0c", {"a/b~c": {"url": f"{BASE}/outputs/t/a"}}),
        ({"image": {"url": "/outputs/t/a"}}, "/other", {"image": {"url": "/outputs/t/a"}}),
        ({"image": {"url": "https://x/y"}}, "/image", {"image": {"url": "https://x/y"}}),
        ({"images": [1]}, "/images/7", {"images": [1]}),
        ({"text": "/outputs/t/a"}, "/text", {"text": "/outputs/t/a"}),
        ({"text": "/outputs/t/a"}, "", {"text": "/outputs/t/a"}),
        ({"pages": [{"url": PASSED_ON}]}, "", {"pages": [{"url": f"{BASE}{PASSED_ON}"}]}),
        ({"pages": [PASSED_ON]}, "", {"pages": [PASSED_ON]}),
    ],
)
def test_links_are_made_absolute_where_outputs_stand_and_nowhere_else(
    result: dict, pointer: str, expected: dict
) -> None:
    given = repr(result)

    assert with_links(result, [output(pointer)], BASE) == expected
    assert repr(result) == given


def test_an_output_event_gets_an_absolute_link() -> None:
    event = Event(EventId(3, 1), EventKind.OUTPUT, {"name": "a.png", "url": "/outputs/t/a.png"}, NOW)

    assert event_data(event, None, BASE)["url"] == f"{BASE}/outputs/t/a.png"  # type: ignore[arg-type]  # job unused


def test_an_event_on_the_wire_is_one_line_of_data() -> None:
    event = Event(EventId(3, 1, 2), EventKind.LOG, {"message": "two\nlines"}, NOW)

    assert encode(event, event.data) == b'event: log\nid: 3.1.2\ndata: {"message":"two\\nlines"}\n\n'


@pytest.mark.parametrize(
    ("state", "last"),
    [("queued", False), ("running", False), ("succeeded", True), ("failed", True), ("cancelled", True)],
)
def test_a_final_state_is_the_last_event(state: str, last: bool) -> None:
    assert is_last(Event(EventId(1), EventKind.STATE, {"state": state}, NOW)) is last


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("image/png", "inline"),
        ("video/mp4", "inline"),
        ("text/plain", "inline"),
        ("image/svg+xml", "attachment"),
        ("Image/SVG+XML", "attachment"),
        ("image/x+xml", "attachment"),
        ("image/png; a=b", "inline"),
        ("IMAGE/PNG", "inline"),
        ("video/x html", "attachment"),
        ("text/html", "attachment"),
        ("application/octet-stream", "attachment"),
    ],
)
def test_what_can_hold_scripts_is_a_download(kind: str, shown: str) -> None:
    assert disposition("a.b", kind).startswith(f"{shown};")


def test_a_files_name_cannot_break_out_of_its_header() -> None:
    assert disposition('a"\r\nb: c;.png', "image/png") == "inline; filename*=UTF-8''a%22%0D%0Ab%3A%20c%3B.png"


def test_definitions_of_two_endpoints_do_not_collide() -> None:
    def endpoint(path: str, kind: str) -> EndpointManifest:
        schema = {"properties": {"x": {"$ref": "#/$defs/Box"}}, "$defs": {"Box": {"type": kind}}}
        return EndpointManifest(path, "inference", schema, {}, True, 1, None, None, 1, "")

    row = AppRow("acme/x", "1", "", "", 1, (endpoint("/", "string"), endpoint("/train", "integer")), 1)

    schemas = app_openapi(row, BASE)["components"]["schemas"]

    assert schemas["MainInput.Box"] == {"type": "string"}
    assert schemas["TrainInput.Box"] == {"type": "integer"}
    assert schemas["TrainInput"]["properties"]["x"] == {"$ref": "#/components/schemas/TrainInput.Box"}
