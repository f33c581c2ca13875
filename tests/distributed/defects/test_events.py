"""What ranks add while they work: each event once, in its own call, in the form that the caller asked for."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

from tests.distributed.defects.workers import noise
from worker_node.distributed import DistributedRunner, RankEvent
from worker_node.distributed.text_events import text_event

pytestmark = pytest.mark.anyio


def data_of(event: bytes) -> Any:
    return json.loads(event.decode().splitlines()[2].removeprefix("data: "))


def file_of(image: dict[str, Any]) -> tuple[str, bytes]:
    head, _, data = image["url"].partition(",")
    return head, base64.b64decode(data)


async def test_defect_01_every_event_of_every_rank_comes_before_the_result_and_none_in_the_next_stream(
    pair: DistributedRunner,
):
    seen: list[RankEvent] = []

    result = await pair.call({"do": "emit", "count": 1000, "ranks": [0, 1], "tag": "t"}, on_event=seen.append)
    following = [item async for item in pair.stream({"do": "echo"})]

    assert result == "t"
    for rank in (0, 1):
        assert [event.data["number"] for event in seen if event.rank == rank] == list(range(1000))
    assert len(following) == 1


async def test_defect_02_events_added_during_invoke_do_not_reach_the_next_stream(pair: DistributedRunner):
    await pair.invoke({"do": "emit", "count": 20, "ranks": [0, 1], "tag": "first"})

    streamed = [item async for item in pair.stream({"do": "emit", "count": 2, "ranks": [0], "tag": "second"})]

    assert [item if isinstance(item, str) else item["tag"] for item in streamed] == ["second"] * 3


async def test_defect_02_a_coroutine_that_outlives_its_call_adds_nothing_to_a_later_one(single: DistributedRunner):
    await single.invoke({"do": "leave_coroutine"})

    streamed = [item async for item in single.stream({"do": "let_coroutine_go"})]

    assert streamed == ["mine", "whole"]


async def test_defect_10_nothing_polls_while_a_call_waits(single: DistributedRunner, monkeypatch: pytest.MonkeyPatch):
    loop = asyncio.get_running_loop()
    begun, call_at = loop.time(), loop.call_at
    timers: list[float] = []

    def noted(when: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        timers.append(when - begun)
        return call_at(when, *args, **kwargs)

    # Every sleep, timeout and wait of asyncio asks the loop for a timer with this.
    monkeypatch.setattr(loop, "call_at", noted)
    await single.invoke({"do": "all_reduce"})
    streamed = [item async for item in single.stream({"do": "emit", "count": 3, "ranks": [0]})]

    assert len(streamed) == 4
    # What is left is the runner's own limit of a call, a day away.
    assert [round(timer) for timer in timers if timer < 86_000] == []
    assert timers != []


@pytest.mark.parametrize("as_text_event", [False, True])
async def test_defect_16_the_caller_alone_chooses_between_values_and_text(
    single: DistributedRunner, as_text_event: bool
):
    payload = {"do": "emit_as", "as_text_event": as_text_event}

    values = [item async for item in single.stream(payload)]
    texts = [item async for item in single.stream(payload, as_text_events=True)]

    assert values == [{"step": 1}, "whole"]
    assert [data_of(text) for text in texts] == [{"step": 1}, "whole"]


async def test_defect_17_text_events_have_id_event_and_data(single: DistributedRunner):
    raw = [item async for item in single.stream({"do": "emit", "count": 1, "ranks": [0]}, as_text_events=True)]

    assert raw[0] == b'id: 1\nevent: progress\ndata: {"tag": "", "rank": 0, "number": 0}\n\n'
    assert raw[1] == b'id: 2\nevent: result\ndata: ""\n\n'


async def test_defect_17_a_streamed_error_is_an_event_of_its_own_kind_and_the_call_goes_on(single: DistributedRunner):
    seen: list[RankEvent] = []

    result = await single.call({"do": "emit_error"}, on_event=seen.append)
    text = [item async for item in single.stream({"do": "emit_error"}, as_text_events=True)]

    assert result == "whole"
    assert seen[0].is_error
    assert seen[0].data == {"error": "half of it failed", "error_type": "ValueError"}
    assert text[0].startswith(b"id: 1\nevent: error\n")


async def test_defect_17_a_stream_of_text_events_that_is_silent_says_that_it_lives(pair: DistributedRunner):
    stepping, ping = b'id: 1\nevent: progress\ndata: "stepping"\n\n', b": ping\n\n"
    seen: list[bytes] = []

    # The worker adds one event and no more, and would step for ever.
    async for item in pair.stream({"do": "step_until_cancelled"}, as_text_events=True):
        seen.append(item)
        if item == ping and stepping in seen:
            break

    assert set(seen) == {stepping, ping}


async def test_defect_20_intermediate_images_have_the_asked_format_and_their_alpha_in_tuples_too(
    single: DistributedRunner,
):
    payload = {"do": "emit_images", "formats": ["png", "webp", "jpeg"]}

    found = [data_of(item)[0] async for item in single.stream(payload, as_text_events=True)]

    # JPEG has no alpha: what asks for it with alpha is sent as PNG, the result as well.
    for each, image_format in zip(found, ["png", "webp", "png", "png"], strict=True):
        head, file = file_of(each)
        image = Image.open(io.BytesIO(file))
        assert head == f"data:image/{image_format};base64"
        assert (image.format, image.mode) == (image_format.upper(), "RGBA")
        assert (each["width"], each["height"]) == image.size
        if image_format == "png":
            assert image.tobytes() == noise("RGBA").tobytes()


@pytest.mark.parametrize(
    ("asked", "mode", "sent"),
    [
        ("jpeg", "RGB", "jpeg"),
        ("jpg", "P", "jpeg"),
        ("jpeg", "RGBA", "png"),
        ("jpeg", "LA", "png"),
        ("png", "RGB", "png"),
        ("webp", "RGBA", "webp"),
    ],
)
def test_defect_20_images_of_every_kind_are_encoded_in_the_asked_format_and_keep_their_alpha(
    asked: str, mode: str, sent: str
):
    found = data_of(text_event(1, "progress", {"preview": Image.new(mode, (4, 3))}, image_format=asked))["preview"]

    head, file = file_of(found)
    image = Image.open(io.BytesIO(file))
    assert head == f"data:image/{sent};base64"
    assert (image.format, image.size) == (sent.upper(), (4, 3))
    assert ("A" in image.mode) == ("A" in mode)


async def test_defect_22_images_arrive_pixel_for_pixel_and_are_encoded_once(single: DistributedRunner):
    original, once = noise("RGB"), io.BytesIO()
    original.save(once, format="jpeg", quality=95)

    arrived = await single.invoke({"do": "noise", "mode": "RGB"})
    *_, last = [item async for item in single.stream({"do": "noise", "mode": "RGB"}, as_text_events=True)]

    assert (arrived.mode, arrived.size, arrived.tobytes()) == (original.mode, original.size, original.tobytes())
    assert file_of(data_of(last)) == ("data:image/jpeg;base64", once.getvalue())
