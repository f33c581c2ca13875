"""Bodies that callers send, and how they are read: strict JSON, nothing unknown, nothing that Postgres cannot hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import orjson
import pydantic
from anyio import to_thread
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from stoker.depth import MAX_DEPTH, is_too_deep
from stoker.errors import InvalidRequest
from stoker.manifest import MOST_KEPT_S

MAX_SECONDS = 30 * 24 * 3600
THREAD_BYTES = 64_000
"""Larger bodies are read and checked in a thread: other requests would wait for them."""
MEDIA_TYPE = r"[A-Za-z0-9.+-]{1,60}/[A-Za-z0-9.+-]{1,60}"
FILE_NAME = r"^([^\x00-\x1f\x7f/\\]*[^\x00-\x1f\x7f/\\.][^\x00-\x1f\x7f/\\]*|\.{3,})$"
"""A file's own name: no folder's, not the one above, and nothing that ends a line."""
NUL_ESCAPE = b"\\u0000"
NO_CAP = 2**31 - 1
MOST_EXACT = 2**53
"""Beyond it a float is no longer one whole number."""

DATE = re.compile(r"\d{4}-")
MOST_AHEAD = timedelta(days=3653)


def _in_reach(moment: datetime) -> datetime:
    """In UTC, where a day near the end of the calendar may not exist, and not further ahead than anybody plans."""
    try:
        moment = moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("this time cannot be said in UTC") from error
    if moment > datetime.now(UTC) + MOST_AHEAD:
        raise ValueError("this time is more than ten years ahead")
    return moment


def _without_point(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < MOST_EXACT else value


def _is_written(value: Any) -> Any:
    """A number is no time: whether it counts seconds or milliseconds, and from when, would be guessed."""
    if not isinstance(value, str) or DATE.match(value) is None:
        raise PydanticCustomError("datetime_type", "Input should be a time as 2026-01-31T12:00:00Z")
    return value


Written = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_is_written)]
Moment = Annotated[Written, AfterValidator(_in_reach)]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS)]
Kept = Annotated[float, Field(strict=True, gt=0, le=MOST_KEPT_S)]
Label = Annotated[str, Field(min_length=1, max_length=100)]


class JsonRequest(Request):
    """A request whose body is read by orjson: NaN, Infinity, broken UTF-8 and lone surrogates are no JSON.

    What is nested too deeply is refused like them.
    """

    async def json(self) -> Any:
        body = await self.body()
        return await to_thread.run_sync(_read, body) if len(body) > THREAD_BYTES else _read(body)


class JsonRoute(APIRoute):
    """A route that reads its body as ``JsonRequest`` does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        wants_json = self.body_field is not None

        async def read_strictly(request: Request) -> Response:
            if wants_json:
                _check_media_type(request.headers.get("content-type", ""))
            return await handle(JsonRequest(request.scope, request.receive))

        return read_strictly


