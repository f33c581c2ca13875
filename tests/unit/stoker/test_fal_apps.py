"""Apps in fal's form: their names and settings, their endpoints, their streams."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pil
from pydantic import BaseModel

from stoker.app import current_call
from stoker.compat import fal
from stoker.compat.fal import Response, StreamingResponse, toolkit
from stoker.compat.fal.app import ATTRIBUTES
from stoker.compat.fal.streams import MOST_PREVIEW_SIGNS, result_of
from stoker.errors import AppDefinitionError, AppError, ConfigurationError
from stoker.events import EventKind

DOCS = Path(__file__).parents[3] / "docs" / "from-fal.md"


class Words(BaseModel):
    text: str = ""


class Call:
    """What an endpoint emits."""

    def __init__(self) -> None:
        self.events: list[tuple[EventKind, Mapping[str, Any]]] = []

    def emit(self, kind: EventKind, data: Mapping[str, Any]) -> None:
        self.events.append((kind, data))


@pytest.fixture
def call() -> Iterator[Call]:
    token = current_call.set(call := Call())  # type: ignore[arg-type]
    yield call
    current_call.reset(token)


class TextToImageXL(fal.App, keep_alive=60, min_concurrency=2, max_concurrency=3):
    request_timeout = 30

    def setup(self) -> None:
        self.is_set_up = True

    @fal.endpoint("/")
    def blocking(self, request: Words) -> Words:
        """Runs in a thread."""
        return request

    @fal.endpoint("/with-response")
    async def with_response(self, request: Words, response: Response) -> Words:
        response.headers["x-anything"] = "1"
        return request


def test_a_class_has_a_name_and_settings_without_saying_so() -> None:
    app = TextToImageXL

    assert (app.name, app.keep_alive, app.min_runners, app.owns_ranks) == ("local/text-to-image-xl", 60, 1, False)
    assert {found.options.run_timeout_s for found in app.endpoints.values()} == {30.0}
    assert app.endpoints["/"].request is app.endpoints["/"].response is Words


def test_a_name_of_its_own_is_taken() -> None:
    class Named(fal.App):
        app_name = "acme/flux"

        @fal.endpoint("/")
        async def answer(self, request: Words) -> dict:
            return {}

    assert Named.name == "acme/flux"


def test_what_means_nothing_here_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "stoker.compat.fal"):

        class Told(fal.App, max_concurrency=2):
            machine_type = "GPU-H100"

            @fal.endpoint("/", health_check=object())
            async def answer(self, request: Words) -> dict:
                return {}

    told = [record.getMessage() for record in caplog.records]
    assert "machine_type" in told[-1]
    assert "max_concurrency" in told[-1]
    assert "health_check" in told[0]


def test_a_websocket_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(AppDefinitionError, match="websocket"):
        fal.endpoint("/realtime", is_websocket=True)


def test_the_page_says_of_each_setting_what_becomes_of_it() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (honoured|mapped|ignored) \|", DOCS.read_text(), re.MULTILINE)

    assert dict(rows) == ATTRIBUTES


@pytest.mark.anyio
async def test_blocking_methods_and_those_that_want_a_response_are_called_as_they_stand() -> None:
    app = TextToImageXL()
    await app.setup()

    assert app.is_set_up
    assert (await app.blocking(Words(text="a"))).text == "a"
    assert (await app.with_response(Words(text="b"))).text == "b"
    assert (await app.with_response(Words(text="c"), Response())).text == "c"


def inline(side: int, kind: str = "JPEG") -> dict[str, Any]:
    buffer = io.BytesIO()
    Pil.effect_noise((side, side), 90).save(buffer, kind)
    url = f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"url": url, "content_type": f"image/{kind.lower()}", "width": side, "height": side, "data": None}


@pytest.mark.anyio
async def test_a_stream_becomes_the_jobs_events_and_its_last_one_the_result(call: Call) -> None:
    told = [("", {"step": 1}), ("progress", {"step": 2, "image": inline(400)}), ("result", {"image": inline(64)})]
    whole = ": ping\n\n" + "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in told)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), 1000):  # ends nowhere in particular
            yield whole[start : start + 1000].encode()

    result = await result_of(StreamingResponse(chunks()))

    kinds = [(kind, data.get("step")) for kind, data in call.events]
    assert kinds == [(EventKind.PROGRESS, 1), (EventKind.PROGRESS, 2), (EventKind.PREVIEW, 2)]
    preview = call.events[-1][1]["image"]
    assert len(preview["url"]) <= MOST_PREVIEW_SIGNS < len(inline(400)["url"])
    assert isinstance(result["image"], toolkit.Image)
    assert result["image"].to_pil().size == (64, 64)


@pytest.mark.anyio
async def test_an_error_in_a_stream_is_an_error_of_the_app(call: Call) -> None:
    content = iter(['event: error\ndata: {"error": "no such style"}\n\n'])

    with pytest.raises(AppError, match="no such style"):
        await result_of(StreamingResponse(content))


def test_files_of_the_toolkit_are_files_of_ours(tmp_path: Path) -> None:
    picture = toolkit.Image.from_pil(Pil.new("RGB", (4, 3)), format="jpg", repository="cdn")
    text = toolkit.File.from_bytes(b"hello", "text/plain", repository="fal_v3")
    saved = text.save(tmp_path / "a" / "hello.txt")

    assert (picture.content_type, picture.width, picture.height) == ("image/jpeg", 4, 3)
    assert isinstance(picture, toolkit.File)
    assert toolkit.File.from_path(saved).as_bytes() == text.as_bytes() == b"hello"
    with pytest.raises(FileExistsError):
        text.save(saved)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", ""])
def test_a_client_is_pointed_to_nothing_that_is_no_url(url: str) -> None:
    with pytest.raises(ConfigurationError):
        fal.patch(url)
