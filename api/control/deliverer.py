"""Deliveries: a finished job's state and result, sent to the URL that its caller named.

The finishing transaction wrote the row; here it is sent, signed, until the receiver says 2xx or the tries are used up.
At least once: a receiver tells copies by ``webhook-id``. Each try takes the row for a minute, so that replicas do not
send it twice at once and a crash in the middle costs a minute.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx2
import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.control import signatures
from api.control.metrics import ControlMetrics
from api.job_json import absolute, with_links
from stoker import job_queries, log
from stoker.crash_points import Point, reach
from stoker.errors import InvalidFile
from stoker.fetch import GuardedTransport
from stoker.job_queries import JobView

AT_ONCE = 20
TIMEOUT_S = 15.0
MAX_ERROR_CHARS = 500
BACK_OFF_S = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800)
"""Pauses between tries: ten tries in about sixteen hours."""

TAKE = text("""
WITH due AS (
  SELECT id FROM webhook_deliveries WHERE state = 'pending' AND next_attempt_at <= stoker_now()
  ORDER BY next_attempt_at LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE webhook_deliveries AS d
SET attempts = d.attempts + 1, next_attempt_at = stoker_now() + interval '60 seconds'
FROM due WHERE d.id = due.id
RETURNING d.id, d.job_id, d.tenant_id, d.url, d.attempts
""")
RECORD = text("""
WITH tried AS (
  INSERT INTO delivery_attempts (delivery_id, attempt, status, error, duration_s)
  VALUES (:id, :attempt, :status, :error, :duration_s) ON CONFLICT DO NOTHING
)
UPDATE webhook_deliveries SET
  state = :state, last_status = :status, last_error = :error,
  delivered_at = CASE WHEN :state = 'delivered' THEN stoker_now() END,
  next_attempt_at = CASE WHEN :state = 'pending' THEN stoker_now() + make_interval(secs => :pause_s) END
WHERE id = :id AND attempts = :attempt AND state = 'pending'
""")

logger = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one try. ``is_hopeless``: another would end the same way."""

    status: int | None
    error: str | None
    is_hopeless: bool = False

    @property
    def is_delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def pause_after(attempt: int, jitter: float) -> float | None:
    """Seconds until the try after number ``attempt``, spread by ``jitter`` in 0..1; None when there is none."""
    if attempt > len(BACK_OFF_S):
        return None
    return BACK_OFF_S[attempt - 1] * (0.9 + 0.2 * jitter)


def payload(job: JobView, base_url: str) -> bytes:
    """The body of a webhook."""
    body: dict[str, Any] = {
        "job_id": str(job.id),
        "app": job.app,
        "endpoint": job.endpoint,
        "state": job.state.value,
        "attempt": job.attempt,
        "tags": list(job.tags),
        "finished_at": job.finished_at.isoformat() if job.finished_at else None,
        "result": with_links(job.result, job.outputs, base_url),
        "error": job.error,
        "outputs": [{"name": output.name, "url": absolute(output.link, base_url)} for output in job.outputs],
    }
    return orjson.dumps(body)


class Deliverer:
    """Sends what is due."""

    def __init__(
        self,
        db: AsyncEngine,
        *,
        public_url: str | None,
        allowed_hosts: frozenset[str],
        metrics: ControlMetrics | None = None,
    ) -> None:
        self._db, self._base_url = db, (public_url or "").rstrip("/")
        self._metrics = metrics or ControlMetrics()
        self._client = httpx2.AsyncClient(
            transport=GuardedTransport(allowed_hosts), timeout=TIMEOUT_S, follow_redirects=False, trust_env=False
        )

    async def deliver_due(self) -> None:
        """One round."""
        async with self._db.begin() as connection:
            due = (await connection.execute(TAKE, {"limit": AT_ONCE})).mappings().all()
        if due:
            reach(Point.CONTROL_DELIVERY_TAKEN)
            key = await signatures.signing_key(self._db)
            ends = await asyncio.gather(*(self._deliver(dict(row), key) for row in due), return_exceptions=True)
            # One that could not be recorded is tried again in a minute; it must not hide how the others ended.
            for row, end in zip(due, ends, strict=True):
                if isinstance(end, BaseException):
                    logger.error("delivery_failed", job_id=str(row["job_id"]), delivery_id=str(row["id"]), exc_info=end)

    async def close(self) -> None:
        await self._client.aclose()

    async def _deliver(self, row: Mapping[str, Any], key: bytes) -> None:
        delivery_id: UUID = row["id"]
        began = time.monotonic()
        try:
            answer = await self._try(row, key)
        except Exception as error:
            # Whatever it was: a try without a record has no back-off and no last one.
            logger.exception("delivery_failed", job_id=str(row["job_id"]), delivery_id=str(delivery_id))
            answer = Answer(None, _as_text(f"{type(error).__name__}: {error}"))
        reach(Point.CONTROL_DELIVERY_SENT)
        pause_s = None if answer.is_hopeless else pause_after(row["attempts"], random.random())  # noqa: S311 - not a secret
        state = "delivered" if answer.is_delivered else "failed" if pause_s is None else "pending"
        async with self._db.begin() as connection:
            await connection.execute(
                RECORD,
                {
                    "id": delivery_id,
                    "attempt": row["attempts"],
                    "status": answer.status,
                    "error": answer.error,
                    "duration_s": time.monotonic() - began,
                    "state": state,
                    "pause_s": pause_s or 0.0,
                },
            )
        self._metrics.deliveries.labels("retried" if state == "pending" else state).inc()
        logger.info(
            "webhook_tried",
            job_id=str(row["job_id"]),
            delivery_id=str(delivery_id),
            tries=row["attempts"],
            state=state,
            status=answer.status,
            error=answer.error,
            next_in_s=round(pause_s) if state == "pending" and pause_s else None,
        )

    async def _try(self, row: Mapping[str, Any], key: bytes) -> Answer:
        job = await job_queries.get(self._db, row["job_id"], row["tenant_id"])
        body = payload(job, self._base_url)
        headers = signatures.headers(
            key, row["tenant_id"], delivery_id=row["id"], timestamp=int(time.time()), body=body
        )
        return await self._send(row["url"], body, headers)

    async def _send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        headers = {
            "content-type": "application/json",
            "user-agent": "stoker-webhooks/1",
            "accept-encoding": "identity",
            **headers,
        }
        try:
            # The status is all that counts: what else the receiver sends, however much, is not read.
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._client.stream("POST", url, content=body, headers=headers) as answer,
            ):
                status = answer.status_code
        except InvalidFile as error:
            return Answer(None, _as_text(f"may not be called: {error}"), is_hopeless=True)
        except httpx2.InvalidURL as error:
            return Answer(None, _as_text(f"is no URL: {error}"), is_hopeless=True)
        except (httpx2.HTTPError, TimeoutError) as error:
            return Answer(None, _as_text(f"{type(error).__name__}: {error}"))
        if 200 <= status < 300:
            return Answer(status, None)
        return Answer(status, f"answered {status}", is_hopeless=status == 410)


def _as_text(error: str) -> str:
    """What Postgres can hold of a message."""
    return error[:MAX_ERROR_CHARS].replace("\0", " ").encode("utf-8", "replace").decode()
