"""Sending: one POST to a receiver of webhooks, and what came of it.

Everything goes through the guarded transport, which connects to public addresses alone. Redirects are not followed: a
signed body goes to the address that was named and to no other. The deliverer records and decides what comes next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

from stoker.errors import InvalidFile
from stoker.fetch import GuardedTransport

KEPT_BYTES = 1024
"""Of an answer: enough to tell what a receiver complains about."""
READ_S = 2.0
"""For these bytes. The status has come by then and is what counts."""
MAX_ERROR_CHARS = 500


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one try. ``is_hopeless``: another would end the same way."""

    status: int | None
    error: str | None
    body: str | None = None
    retry_after_s: float | None = None
    is_hopeless: bool = False

    @property
    def is_delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Sender:
    """Sends to any number of receivers at once. A try takes ``timeout_s`` at most, until its answer begins."""

    def __init__(self, allowed_hosts: frozenset[str], *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._client = httpx2.AsyncClient(
            transport=GuardedTransport(allowed_hosts), timeout=timeout_s, follow_redirects=False, trust_env=False
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """One POST."""
        headers = {
            "content-type": "application/json",
            "user-agent": "stoker-webhooks/1",
            "accept-encoding": "identity",
            **headers,
        }
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                async with self._client.stream("POST", url, content=body, headers=headers) as answer:
                    limit.reschedule(None)
                    kept = await _beginning(answer)
        except InvalidFile as error:
            return Answer(None, as_text(f"may not be called: {error}"), is_hopeless=True)
        except httpx2.InvalidURL as error:
            return Answer(None, as_text(f"is no URL: {error}"), is_hopeless=True)
        except (httpx2.HTTPError, TimeoutError) as error:
            return Answer(None, as_text(f"{type(error).__name__}: {error}"))
        if answer.is_success:
            return Answer(answer.status_code, None, kept)
        return Answer(
            answer.status_code,
            f"answered {answer.status_code}",
            kept,
            retry_after(answer.headers.get("retry-after", ""), datetime.now(UTC)),
            is_hopeless=answer.status_code == httpx2.codes.GONE,
        )


async def _beginning(answer: httpx2.Response) -> str:
    kept = b""
    # However it goes on or breaks off: the receiver has answered.
    with suppress(httpx2.HTTPError, TimeoutError):
        async with asyncio.timeout(READ_S):
            async for chunk in answer.aiter_raw():
                kept += chunk[: KEPT_BYTES - len(kept)]
                if len(kept) == KEPT_BYTES:
                    break
    return as_text(kept.decode("utf-8", "replace"), KEPT_BYTES)


def retry_after(header: str, now: datetime) -> float | None:
    """Seconds that a ``Retry-After`` asks for, in either of its forms; None if it is none."""
    header = header.strip()
    if header.isascii() and header.isdigit() and len(header) < 10:
        return float(header)
    try:
        moment = parsedate_to_datetime(header).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return max((moment - now).total_seconds(), 0.0)


def as_text(said: str, limit: int = MAX_ERROR_CHARS) -> str:
    """What Postgres can hold of it."""
    return said[:limit].replace("\0", " ").encode("utf-8", "replace").decode()
