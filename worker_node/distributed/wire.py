"""The codec: values to frames and back. msgpack for structure, one raw frame for each tensor, array or image.

No pickle and nothing that can name code. Only the tags below turn into objects, so a user's dict stays what it was,
whatever its keys. Knows nothing of sockets or of what a message means; ``media`` knows tensors, arrays and images.
"""

from __future__ import annotations

import datetime as dt
import pathlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import msgpack

from worker_node.distributed import media
from worker_node.distributed.errors import SerializationFailed
from worker_node.distributed.media import Frame
from worker_node.distributed.shelf import Shelf

_TUPLE: Final = 1
_SET: Final = 2
_FROZENSET: Final = 3
_BIG_INT: Final = 4
_PATH: Final = 5
_DATETIME: Final = 6
_DATE: Final = 7
_MEDIA: Final = 8

_DEEPEST: Final = 100
_PLAIN: Final = (str, bytes, bytearray, memoryview, int, float, type(None))


class _Encoder:
    """Collects the raw frames of one value while msgpack walks it."""

    def __init__(self, shelf: Shelf | None = None) -> None:
        self.frames: list[Frame] = []
        self._shelf = shelf

    def pack(self, value: Any) -> bytes:
        # Strict types send tuples and subclasses to `extend`; without it a tuple would silently come back as a list.
        packed: bytes = msgpack.packb(value, default=self.extend, strict_types=True, unicode_errors="surrogatepass")
        return packed

    def extend(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return msgpack.ExtType(_TUPLE, self.pack(list(value)))
        if isinstance(value, AbstractSet):
            tag = _SET if isinstance(value, set) else _FROZENSET
            return msgpack.ExtType(tag, self.pack(list(value)))
        if media.is_number(value):
            return media.to_number(value)
        if isinstance(value, Mapping | str | list | float | int):
            return _plain(value)
        if isinstance(value, pathlib.PurePath):
            return msgpack.ExtType(_PATH, str(value).encode(errors="surrogatepass"))
        if isinstance(value, dt.datetime):
            return msgpack.ExtType(_DATETIME, value.isoformat().encode())
        if isinstance(value, dt.date):
            return msgpack.ExtType(_DATE, value.isoformat().encode())
        found = media.split(value, self._shelf)
        if found is None:
            raise TypeError(f"{type(value).__module__}.{type(value).__qualname__} has no form on the wire")
        header, frame = found
        self.frames.append(frame)
        return msgpack.ExtType(_MEDIA, self.pack([len(self.frames), header]))


def _plain(value: Mapping[Any, Any] | str | list[Any] | float) -> Any:
    """Turn an instance of a subclass, or an integer that msgpack has no room for, into what can be packed."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list):
        return list(value)
    if isinstance(value, float):
        return float(value)
    number = int(value)
    return number if -(2**63) <= number < 2**64 else msgpack.ExtType(_BIG_INT, str(number).encode())


class _Decoder:
    """Reads values whose raw frames are at hand. No closures that know each other: what they held, large as it may be,
    would stay until the garbage collector comes by.
    """

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = frames

    def unpack(self, data: Frame) -> Any:
        return msgpack.unpackb(data, ext_hook=self._revive, strict_map_key=False, unicode_errors="surrogatepass")

    def _revive(self, tag: int, data: bytes) -> Any:
        if tag == _TUPLE:
            return tuple(self.unpack(data))
        if tag == _SET:
            return set(self.unpack(data))
        if tag == _FROZENSET:
            return frozenset(self.unpack(data))
        if tag == _BIG_INT:
            return int(data)
        if tag == _PATH:
            return pathlib.Path(data.decode(errors="surrogatepass"))
        if tag == _DATETIME:
            return dt.datetime.fromisoformat(data.decode())
        if tag == _DATE:
            return dt.date.fromisoformat(data.decode())
        if tag == _MEDIA:
            index, header = self.unpack(data)
            return media.join(header, self._frames[index])
        raise SerializationFailed(f"unknown tag {tag}")


def encode(value: Any, shelf: Shelf | None = None) -> list[Frame]:
    """Turn ``value`` into frames: the structure first, then the raw buffers that it refers to.

    The buffers are views of the value's own memory where that is possible: do not change it before they are sent.
    What is large and comes from a device is staged on the ``shelf``, if there is one.

    Raises:
        SerializationFailed: with the path of the part that has no form on the wire.
    """
    encoder = _Encoder(shelf)
    try:
        head = encoder.pack(value)
    except RecursionError as exc:
        raise SerializationFailed("nested too deeply, or contains itself") from exc
    except (TypeError, ValueError, OverflowError) as exc:
        path, reason = _culprit(value)
        raise SerializationFailed(reason or str(exc), path=path) from exc
    return [head, *encoder.frames]


def decode(frames: Sequence[Frame]) -> Any:
    """Turn frames back into the value.

    Raises:
        SerializationFailed: the frames are not what ``encode`` makes.
    """
    try:
        return _Decoder(frames).unpack(frames[0])
    except (ValueError, IndexError, KeyError, TypeError, msgpack.UnpackException) as exc:
        raise SerializationFailed(f"not a message of this library: {exc}") from exc


def _culprit(value: Any, path: str = "", depth: int = 0) -> tuple[str, str]:
    """Find the first part of ``value`` that cannot be encoded; walked only after a failure, so the good case pays
    nothing.
    """
    if depth > _DEEPEST:
        return path[:60] + "...", "nested too deeply, or contains itself"
    children: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        children = [(f"{path}.{key}" if path else str(key), child) for key, child in value.items()]
    elif isinstance(value, list | tuple | AbstractSet):
        children = [(f"{path}[{index}]", child) for index, child in enumerate(value)]
    elif not isinstance(value, _PLAIN):
        try:
            _Encoder().pack(value)
        except (TypeError, ValueError, OverflowError) as exc:
            return path, str(exc)
    for where, child in children:
        found = _culprit(child, where, depth + 1)
        if found[1]:
            return found
    return path, ""
