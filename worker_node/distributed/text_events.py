"""Text events: what a stream yields as Server-Sent Events, with id, event and data lines.

Pure. Images are encoded here and only here, once, in the asked format; tensors and arrays become base64 of their raw
bytes.
"""

from __future__ import annotations

import base64
import datetime as dt
import io
import json
import math
import pathlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from worker_node.distributed import media
from worker_node.distributed.errors import InvalidImageFormat, SerializationFailed

if TYPE_CHECKING:
    from PIL import Image

_RESULT_QUALITY, _PREVIEW_QUALITY = 95, 75
_MODES = {
    "jpeg": frozenset({"L", "RGB", "CMYK"}),
    "png": frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}),
    "webp": frozenset({"RGB", "RGBA"}),
}
"""The formats that are served, and what each can hold; other images are converted."""


def image_format_named(name: object) -> str:
    """Return the format that is meant.

    Raises:
        InvalidImageFormat: none is.
    """
    found = name.lower().replace("jpg", "jpeg") if isinstance(name, str) else ""
    if found not in _MODES:
        raise InvalidImageFormat(name)
    return found


def text_event(number: int, event: str, data: Any, *, image_format: str = "jpeg") -> bytes:
    """Format one event: ``event`` is progress, error or result."""
    quality = _RESULT_QUALITY if event == "result" else _PREVIEW_QUALITY
    text = json.dumps(_to_json(data, image_format, quality), ensure_ascii=False, allow_nan=False)
    return f"id: {number}\nevent: {event}\ndata: {text}\n\n".encode(errors="replace")


def comment() -> bytes:
    """Return a heartbeat that clients skip."""
    return b": ping\n\n"


def _to_json(value: Any, image_format: str, quality: int) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # JSON has no word for these, and browsers refuse the whole event over one.
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _to_json(item, image_format, quality) for key, item in value.items()}
    if isinstance(value, list | tuple | AbstractSet):
        return [_to_json(item, image_format, quality) for item in value]
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if isinstance(value, bytes):
        return {"url": _data_url("application/octet-stream", value), "content_type": "application/octet-stream"}
    header, frame = _split(value)
    if header[0] == "image":
        return _image(value, image_format, quality)
    url = _data_url("application/octet-stream", bytes(frame))
    return {"url": url, "content_type": "application/octet-stream", "dtype": header[1], "shape": header[2]}


def _split(value: Any) -> tuple[list[Any], media.Frame]:
    found = media.split(value)
    if found is None:
        raise SerializationFailed(f"{type(value).__qualname__} has no form in a text event")
    return found


def _image(image: Image.Image, image_format: str, quality: int) -> dict[str, Any]:
    name = image_format_named(image_format)
    if name == "jpeg" and image.has_transparency_data:
        # JPEG has no alpha: such an image is sent as PNG rather than flattened.
        name = "png"
    if image.mode == "La":
        # Pillow knows one way out of it.
        image = image.convert("LA")
    if image.mode not in _MODES[name]:
        try:
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        except ValueError as exc:
            raise SerializationFailed(f"an image of mode {image.mode} has no form as {name}: convert it first") from exc
    file = io.BytesIO()
    image.save(file, format=name, quality=quality)
    url = _data_url(f"image/{name}", file.getvalue())
    return {"url": url, "content_type": f"image/{name}", "width": image.width, "height": image.height}


def _data_url(content_type: str, data: bytes) -> str:
    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"
