"""Streams of fal's apps: the text events that an endpoint yields become the job's events, and its last one the result.

An app of ours needs none of this: what its ranks stream are events already.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from stoker.app import current_call
from stoker.compat.fal.toolkit import File, Image
from stoker.errors import AppError
from stoker.events import EventKind

MOST_PREVIEW_SIGNS = 20_000
SIDES = (256, 192, 128, 64)


class Response:
    """What an endpoint may set on its answer: taken, and not sent, since a job's result is no HTTP response."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.status_code = 200


class StreamingResponse:
    """An endpoint's answer in text events, ``data: {...}`` and an empty line each."""

    def __init__(
        self, content: Any, status_code: int = 200, headers: Any = None, media_type: str | None = None
    ) -> None:
        self.body_iterator, self.status_code, self.headers, self.media_type = content, status_code, headers, media_type


async def result_of(answer: Any) -> dict[str, Any]:
    """Send the events of a stream on as the job's; its last one, with pictures as Files."""
    emit = current_call.get().emit
    result: dict[str, Any] = {}
    async for name, data in _events(answer.body_iterator):
        if name == "error":
            raise AppError(str(data.get("error") or data.get("message") or data), type_name=str(data.get("code", "")))
        result = data
        if name != "result":
            _send(emit, data)
    return {key: _as_file(value) for key, value in result.items()}


def _send(emit: Any, data: Mapping[str, Any]) -> None:
    plain = {key: value for key, value in data.items() if not _is_inline(value)}
    if plain:
        emit(EventKind.PROGRESS, plain)
    for value in data.values():
        if _is_inline(value):
            emit(EventKind.PREVIEW, {**plain, "image": _small(value)})


async def _events(content: Any) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Name and data of each event; chunks need not end where events do."""
    waiting = ""
    async for chunk in _chunks(content):
        waiting += chunk.decode() if isinstance(chunk, bytes) else str(chunk)
        *whole, waiting = waiting.replace("\r\n", "\n").split("\n\n")
        for text in whole:
            fields = dict(_fields(text))
            if "data" in fields:
                data = json.loads(fields["data"])
                yield fields.get("event", ""), data if isinstance(data, dict) else {"data": data}


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        if name:
            yield name, value.removeprefix(" ")


async def _chunks(content: Any) -> AsyncIterator[Any]:
    if hasattr(content, "__aiter__"):
        async for chunk in content:
            yield chunk
    else:
        for chunk in content:
            yield chunk


def _is_inline(value: Any) -> bool:
    return isinstance(value, dict) and str(value.get("url", "")).startswith("data:")


def _as_file(value: Any) -> Any:
    """A picture or file that came inline as a File; other things stay."""
    if isinstance(value, list):
        return [_as_file(item) for item in value]
    if not isinstance(value, dict):
        return value
    if not _is_inline(value):
        return {key: _as_file(item) for key, item in value.items()}
    content_type = str(value.get("content_type") or value["url"][5:].partition(";")[0])
    if content_type.startswith("image/"):
        size = {name: value.get(name) for name in ("width", "height")}
        return Image.from_bytes(_bytes(value["url"]), content_type=content_type, **size)
    return File.from_bytes(_bytes(value["url"]), content_type=content_type)


def _small(value: Mapping[str, Any]) -> dict[str, Any]:
    """A preview that the job's events may carry."""
    shown = {name: value[name] for name in ("url", "content_type", "width", "height") if name in value}
    if len(value["url"]) <= MOST_PREVIEW_SIGNS:
        return shown
    from PIL import Image as Pil

    picture = Pil.open(io.BytesIO(_bytes(value["url"]))).convert("RGB")
    for side in SIDES:
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=70)
        url = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        if len(url) <= MOST_PREVIEW_SIGNS:
            break
    return {"url": url, "content_type": "image/jpeg", "width": picture.width, "height": picture.height}


def _bytes(url: str) -> bytes:
    try:
        return base64.b64decode(url.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise AppError("a picture of the stream is no base64", type_name="ValueError") from error
