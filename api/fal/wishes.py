"""Wishes: what a caller of fal's wire asks for in ``X-Fal-*`` headers.

Read here, carried out by the core. What has no meaning here yet is named in the answer, so that nobody relies on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import Headers

from api.bodies import MAX_SECONDS
from stoker.errors import InvalidInput

LAST = 9
"""The priority behind all others."""
PRIORITIES = {"normal": None, "low": LAST}
NO_MEANING = ("x-fal-store-io", "x-fal-object-lifecycle-preference", "x-fal-object-lifecycle", "x-fal-runner-hint")
IGNORED = "x-stoker-ignored"
HEADERS = ["X-Fal-Target-Url", "X-Fal-Queue-Priority", "X-Fal-Request-Timeout", "X-Fal-No-Retry", "X-Fal-File-Name"]
HEADERS += [name.title() for name in NO_MEANING]
"""What a page of another origin may send."""


@dataclass(frozen=True)
class Wishes:
    """``priority`` None is the usual one. ``ignored``: headers that were sent and have no meaning here."""

    priority: int | None = None
    start_timeout_s: float | None = None
    max_attempts: int | None = None
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
    return Wishes(
        priority=PRIORITIES[priority],
        start_timeout_s=_seconds(headers.get("x-fal-request-timeout")),
        max_attempts=1 if headers.get("x-fal-no-retry", "").lower() in ("1", "true", "yes") else None,
        ignored=tuple(name for name in NO_MEANING if name in headers),
    )


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_SECONDS:  # false for NaN, too
        raise _wrong("x-fal-request-timeout", f"Input should be seconds, at most {MAX_SECONDS}", "float_parsing")
    return seconds


def _wrong(name: str, message: str, kind: str) -> InvalidInput:
    return InvalidInput(f"the header {name} is wrong", errors=[{"loc": ["header", name], "msg": message, "type": kind}])


async def _of(request: Request) -> Wishes:
    return read(request.headers)


Wished = Annotated[Wishes, Depends(_of)]
"""The wishes of a request, as a route's parameter."""
