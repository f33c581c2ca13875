"""What an endpoint asks of another app, on its way to the supervisor and back."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from stoker.errors import CallRefused, ChildCancelled, ChildFailed, StokerError
from stoker.files import File, Image
from worker_node.apphost import failures, protocol
from worker_node.apphost.calls import Children, request_json, with_files

pytestmark = pytest.mark.anyio


class Wish(BaseModel):
    text: str
    pictures: list[File] = []


class Said:
    """The socket to the supervisor, which keeps what was said."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.has_said = asyncio.Event()

    def send(self, message: protocol.Message) -> None:
        self.messages.append(message)
        self.has_said.set()


def test_a_request_is_json_with_the_links_of_its_files(tmp_path: Path) -> None:
    here = tmp_path / "a.png"
    wish = Wish(text="x", pictures=[File(url="file_1").at(here), File(url="/outputs/t/b.png")])

    sent = json.loads(request_json(wish))

    assert [file["url"] for file in sent["pictures"]] == ["file_1", "/outputs/t/b.png"]
    assert json.loads(request_json({"wish": wish, "n": 1}))["wish"]["text"] == "x"


@pytest.mark.parametrize(
    "request_",
    [
        {"file": File.from_bytes(b"x", content_type="text/plain")},
        {"number": math.nan},
        {"thing": object()},
        {"text": "x" * 5_000_001},
        "no object",
    ],
)
def test_what_cannot_travel_is_refused_before_anything_is_asked(request_: Any) -> None:
    with pytest.raises(CallRefused):
        request_json(request_)


def test_files_of_a_result_are_files_again() -> None:
    result = {"a/b": [{"url": "/outputs/t/1"}], "image": {"url": "/outputs/t/2", "width": 1, "height": 2}, "text": "x"}

    found = with_files(result, ["/a~1b/0", "/image"])

    assert (type(found["a/b"][0]), type(found["image"]), found["text"]) == (File, Image, "x")
    assert (found["a/b"][0].url, found["image"].width) == ("/outputs/t/1", 1)


@pytest.mark.parametrize("key", ["", "x" * 201, "a\nb", 7])
async def test_a_key_is_a_short_printable_text(key: Any) -> None:
    with pytest.raises(CallRefused):
        await Children(Said(), "call").call("a/b", {}, "/", key)  # type: ignore[arg-type]  # a link that keeps


async def test_a_call_that_is_given_up_is_told_and_one_whose_job_has_ended_does_not_wait_for_ever() -> None:
    link = Said()
    children = Children(link, "call")  # type: ignore[arg-type]  # as above
    waiting = asyncio.create_task(children.call("a/b", {}, "/", None))
    await link.has_said.wait()

    children.leave()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    asked, left = link.messages
    assert left == protocol.LeaveCall("call", asked.number)


@pytest.mark.parametrize("kind", [ChildFailed, ChildCancelled])
def test_what_befell_a_child_crosses_the_socket_both_ways(kind: type[ChildFailed]) -> None:
    error: StokerError = kind("child 1 of a/b failed", child_id="1", app="a/b", error_type="E", error_message="m")

    for _ in range(2):
        error = failures.revive(failures.describe(error))

    assert type(error) is kind
    assert (error.child_id, error.app, error.error_type, error.error_message) == ("1", "a/b", "E", "m")
