"""Pictures: what ranks send as PIL images, arrays or tensors, as Files and as small previews.

PIL and numpy are imported only where a picture occurs. ``served_call`` uses it on streamed and final results.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stoker.files import File, Image

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MAX_PREVIEW_BYTES = 20_000
"""Of the whole data URI: one for each rank goes through Redis at every few steps."""
PREVIEW_SIDE = 256
_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}


def picture_of(value: Any) -> Picture | None:
    """``value`` as a PIL image: one itself, or an array or tensor that looks like one; None for anything else.

    A picture is uint8 of shape (H, W), (H, W, C) or (C, H, W), or floats from 0 to 1 of such a shape with C of 3 or 4.
    """
    pil, numpy, torch = (sys.modules.get(name) for name in ("PIL.Image", "numpy", "torch"))
    if pil is not None and isinstance(value, pil.Image):
        picture: Picture = value
        return picture
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().float().cpu().numpy() if value.is_floating_point() else value.detach().cpu().numpy()
    if numpy is None or not isinstance(value, numpy.ndarray):
        return None
    return _from_array(value)


def with_files(value: Any) -> Any:
    """``value`` with each picture and path in it as a File; other things stay what they are."""
    if isinstance(value, Mapping):
        return {key: with_files(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_files(item) for item in value]
    if isinstance(value, Path):
        return File.from_path(value)
    picture = picture_of(value)
    return value if picture is None else Image.from_picture(picture)


def take_pictures(data: Any) -> tuple[Any, list[Picture]]:
    """Split a streamed result into what is no picture, and the pictures in the order they stand."""
    found: list[Picture] = []

    def walk(value: Any) -> Any:
        picture = picture_of(value)
        if picture is not None:
            found.append(picture)
            return _GONE
        if isinstance(value, Mapping):
            kept = {key: walk(item) for key, item in value.items()}
            return {key: item for key, item in kept.items() if item is not _GONE} if kept else {}
        if isinstance(value, list | tuple):
            rest = [item for item in map(walk, value) if item is not _GONE]
            return rest if rest or not value else _GONE
        return value

    rest = walk(data)
    return (None if rest is _GONE else rest), found


def preview(picture: Picture) -> dict[str, Any]:
    """A small JPEG of ``picture`` as the ``image`` of a preview event, of at most ``MAX_PREVIEW_BYTES``."""
    small = picture.convert("RGB")
    side, quality = PREVIEW_SIDE, 80
    while True:
        small.thumbnail((side, side))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality)
        url = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        if len(url) <= MAX_PREVIEW_BYTES:
            return {"url": url, "content_type": "image/jpeg", "width": small.width, "height": small.height}
        side, quality = side * 3 // 4, 60


_GONE: Any = object()


def _from_array(array: Any) -> Picture | None:
    import numpy as np
    from PIL import Image as Pil

    if array.dtype.kind == "f" and array.ndim == 3 and array.size:
        if not (array.shape[0] in (3, 4) or array.shape[-1] in (3, 4)):
            return None
        array = (np.nan_to_num(array).clip(0, 1) * 255).round().astype(np.uint8)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or not array.size:
        return None
    if array.ndim == 2:
        return Pil.fromarray(np.ascontiguousarray(array))
    if array.shape[-1] not in _CHANNELS and array.shape[0] in _CHANNELS:
        array = array.transpose(1, 2, 0)
    if array.shape[-1] not in _CHANNELS:
        return None
    return Pil.fromarray(np.ascontiguousarray(array.squeeze(-1) if array.shape[-1] == 1 else array))
