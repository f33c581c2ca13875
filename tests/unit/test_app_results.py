"""What endpoints return, as JSON and files; what ranks stream, as small pictures; what crosses the private socket."""

from __future__ import annotations

import datetime as dt
import enum
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil
from pydantic import BaseModel, Field, field_serializer

from stoker import File, Image
from stoker.errors import AppError, InvalidInput, JobCancelled, WorkerCrashed
from worker_node.apphost import failures, pictures, protocol, results
from worker_node.apphost.results import event_json, is_light, render
from worker_node.distributed import CallCancelled, RankDied, RankFailed


class Colour(enum.Enum):
    RED = "red"


class Inner(BaseModel):
    when: dt.date
    colour: Colour
    share: float = Field(serialization_alias="part")
    images: list[Image] = []

    @field_serializer("share")
    def as_percent(self, share: float) -> str:
        return f"{share:.0%}"


class Outer(BaseModel):
    inner: dict[str, Inner]
    made: Path
    hidden: File = Field(exclude=True)


def test_a_result_keeps_the_models_own_json_and_finds_its_files(tmp_path: Path) -> None:
    made = tmp_path / "made.bin"
    made.write_bytes(b"made")
    image = Image.from_picture(Pil.new("RGB", (2, 3)))
    inner = Inner(when=dt.date(2026, 11, 21), colour=Colour.RED, share=0.5, images=[image])
    hidden = File.from_bytes(b"", content_type="text/plain")

    rendered = render(Outer(inner={"a/b~c": inner}, made=made, hidden=hidden), Outer, tmp_path / "out")
    result = json.loads(rendered.result_json)

    assert result["inner"]["a/b~c"] | {"images": None} == {
        "when": "2026-11-21",
        "colour": "red",
        "part": "50%",
        "images": None,
    }
    assert {each[0] for each in rendered.files} == {"/made", "/inner/a~1b~0c/images/0"}
    assert result["made"]["url"] == ""
    assert "hidden" not in result


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    returned = {"loss": np.float32(0.5), "steps": np.int64(3), "all": (1, {2})}

    rendered = render(returned, None, tmp_path)

    assert json.loads(rendered.result_json) == {"loss": 0.5, "steps": 3, "all": [1, [2]]}


def test_a_file_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    file = File.from_bytes(b"x", content_type="text/plain", file_name="../../etc/pass wd")

    rendered = render({"file": file}, None, tmp_path / "out")

    assert Path(rendered.files[0][1]).parent == tmp_path / "out"
    assert rendered.files[0][2] == "pass-wd"


@pytest.mark.parametrize("returned", [3, "text", [1], object()])
def test_a_result_must_be_an_object(returned: Any, tmp_path: Path) -> None:
    with pytest.raises(AppError, match="the endpoint returned"):
        render(returned, None, tmp_path)


def test_a_result_that_contains_itself_is_an_error_of_the_app(tmp_path: Path) -> None:
    returned: dict[str, Any] = {}
    returned["again"] = returned

    with pytest.raises(AppError, match="nested deeper"):
        render(returned, None, tmp_path)


class Anything(BaseModel):
    value: Any


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("levels", [100, 300, 990, 2000])
@pytest.mark.parametrize("response", [None, Anything])
def test_a_result_that_is_nested_too_deeply_is_the_apps_error(
    levels: int, response: type[BaseModel] | None, tmp_path: Path
) -> None:
    with pytest.raises(AppError, match="nested deeper") as caught:
        render({"value": nested(levels)}, response, tmp_path)

    assert caught.value.hint
    assert json.loads(render({"value": nested(99)}, response, tmp_path).result_json) == {"value": nested(99)}


@pytest.mark.parametrize("levels", [100, 240, 300, 2000])
def test_an_event_that_is_nested_too_deeply_says_so(levels: int) -> None:
    assert list(json.loads(event_json({"value": nested(levels)}))) == ["message"]


def test_a_result_of_more_files_than_there_may_be_is_the_apps_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "MAX_FILES", 3)
    files = [File.from_bytes(b"x", content_type="text/plain") for _ in range(4)]

    assert len(render({"files": files[:3]}, None, tmp_path).files) == 3
    with pytest.raises(AppError, match="more than 3 files") as refused:
        render({"files": files}, None, tmp_path)
    assert "archive" in refused.value.hint


def test_a_result_of_more_json_than_there_may_be_is_the_apps_error(tmp_path: Path) -> None:
    with pytest.raises(AppError, match=f"{protocol.MAX_RESULT_BYTES} are allowed") as refused:
        render({"text": "x" * protocol.MAX_RESULT_BYTES}, None, tmp_path)
    assert "File.from_bytes" in refused.value.hint


def test_an_event_never_fails_for_what_json_cannot_say() -> None:
    data = {"loss": float("nan"), "array": np.float64(2.0), "object": object, "bytes": b"\xff", "nul": "a\0"}

    told = json.loads(event_json(data))

    assert (told["loss"], told["array"]) == (None, 2.0)
    assert "object" in told["object"]
    assert "\0" not in told["nul"]


