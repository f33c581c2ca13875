"""Calls: what an endpoint asks of other apps, on its way to the supervisor and back.

The supervisor starts the jobs and waits for them (``worker_node.children``); here a request becomes JSON and a result
gets its Files. ``served_call`` has one ``Children`` for each call that it serves.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from stoker.errors import AppError, CallRefused
from stoker.files import File, Image
from worker_node.apphost import failures, protocol
from worker_node.apphost.link import Link
from worker_node.apphost.results import bring, pointer

MAX_KEY = 200


class Children:
    """The calls of other apps that one call has made. Files that they pass on lie beside ``folder`` for that time."""

    def __init__(self, link: Link, call_id: str, folder: Path) -> None:
        self._link, self._call_id, self._folder = link, call_id, folder
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
        number = next(self._numbers)
        folder = self._folder.with_name(f"{self._folder.name}.passed-on-{number}")
        try:
            text, files = await request_json(request, folder)
            ended: asyncio.Future[protocol.CallEnded] = asyncio.get_running_loop().create_future()
            self._waiting[number] = ended
            self._link.send(protocol.CallApp(self._call_id, number, str(app), str(endpoint), text, key, files))
            try:
                answer = await ended
            except asyncio.CancelledError:
                self._link.send(protocol.LeaveCall(self._call_id, number))
                raise
            finally:
                del self._waiting[number]
        finally:
            shutil.rmtree(folder, ignore_errors=True)
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


async def request_json(request: BaseModel | Mapping[str, Any], folder: Path) -> tuple[str, list[list[Any]]]:
    """A request as JSON text, with the bytes of the Files that were made here under ``folder``.

    Raises:
        CallRefused: JSON has no form for it, it is too large, or one of its Files is none.
    """
    if not isinstance(request, BaseModel | Mapping):
        raise CallRefused(f"a request is a model or a dict, not {type(request).__name__}")
    made = {secrets.token_hex(): file for file in files_of(request) if not file.url}
    if any(not file.is_local for file in made.values()):
        raise CallRefused("a File of the request has neither a link nor bytes", hint="Make it of a path or of bytes.")
    try:
        plain = _with_signs(request, made)
        files: list[list[Any]] = []
        if made:
            found = {at: made[place["url"]] for at, place in _objects(plain, ()) if place.get("url") in made}
            described, files = await asyncio.to_thread(bring, found, folder)
            for at, place in list(_objects(plain, ())):
                if at in described:
                    place |= described[at]
        text = json.dumps(plain, allow_nan=False, ensure_ascii=False)
    except AppError as error:
        raise CallRefused(f"a File of the request cannot be passed on: {error}", hint=error.hint) from error
    except (PydanticSerializationError, RecursionError, ValueError) as error:
        raise CallRefused(f"the request cannot be JSON: {error}", hint="Use types that JSON has.") from error
    if len(text) > protocol.MAX_RESULT_BYTES:
        message = f"the request has {len(text)} characters of JSON, {protocol.MAX_RESULT_BYTES} are allowed"
        raise CallRefused(message, hint="Put large data into a File.")
    return text, files


def _with_signs(request: BaseModel | Mapping[str, Any], made: Mapping[str, File]) -> Any:
    """The request as plain values, with a sign in place of the link that a File has not yet: it says where that is."""
    for sign, file in made.items():
        file.url = sign
    try:
        return to_jsonable_python(request)
    finally:
        for file in made.values():
            file.url = ""


def _objects(plain: Any, at: tuple[Any, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in plain values, with its JSON pointer."""
    if isinstance(plain, dict):
        yield pointer(at), plain
    items = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, item in items:
        yield from _objects(item, (*at, key))


def with_files(result: dict[str, Any], pointers: list[str]) -> dict[str, Any]:
    """``result`` with a File at each pointer."""
    for at in pointers:
        place: Any = result
        *path, last = (part.replace("~1", "/").replace("~0", "~") for part in at.lstrip("/").split("/"))
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place[part]
        key: Any = int(last) if isinstance(place, list) else last
        kind = Image if {"width", "height"} <= place[key].keys() else File
        place[key] = kind.model_validate(place[key])
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