class Body(BaseModel):
    """What is a number is no text and no flag, and the other way round."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, data: Any) -> Any:
        """12.0 is a whole number, as JSON Schema has it."""
        return {name: _without_point(value) for name, value in data.items()} if isinstance(data, dict) else data


def _check_webhook(url: str | None) -> str | None:
    if url is not None and not url.startswith(("https://", "http://")):
        raise ValueError("a webhook_url begins with https://")
    return url


class NewJobBody(Body):
    """A job to accept. ``input`` must fit the endpoint's schema."""

    app: Annotated[str, Field(min_length=1, max_length=200, examples=["stoker/text-to-image"])]
    endpoint: Annotated[str, Field(max_length=200)] = "/"
    input: dict[str, Any] = Field(default_factory=dict)
    priority: Annotated[int, Field(ge=0, le=9, description="0 is first. Default 5.")] | None = None
    webhook_url: Annotated[
        str | None, Field(max_length=2000, json_schema_extra={"pattern": "^https?://"}), AfterValidator(_check_webhook)
    ] = None
    run_at: Annotated[Moment | None, Field(description="Not before this time.")] = None
    start_timeout: Annotated[Seconds | None, Field(description="Fail unless started within so many seconds.")] = None
    run_timeout: Annotated[Seconds | None, Field(description="Fail an attempt that runs longer, in seconds.")] = None
    max_attempts: Annotated[int | None, Field(ge=1, le=20)] = None
    tags: Annotated[list[Label], Field(max_length=20)] = Field(default_factory=list)
    store_io: Annotated[
        bool | None, Field(strict=True, description="False: input and result are removed soon after the job's end.")
    ] = None
    keep_outputs: Annotated[Kept | None, Field(description="Seconds after the job's end until its outputs expire.")] = (
        None
    )
    no_retry: Annotated[bool, Field(strict=True, description="Whatever ends an attempt ends the job.")] = False

    @pydantic.model_serializer(mode="wrap")
    def _as_asked(self, dump: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what was not asked for, so that a request sent before there were such wishes is the same still."""
        unasked = {"store_io": None, "keep_outputs": None, "no_retry": False}
        return {name: value for name, value in dump(self).items() if name not in unasked or value != unasked[name]}


class NewUploadBody(Body):
    """A file that the caller will PUT to the object store."""

    file_name: Annotated[str, Field(min_length=1, max_length=200, pattern=FILE_NAME)]
    content_type: Annotated[str, Field(max_length=121, pattern=f"^{MEDIA_TYPE}$"), AfterValidator(str.lower)]
    size_bytes: Annotated[int, Field(ge=0, lt=MOST_EXACT)]
    keep: Annotated[Kept | None, Field(description="Seconds that it is to be kept.")] = None


class NewKeyBody(Body):
    """A key for the caller's own tenant."""

    scopes: Annotated[list[Literal["run", "read", "admin"]], Field(min_length=1, max_length=3)]
    name: Annotated[str, Field(max_length=100)] = ""
    expires_at: Moment | None = None
    best_priority: Annotated[int | None, Field(ge=0, le=9, description="Default: as good as the caller's.")] = None


class NewSecretBody(Body):
    """A secret to sign the tenant's webhooks with."""

    at_once: Annotated[bool, Field(description="The one before is void now, not in a day.")] = False


class AppLimitsBody(Body):
    """What to change about an app's queue: what is left out stays."""

    max_running: Annotated[int | None, Field(ge=1, lt=NO_CAP, description="Jobs at once; null: no limit.")] = None
    max_queue_length: Annotated[int | None, Field(ge=1, lt=NO_CAP, description="May wait; null: no limit.")] = None


class TenantBody(Body):
    """What to change about a tenant: what is left out stays."""

    weight: Annotated[float | None, Field(ge=0.001, le=1000, description="Twice the weight, twice the GPUs.")] = None
    max_running: Annotated[int | None, Field(ge=1, lt=NO_CAP, description="Of a lane, at once; null: no cap.")] = None
    max_requests_per_s: Annotated[
        float | None, Field(ge=0.001, lt=NO_CAP, description="Of all its keys; null: no limit.")
    ] = None
    max_waiting: Annotated[int | None, Field(ge=1, lt=NO_CAP, description="Jobs of all apps; null: no limit.")] = None


def _check_media_type(content_type: str) -> None:
    kind = content_type.partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise InvalidRequest(f"the body is {kind[:100]}", hint="Send the header Content-Type: application/json.")


def _read(body: bytes) -> Any:
    value = orjson.loads(body)
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and is_too_deep(value):
        raise json.JSONDecodeError(f"nested deeper than {MAX_DEPTH} levels", "", 0)
    if NUL_ESCAPE in body and _holds_nul(value):
        raise json.JSONDecodeError("strings may not hold the character U+0000", "", 0)
    return value


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in name or _holds_nul(inner) for name, inner in value.items())
    return isinstance(value, list) and any(_holds_nul(inner) for inner in value)
