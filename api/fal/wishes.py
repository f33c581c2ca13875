"""Wishes: what a caller of fal's wire asks for in ``X-Fal-*`` headers.

Read here, carried out by the core. What has no meaning here yet is named in the answer, so that nobody relies on it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated

import orjson
from fastapi import Depends, Request
from starlette.datastructures import Headers

from api.bodies import MAX_SECONDS
from stoker.errors import InvalidInput
from stoker.manifest import MOST_KEPT_S

DURATION = "expiration_duration_seconds"
SHOWN = re.compile(r"[a-z_]{1,40}")
"""Names of a wish's parts that an answer may repeat."""
LAST = 9
"""The priority behind all others."""
PRIORITIES = {"normal": None, "low": LAST}
STORE_IO = {"0": False, "1": True}
LIFECYCLE = ("x-fal-object-lifecycle-preference", "x-fal-object-lifecycle")
"""Their Python client sends both with an upload, their JavaScript client the first with a request."""
START_TIMEOUT = ("x-fal-request-start-timeout", "x-fal-request-timeout")
"""The newer name counts."""
NO_MEANING = ("x-fal-runner-hint", "x-fal-disable-fallbacks")
IGNORED = "x-stoker-ignored"
HEADERS = ["X-Fal-Target-Url", "X-Fal-Queue-Priority", "X-Fal-No-Retry", "X-Fal-Store-Io", "X-Fal-File-Name"]
HEADERS += [name.title() for name in (*START_TIMEOUT, *LIFECYCLE, *NO_MEANING)]
"""What a page of another origin may send."""


@dataclass(frozen=True)
class Wishes:
    """``priority`` None is the usual one. ``ignored``: headers that were sent and have no meaning here."""

    priority: int | None = None
    start_timeout_s: float | None = None
    max_attempts: int | None = None
    no_retry: bool = False
    store_io: bool | None = None
    keep_outputs_s: float | None = None
    ignored: tuple[str, ...] = ()

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says of it."""
        return {IGNORED: ", ".join(self.ignored)} if self.ignored else {}


def read(headers: Headers) -> Wishes:
    """The wishes in ``headers``.

    Raises:
        InvalidInput: one of them cannot be read.
    """
    priority = headers.get("x-fal-queue-priority", "normal").lower()
    if priority not in PRIORITIES:
        raise _wrong("x-fal-queue-priority", "Input should be 'normal' or 'low'", "literal_error")
    stored = headers.get("x-fal-store-io")
    if stored is not None and stored not in STORE_IO:
        raise _wrong("x-fal-store-io", "Input should be '0' or '1'", "literal_error")
    no_retry = headers.get("x-fal-no-retry", "").lower() in ("1", "true", "yes")
    keep_s, unheeded = lifecycle(headers)
    return Wishes(
        priority=PRIORITIES[priority],
        start_timeout_s=_seconds(headers),
        max_attempts=1 if no_retry else None,
        no_retry=no_retry,
        store_io=None if stored is None else STORE_IO[stored],
        keep_outputs_s=keep_s,
        ignored=(*(name for name in NO_MEANING if name in headers), *unheeded),
    )


def lifecycle(headers: Headers) -> tuple[float | None, tuple[str, ...]]:
    """How long an object is to be kept, in seconds; None: as others. And what of it has no meaning here.

    Raises:
        InvalidInput: it cannot be read.
    """
    name = next((name for name in LIFECYCLE if name in headers), None)
    if name is None:
        return None, ()
    try:
        wish = orjson.loads(headers[name])
    except orjson.JSONDecodeError as error:
        raise _wrong(name, "Input should be JSON", "json_invalid") from error
    if not isinstance(wish, dict):
        raise _wrong(name, "Input should be an object", "dict_type")
    seconds = wish.get(DURATION)
    if seconds is not None and (
        isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MOST_KEPT_S
    ):
        raise _wrong(name, f"{DURATION} should be null or seconds, at most {MOST_KEPT_S}", "float_type")
    return seconds, tuple(f"{name}.{part}" for part in sorted(wish) if part != DURATION and SHOWN.fullmatch(part))


def _seconds(headers: Headers) -> float | None:
    name = next((name for name in START_TIMEOUT if name in headers), None)
    if name is None:
        return None
    try:
        seconds = float(headers[name])
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_SECONDS:  # false for NaN, too
        raise _wrong(name, f"Input should be seconds, at most {MAX_SECONDS}", "float_parsing")
    return seconds


def _wrong(name: str, message: str, kind: str) -> InvalidInput:
    return InvalidInput(f"the header {name} is wrong", errors=[{"loc": ["header", name], "msg": message, "type": kind}])


async def _of(request: Request) -> Wishes:
    return read(request.headers)


async def _kept(request: Request) -> float | None:
    return lifecycle(request.headers)[0]


Wished = Annotated[Wishes, Depends(_of)]
"""The wishes of a request, as a route's parameter."""
KeepS = Annotated[float | None, Depends(_kept)]
"""How many seconds an uploaded file is to be kept, likewise."""
