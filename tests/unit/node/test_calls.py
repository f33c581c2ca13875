"""What an endpoint asks of another app, on its way to the supervisor and back."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import PIL.Image
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


def bytes_at(path: str) -> bytes:
    return Path(path).read_bytes()


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


async def test_a_request_is_json_with_the_links_of_its_files(tmp_path: Path) -> None:
    here = tmp_path / "a.png"
    wish = Wish(text="x", pictures=[File(url="file_1").at(here), File(url="/outputs/t/b.png")])

    text, files = await request_json(wish, tmp_path / "spool")
    within, _ = await request_json({"wish": wish, "n": 1}, tmp_path / "spool")

    assert [file["url"] for file in json.loads(text)["pictures"]] == ["file_1", "/outputs/t/b.png"]
    assert (files, is_empty(tmp_path)) == ([], True)
    assert json.loads(within)["wish"]["text"] == "x"


async def test_files_that_were_made_here_go_with_the_request_wherever_they_stand_in_it(tmp_path: Path) -> None:
    note = File.from_bytes(b"a note", content_type="text/plain", file_name="note.txt")
    (tmp_path / "b.txt").write_bytes(b"b")
    picture = Image.from_picture(PIL.Image.new("RGB", (3, 2)))
    wish = Wish(text="x", pictures=[note, File(url="file_1"), File.from_path(tmp_path / "b.txt"), picture, note])

    text, files = await request_json({"a/b": {"wish": wish}}, tmp_path / "spool")

    sent = json.loads(text)["a/b"]["wish"]["pictures"]
    at = {at: (bytes_at(path)[1:4], name, kind) for at, path, name, kind, _ in files}
    assert list(at) == [f"/a~1b/wish/pictures/{number}" for number in (0, 2, 3, 4)]
    assert at["/a~1b/wish/pictures/0"] == at["/a~1b/wish/pictures/4"] == (b" no", "note.txt", "text/plain")
    assert at["/a~1b/wish/pictures/3"][::2] == (b"PNG", "image/png")
    assert [(file["url"], file["file_size"]) for file in sent[:2]] == [("", 6), ("file_1", None)]
    assert (sent[3]["width"], sent[3]["content_type"]) == (3, "image/png")
    assert note.url == ""


@pytest.mark.parametrize(
    "request_",
    [
        {"file": File()},
        {"file": File.from_bytes(b"x", content_type="text/plain"), "thing": object()},
        {"file": Image.from_picture(PIL.Image.new("RGB", (1, 1)), content_type="image/tiff")},
        {"number": math.nan},
        {"thing": object()},
        {"text": "x" * 5_000_001},
        "no object",
    ],
)
async def test_what_cannot_travel_is_refused_before_anything_is_asked(request_: Any, tmp_path: Path) -> None:
    with pytest.raises(CallRefused):
        await request_json(request_, tmp_path / "spool")


def test_files_of_a_result_are_files_again() -> None:
    result = {"a/b": [{"url": "/outputs/t/1"}], "image": {"url": "/outputs/t/2", "width": 1, "height": 2}, "text": "x"}

    found = with_files(result, ["/a~1b/0", "/image"])

    assert (type(found["a/b"][0]), type(found["image"]), found["text"]) == (File, Image, "x")
    assert (found["a/b"][0].url, found["image"].width) == ("/outputs/t/1", 1)


@pytest.mark.parametrize("key", ["", "x" * 201, "a\nb", 7])
async def test_a_key_is_a_short_printable_text(key: Any, tmp_path: Path) -> None:
    with pytest.raises(CallRefused):
        await Children(Said(), "call", tmp_path / "x").call("a/b", {}, "/", key)  # type: ignore[arg-type]  # a link that keeps


async def test_a_call_that_is_given_up_is_told_and_one_whose_job_has_ended_does_not_wait_for_ever(
    tmp_path: Path,
) -> None:
    link = Said()
    children = Children(link, "call", tmp_path / "call")  # type: ignore[arg-type]  # as above
    request = {"file": File.from_bytes(b"x", content_type="text/plain")}
    waiting = asyncio.create_task(children.call("a/b", request, "/", None))
    await link.has_said.wait()
    [[_, path, *_]] = link.messages[0].files
    assert bytes_at(path) == b"x"

    children.leave()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert is_empty(tmp_path), "nobody reads what was to be passed on"
    asked, left = link.messages
    assert left == protocol.LeaveCall("call", asked.number)


@pytest.mark.parametrize("kind", [ChildFailed, ChildCancelled])
def test_what_befell_a_child_crosses_the_socket_both_ways(kind: type[ChildFailed]) -> None:
    error: StokerError = kind("child 1 of a/b failed", child_id="1", app="a/b", error_type="E", error_message="m")

    for _ in range(2):
        error = failures.revive(failures.describe(error))

    assert type(error) is kind
    assert (error.child_id, error.app, error.error_type, error.error_message) == ("1", "a/b", "E", "m")
