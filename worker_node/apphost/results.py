"""Results: what an endpoint returned, as JSON text and a list of files in the spool.

A File in a result may be anywhere; what marks its place is a JSON pointer. Values that JSON has no form for are an
``AppError`` that names the place. What is not light belongs in a thread: encoding pictures takes time.
"""

from __future__ import annotations

import enum
import json
import math
import mimetypes
import re
import shutil
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from stoker.depth import MAX_DEPTH, is_too_deep
from stoker.errors import AppError
from stoker.files import File, Image
from worker_node.apphost.pictures import picture_of
from worker_node.apphost.protocol import MAX_EVENT_BYTES, MAX_FILES, MAX_RESULT_BYTES

_UNKNOWN, _LONGEST_TYPE = "application/octet-stream", 255
_CONTENT_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(;[ -~]*)?", re.ASCII)
_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/gif": "GIF", "image/bmp": "BMP"}
_KEPT, _KEPT_SIGNS = ("step", "total", "rank", "level"), 8000
_LIGHT_PARTS, _LIGHT_SIGNS = 200, 10_000
TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels, or contains itself"


@dataclass(frozen=True)
class Rendered:
    """A result as it travels. ``files`` are (pointer, path, file name, content type, metadata)."""

    result_json: str
    files: list[list[Any]]


def render(returned: Any, response: type[BaseModel] | None, folder: Path) -> Rendered:
    """Turn what an endpoint returned into JSON, with the bytes of its Files under ``folder``.

    Raises:
        AppError: it is no object, breaks the response model, holds what JSON cannot say, or too much.
    """
    try:
        return _rendered(returned, response, folder)
    except RecursionError:
        raise _problem("", TOO_DEEP) from None