def test_an_event_that_is_too_large_keeps_its_numbers_and_the_beginning_of_its_message() -> None:
    latents = json.loads(event_json({"step": 3, "total": 2**70, "latents": "x" * protocol.MAX_EVENT_BYTES}))
    line = json.loads(event_json({"message": "first " + "\N{SNOWMAN}" * protocol.MAX_EVENT_BYTES, "level": 20}))
    small = {"step": 3, "latents": "x" * (protocol.MAX_EVENT_BYTES - 100)}

    assert (list(latents), latents["step"]) == (["step", "message"], 3)
    assert (line["message"][:6], line["level"]) == ("first ", 20)
    assert len(json.dumps(line, ensure_ascii=False).encode()) <= protocol.MAX_EVENT_BYTES
    assert json.loads(event_json(small)) == small


@pytest.mark.parametrize(
    "spelt", ["text/plain\nX-Own: 1", "text/pl\u00e4in", "text", "", "text/" + "x" * 300, "text/plain;\u2603"]
)
def test_a_content_type_that_no_header_can_carry_is_replaced(spelt: str, tmp_path: Path) -> None:
    file = File.from_bytes(b"x", content_type=spelt)
    right = File.from_bytes(b"x", content_type="text/plain; charset=utf-8")

    files = render({"file": file, "right": right}, None, tmp_path).files

    assert [each[3] for each in files] == ["application/octet-stream", "text/plain; charset=utf-8"]


@pytest.mark.parametrize(
    "picture",
    [
        Pil.new("L", (40, 30)),
        np.zeros((30, 40), np.uint8),
        np.zeros((30, 40, 3), np.uint8),
        np.zeros((3, 30, 40), np.float32),
    ],
)
def test_what_looks_like_a_picture_is_taken_out_of_a_streamed_result(picture: Any) -> None:
    rest, found = pictures.take_pictures({"step": 1, "nested": [{"picture": picture}], "vector": [0.5]})

    assert [each.size for each in found] == [(40, 30)]
    assert rest == {"step": 1, "nested": [{}], "vector": [0.5]}


def test_a_preview_of_any_picture_fits_into_its_limit() -> None:
    noise = Pil.fromarray(np.random.default_rng(0).integers(0, 255, (3000, 2000, 4), np.uint8), "RGBA")

    preview = pictures.preview(noise)

    assert len(preview["url"]) <= pictures.MAX_PREVIEW_BYTES
    assert preview["height"] > preview["width"]


def test_messages_survive_any_cutting_of_the_stream() -> None:
    sent = [
        protocol.Place([0, 1]),
        protocol.Done("id", '{"big": 1}', 0.1, 0.2, True, None, [["/a", "/p", "n", "t", {"seed": 1}]]),
        protocol.Stop(1.5),
    ]
    stream = b"".join(protocol.pack(message) for message in sent)
    unpacker = protocol.Unpacker()

    received = [message for byte in stream for message in unpacker.feed(bytes([byte]))]

    assert received == sent


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\3\x92\xa1X", protocol.pack(protocol.Ready())[:4] + b"hello!!!"],
)
def test_bytes_that_are_no_messages_are_refused(garbage: bytes) -> None:
    with pytest.raises(protocol.ProtocolViolationError):
        list(protocol.Unpacker().feed(garbage))


def test_errors_of_ranks_cross_the_socket_as_what_they_mean() -> None:
    failed = RankFailed(rank=1, type_name="KeyError", message="'a'", traceback="Traceback ...")
    crossed = [
        failures.revive(failures.describe(error))
        for error in (failed, RankDied(rank=0, exit_code=-9), CallCancelled("stop"), ValueError("own"))
    ]
    refused = failures.revive(failures.describe(InvalidInput("no", errors=[{"loc": ["a"], "msg": "b", "type": "c"}])))

    assert [type(error) for error in crossed] == [AppError, WorkerCrashed, JobCancelled, AppError]
    assert (crossed[0].type_name, crossed[0].traceback) == ("KeyError", "Traceback ...")
    assert crossed[1].hint == RankDied.hint
    assert refused.errors == [{"loc": ["a"], "msg": "b", "type": "c"}]


@pytest.mark.parametrize(
    ("returned", "light"),
    [
        (None, True),
        ({"at": 1.5, "texts": ["a", "b"], "inner": {"is": True}}, True),
        (Inner(when=dt.date(2026, 1, 1), colour=Colour.RED, share=0.5), False),
        ({"numbers": list(range(1000))}, False),
        ({"text": "a" * 20_000}, False),
        ({"picture": Pil.new("RGB", (2, 2))}, False),
        ({"path": Path("a.png")}, False),
        ([File.from_bytes(b"a", content_type="text/plain")], False),
    ],
)
def test_only_what_takes_no_time_is_rendered_on_the_loop(returned: Any, light: bool) -> None:
    assert is_light(returned) is light
