"""Calls: what an endpoint asks of other apps, on its way to the supervisor and back.

The supervisor starts the jobs and waits for them (``worker_node.children``); here a request becomes JSON and a result
gets its Files. ``served_call`` has one ``Children`` for each call that it serves.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from stoker.errors import AppError, CallRefused
from stoker.files import File, Image
from worker_node.apphost import failures, protocol
from worker_node.apphost.link import Link

MAX_KEY = 200


class Children:
    """The calls of other apps that one call has made."""

    def __init__(self, link: Link, call_id: str) -> None:
        self._link, self._call_id = link, call_id
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[protocol.CallEnded]] = {}

    async def call(
        self, app: str, request: BaseModel | Mapping[str, Any], endpoint: str, key: str | None
    ) -> dict[str, Any]:
        """Ask the supervisor, and wait for the end.

        Raises:
            ChildFailed, ChildCancelled: the job was started, and did not succeed.
            CallRefused: it was not started.
        """
        if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY and key.isprintable()):
            raise CallRefused(f"{key!r:.80} cannot be a key", hint=f"A text of 1 to {MAX_KEY} printable characters.")
        text = request_json(request)
        number = next(self._numbers)
        ended: asyncio.Future[protocol.CallEnded] = asyncio.get_running_loop().create_future()
        self._waiting[number] = ended
        self._link.send(protocol.CallApp(self._call_id, number, str(app), str(endpoint), text, key))
        try:
            answer = await ended
        except asyncio.CancelledError:
            self._link.send(protocol.LeaveCall(self._call_id, number))
            raise
        finally:
            del self._waiting[number]
        if answer.error is not None:
            raise _as_raised_here(answer.error)
        return with_files(json.loads(answer.result_json), answer.files)

    def ended(self, answer: protocol.CallEnded) -> None:
        """Take in an answer of the supervisor."""
        waiting = self._waiting.get(answer.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def leave(self) -> None:
        """The call has ended: whatever of it still waits for an answer would wait for ever."""
        for waiting in self._waiting.values():
            waiting.cancel()


def request_json(request: BaseModel | Mapping[str, Any]) -> str:
    """A request as JSON text.

    Raises:
        CallRefused: JSON has no form for it, it is too large, or the bytes of one of its Files are here alone.
    """
    if not isinstance(request, BaseModel | Mapping):
        raise CallRefused(f"a request is a model or a dict, not {type(request).__name__}")
    if any(not file.url for file in files_of(request)):
        raise CallRefused(
            "a File of the request lies on this machine alone",
            hint="Pass one that came with the job's request or from another call, or a data URI.",
        )
    try:
        text = json.dumps(to_jsonable_python(request), allow_nan=False, ensure_ascii=False)
    except (PydanticSerializationError, ValueError) as error:
        raise CallRefused(f"the request cannot be JSON: {error}", hint="Use types that JSON has.") from error
    if len(text) > protocol.MAX_RESULT_BYTES:
        message = f"the request has {len(text)} characters of JSON, {protocol.MAX_RESULT_BYTES} are allowed"
        raise CallRefused(message, hint="Put large data into a File.")
    return text


def with_files(result: dict[str, Any], pointers: list[str]) -> dict[str, Any]:
    """``result`` with a File at each pointer."""
    for pointer in pointers:
        place: Any = result
        *path, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer.lstrip("/").split("/"))
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place[part]
        at: Any = int(last) if isinstance(place, list) else last
        kind = Image if {"width", "height"} <= place[at].keys() else File
        place[at] = kind.model_validate(place[at])
    return result


def files_of(value: Any) -> Iterator[File]:
    """Every File in a request."""
    if isinstance(value, File):
        yield value
    elif isinstance(value, BaseModel):
        for _, item in value:
            yield from files_of(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from files_of(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from files_of(item)


def _as_raised_here(described: dict[str, Any]) -> Exception:
    """The error with the place where the app called as its traceback, not the supervisor's."""
    error = failures.revive(described)
    if isinstance(error, AppError):
        error.traceback = ""
    return error