def _rendered(returned: Any, response: type[BaseModel] | None, folder: Path) -> Rendered:
    if returned is None and response is None:
        returned = {}
    if not isinstance(returned, BaseModel | Mapping):
        hint = "Return the response model, or a dict."
        raise AppError(f"the endpoint returned {type(returned).__name__}", type_name="TypeError", hint=hint)
    writer = _Writer(folder)
    if response is not None and not isinstance(returned, response):
        returned = _validated(response, writer.prepare(returned, ""))
    result = writer.write(returned, "")
    if is_too_deep(result):  # a value's own serializer may have made what the writer did not walk
        raise _problem("", TOO_DEEP)
    text = json.dumps(result, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    if len(text) > MAX_RESULT_BYTES:
        hint = "Put large data into a File: File.from_bytes(data, content_type=...)."
        raise AppError(f"the result has {len(text)} characters of JSON, {MAX_RESULT_BYTES} are allowed", hint=hint)
    return Rendered(text, writer.files)


def bring(made: Mapping[str, File], folder: Path) -> tuple[dict[str, dict[str, Any]], list[list[Any]]]:
    """The Files at these pointers as JSON has them, without links, and their bytes under ``folder``: as ``Rendered``.

    Raises:
        AppError: one of them cannot be written.
    """
    writer = _Writer(folder)
    return {at: writer.write(file, at) for at, file in made.items()}, writer.files


def is_light(returned: Any) -> bool:
    """Whether rendering it takes no longer than handing it to a thread would: a few numbers and short texts."""
    parts = [returned]
    for seen, part in enumerate(parts):  # grows as it goes
        if seen >= _LIGHT_PARTS or (isinstance(part, str) and len(part) > _LIGHT_SIGNS):
            return False
        if isinstance(part, BaseModel) and not isinstance(part, File):
            parts += [value for _, value in part]
        elif isinstance(part, dict):
            parts += part.values()
        elif isinstance(part, list | tuple):
            parts += part
        elif not (part is None or isinstance(part, str | int | float)):
            return False
    return True


def event_json(data: Any) -> str:
    """The data of an event as JSON: what JSON has no form for becomes text, NaN becomes null. Never fails for them.

    Of one that is too large, its numbers and the beginning of its message are left.
    """
    try:
        plain = to_jsonable_python(data, fallback=_loosely, inf_nan_mode="constants", bytes_mode="base64")
        if is_too_deep(plain):
            plain = {"message": f"an event nested deeper than {MAX_DEPTH} levels"}
    except ValueError as error:  # it contains itself
        plain = {"message": str(error)}
    finite = _finite(plain)
    text = json.dumps(finite, allow_nan=False, ensure_ascii=False)
    size = len(text.encode())
    return text if size <= MAX_EVENT_BYTES else json.dumps(_shortened(finite, size), ensure_ascii=False)


def _shortened(data: Any, size: int) -> dict[str, Any]:
    fields = data if isinstance(data, dict) else {}
    kept = {name: fields[name] for name in _KEPT if type(fields.get(name)) in (int, float) and abs(fields[name]) < 1e18}
    message = fields.get("message")
    if isinstance(message, str):
        return {**kept, "message": message[:_KEPT_SIGNS] + f" (cut: an event of {size} bytes)"}
    return {**kept, "message": f"left out: an event of {size} bytes, {MAX_EVENT_BYTES} are allowed"}


def _validated(response: type[BaseModel], value: Any) -> BaseModel:
    try:
        return response.model_validate(value)
    except ValidationError as error:
        places = "; ".join(f"{pointer(entry['loc']) or 'the result'}: {entry['msg']}" for entry in error.errors()[:5])
        hint = f"Return what {response.__name__} describes, or change the model."
        message = f"what the endpoint returned breaks {response.__name__}: {places}"
        raise AppError(message, type_name="ValidationError", hint=hint) from error


class _Writer:
    """Walks a result once and collects the files it meets."""

    def __init__(self, folder: Path) -> None:
        self.files: list[list[Any]] = []
        self._folder = folder

    def prepare(self, value: Any, at: str) -> Any:
        """Pictures and paths as Files, so that a response model with Files takes them."""
        if isinstance(value, Mapping):
            return {key: self.prepare(item, f"{at}/{key}") for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.prepare(item, f"{at}/{index}") for index, item in enumerate(value)]
        return _as_file(value, at)

    def write(self, value: Any, at: str, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise _problem(at, TOO_DEEP)
        if isinstance(value, enum.Enum):
            value = value.value
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, str):
            return _text(value, at)
        value = _as_file(value, at)
        if isinstance(value, File):
            return self._file(value, at)
        if isinstance(value, BaseModel):
            return self._model(value, at, depth)
        if isinstance(value, Mapping):
            return {_key(key, at): self.write(item, _join(at, str(key)), depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple | AbstractSet):
            return [self.write(item, _join(at, str(index)), depth + 1) for index, item in enumerate(value)]
        return _scalar(value, at)

    def _model(self, model: BaseModel, at: str, depth: int) -> dict[str, Any]:
        """Fields that hold Files are walked here; what remains is pydantic's, with its serializers and aliases."""
        ours = {name: value for name, value in model if _holds_file(value)}
        try:
            written: dict[str, Any] = model.model_dump(mode="python", by_alias=True, exclude=set(ours))
        except (PydanticSerializationError, ValueError, TypeError) as error:
            raise _problem(at, str(error)) from error
        result = {str(key): self.write(item, _join(at, str(key)), depth + 1) for key, item in written.items()}
        for name, value in ours.items():
            described = type(model).model_fields.get(name)
            if getattr(described, "exclude", None):
                continue
            key = getattr(described, "serialization_alias", None) or getattr(described, "alias", None) or name
            result[key] = self.write(value, _join(at, key), depth + 1)
        return result

    def _file(self, file: File, at: str) -> dict[str, Any]:
        fields: dict[str, Any] = file.model_dump(mode="json", by_alias=True)
        if file.source is None:
            return fields
        if not at:
            raise _problem(at, "a File alone is no result: put it into a field")
        if len(self.files) == MAX_FILES:
            hint = "Put what belongs together into one file, such as an archive, or do it in several jobs."
            raise AppError(f"there are more than {MAX_FILES} files in one result", hint=hint)
        content_type = file.content_type or _guess(file.file_name) or _UNKNOWN
        if len(content_type) > _LONGEST_TYPE or not _CONTENT_TYPE.fullmatch(content_type):
            content_type = _UNKNOWN  # no header could carry it, so no store would take the file
        name = _safe(
            file.file_name or at.strip("/").replace("/", "-") + (mimetypes.guess_extension(content_type) or "")
        )
        path = self._bring(file, content_type, f"{len(self.files)}-{name}", at)
        fields |= {"url": "", "content_type": content_type, "file_name": name, "file_size": path.stat().st_size}
        metadata = {key: item for key, item in fields.items() if key not in File.model_fields}
        self.files.append([at, str(path), name, content_type, metadata])
        return fields

    def _bring(self, file: File, content_type: str, name: str, at: str) -> Path:
        """Have the bytes in the spool, where the supervisor reads them after the endpoint's own folder may be gone."""
        source, path = file.source, self._folder / name
        self._folder.mkdir(parents=True, exist_ok=True)
        if isinstance(source, Path):
            if not source.is_file():
                raise _problem(at, f"there is no file at {source} any more")
            shutil.copyfile(source, path)
        elif isinstance(source, bytes):
            path.write_bytes(source)
        elif source is not None:
            kind = _FORMATS.get(content_type)
            if kind is None:
                raise _problem(at, f"a picture cannot be written as {content_type}")
            with path.open("wb") as stream:
                source.save(stream, format=kind)
        return path


def pointer(places: tuple[Any, ...]) -> str:
    """The JSON pointer of a place."""
    at = ""
    for place in places:
        at = _join(at, str(place))
    return at


def _join(at: str, key: str) -> str:
    return f"{at}/{key.replace('~', '~0').replace('/', '~1')}"


def _as_file(value: Any, at: str) -> Any:
    if isinstance(value, Path):
        if not value.is_file():
            raise _problem(at, f"there is no file at {value}")
        return File.from_path(value)
    picture = picture_of(value)
    return value if picture is None else Image.from_picture(picture)


def _holds_file(value: Any) -> bool:
    if isinstance(value, File | Path) or picture_of(value) is not None:
        return True
    if isinstance(value, BaseModel):
        return any(_holds_file(item) for _, item in value)
    if isinstance(value, Mapping):
        return any(map(_holds_file, value.values()))
    return isinstance(value, list | tuple | AbstractSet) and any(map(_holds_file, value))


def _scalar(value: Any, at: str) -> Any:
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise _problem(at, f"{value} is not a number in JSON")
    if isinstance(value, bytes | bytearray | memoryview):
        raise _problem(at, "bytes are not JSON", hint="Use File.from_bytes(data, content_type=...).")
    try:
        plain = to_jsonable_python(value)
    except (PydanticSerializationError, ValueError, TypeError):
        if callable(to_number := getattr(value, "item", None)) and _count(value) == 1:
            return _scalar(to_number(), at)
        raise _problem(at, f"{type(value).__module__}.{type(value).__qualname__} is not JSON") from None
    return _text(plain, at) if isinstance(plain, str) else plain


def _text(value: str, at: str) -> str:
    """PostgreSQL stores no NUL and UTF-8 has no lone surrogate."""
    if "\0" in value or any("\ud800" <= sign <= "\udfff" for sign in value):
        raise _problem(at, "the text holds a NUL or half a character")
    return str(value)


def _key(key: object, at: str) -> str:
    if isinstance(key, str | int) and not isinstance(key, bool):
        return _text(str(key), at)
    raise _problem(at, f"{key!r} cannot be the name of a JSON field")


def _problem(at: str, why: str, hint: str | None = None) -> AppError:
    return AppError(
        f"the result cannot be written as JSON, at {at or 'its root'}: {why}",
        type_name="TypeError",
        hint=hint or "Return numbers, texts, lists, dicts, pydantic models, Files, paths and pictures.",
    )


def _loosely(value: Any) -> Any:
    """Single numbers of numpy and torch as numbers, anything else as its text."""
    to_number = getattr(value, "item", None)
    return to_number() if callable(to_number) and _count(value) == 1 else repr(value)


def _count(value: Any) -> int:
    count: Any = getattr(value, "numel", None) or getattr(value, "size", 0)
    return int(count() if callable(count) else count)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value.encode(errors="replace").decode().replace("\0", "�") if isinstance(value, str) else value


def _guess(file_name: str | None) -> str | None:
    return mimetypes.guess_type(file_name)[0] if file_name else None


def _safe(name: str) -> str:
    """A name without folders or signs that links and headers stumble over."""
    return re.sub(r"[^\w.-]+", "-", Path(name).name).strip(".-")[-100:] or "file"
