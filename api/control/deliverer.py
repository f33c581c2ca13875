"""Deliveries: a finished job's state and result, sent to the URL that its caller named.

The finishing transaction wrote the row; here it is sent, signed, until the receiver says 2xx or the tries are used up.
At least once: a receiver tells copies by ``webhook-id``. Each try takes the row for a while, so that replicas do not
send it twice at once and a crash in the middle costs a minute; the try has its row before anything is sent.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.control import signatures
from api.control.metrics import ControlMetrics
from api.control.sending import Answer, Sender, as_text
from api.control.webhook_body import webhook_body
from stoker import job_queries, log, signing_keys
from stoker.crash_points import Point, reach
from stoker.settings import WEBHOOK_PAUSES_S, WEBHOOK_TIMEOUT_S
from stoker.signing_keys import Signers

AT_ONCE = 100
AT_A_RECEIVER = 10
"""So a receiver that is slow keeps nobody else's deliveries waiting."""
REST = 20
"""How many times as long as it took to look past a receiver that has no room until that is done again: past a third
of a million deliveries it takes 0.4 s."""
MOST_ASKED_FOR_S = 6 * 3600.0
"""A ``Retry-After`` is honoured so far: a receiver must not keep a delivery from ever being tried again."""
SPARE_S = 45.0
"""A row is taken for so much longer than a try lasts: for the job's reading, the recording and a slow machine."""

TAKE = text("""
WITH due AS (
  SELECT id, url, next_attempt_at, lower(coalesce(substring(url from '^[^/]*//([^/?#]*)'), '')) AS receiver
  FROM webhook_deliveries
  WHERE state = 'pending' AND next_attempt_at <= stoker_now()
    AND lower(coalesce(substring(url from '^[^/]*//([^/?#]*)'), '')) <> ALL(:full)
  ORDER BY next_attempt_at LIMIT 1000
), chosen AS (
  SELECT id, receiver
  FROM (SELECT *, row_number() OVER (PARTITION BY receiver ORDER BY next_attempt_at) AS place FROM due) numbered
  WHERE place <= :each ORDER BY next_attempt_at LIMIT :room
), held AS (
  SELECT d.id, c.receiver FROM webhook_deliveries d JOIN chosen c USING (id)
  WHERE d.state = 'pending' AND d.next_attempt_at <= stoker_now() FOR UPDATE OF d SKIP LOCKED
), taken AS (
  UPDATE webhook_deliveries d
  SET attempts = d.attempts + 1, next_attempt_at = stoker_now() + make_interval(secs => :hold_s)
  FROM held WHERE d.id = held.id
  RETURNING d.id, d.job_id, d.tenant_id, d.url, d.attempts, d.attempts - d.tries_before AS tries, held.receiver
), begun AS (
  INSERT INTO delivery_attempts (delivery_id, attempt) SELECT id, attempts FROM taken
)
SELECT * FROM taken
""")
# What was sent is recorded whoever holds the row by now; what becomes of it is decided by the newest try alone.
RECORD = text("""
WITH tried AS (
  UPDATE delivery_attempts SET status = :status, error = :error, answer = :answer, duration_s = :duration_s
  WHERE delivery_id = :id AND attempt = :attempt
)
UPDATE webhook_deliveries SET
  state = :state, last_status = :status, last_error = :error,
  delivered_at = CASE WHEN :state = 'delivered' THEN stoker_now() ELSE delivered_at END,
  next_attempt_at = CASE WHEN :state = 'pending' THEN stoker_now() + make_interval(secs => :pause_s) END
WHERE id = :id AND attempts = :attempt AND state = 'pending'
""")

logger = log.get(__name__)


def pause_after(tries: int, pauses_s: Sequence[float], jitter: float, asked_s: float | None = None) -> float | None:
    """Seconds until the try after so many, spread by ``jitter`` in 0..1; None when there is none.

    ``asked_s`` is what the receiver asked for: never sooner than that, within a bound.
    """
    if tries > len(pauses_s):
        return None
    return max(pauses_s[tries - 1] * (0.9 + 0.2 * jitter), min(asked_s or 0.0, MOST_ASKED_FOR_S))


class Deliverer:
    """Sends what is due. ``timeout_s`` bounds a try, ``pauses_s`` are the pauses between two."""

    def __init__(
        self,
        db: AsyncEngine,
        *,
        public_url: str | None,
        allowed_hosts: frozenset[str],
        timeout_s: float = WEBHOOK_TIMEOUT_S,
        pauses_s: Sequence[float] = WEBHOOK_PAUSES_S,
        metrics: ControlMetrics | None = None,
    ) -> None:
        self._db, self._base_url = db, (public_url or "").rstrip("/")
        self._pauses_s, self._hold_s = pauses_s, timeout_s + SPARE_S
        self._metrics = metrics or ControlMetrics()
        self._sender = Sender(allowed_hosts, timeout_s=timeout_s)
        self._running: dict[asyncio.Task[None], str] = {}
        self._rests_until = 0.0

    async def deliver_due(self) -> None:
        """Begin what is due, as far as there is room. It waits for no receiver: ``settle`` does."""
        busy = Counter(self._running.values())
        values = {
            "room": AT_ONCE - len(self._running),
            "each": AT_A_RECEIVER,
            "full": [receiver for receiver, count in busy.items() if count >= AT_A_RECEIVER],
            "hold_s": self._hold_s,
        }
        began = time.monotonic()
        if values["room"] == 0 or began < self._rests_until:
            return
        async with self._db.begin() as connection:
            due = (await connection.execute(TAKE, values)).mappings().all()
        if values["full"]:
            self._rests_until = began + REST * (time.monotonic() - began)
        if not due:
            return
        reach(Point.CONTROL_DELIVERY_TAKEN)
        keys = await signing_keys.signers(self._db, {row["tenant_id"] for row in due})
        for row in due:
            task = asyncio.create_task(self._deliver(dict(row), keys))
            self._running[task] = row["receiver"]
            task.add_done_callback(self._running.pop)

    async def settle(self) -> None:
        """Wait until all that was begun has ended."""
        if self._running:
            await asyncio.wait(list(self._running))

    async def close(self) -> None:
        await self.settle()
        await self._sender.close()

    async def _deliver(self, row: Mapping[str, Any], keys: Signers) -> None:
        names = {"job_id": str(row["job_id"]), "delivery_id": str(row["id"])}
        began = time.monotonic()
        try:
            answer = await self._try(row, keys)
        except Exception as error:
            # Whatever it was: a try without a record has no back-off and no last one.
            logger.exception("delivery_failed", **names)
            answer = Answer(None, as_text(f"{type(error).__name__}: {error}"))
        reach(Point.CONTROL_DELIVERY_SENT)
        try:
            await self._record(row, answer, time.monotonic() - began)
        except Exception:
            # As after a crash: when the row's time is over it is tried again.
            logger.exception("delivery_not_recorded", **names, next="tried again")

    async def _record(self, row: Mapping[str, Any], answer: Answer, duration_s: float) -> None:
        pause_s = None
        if not answer.is_hopeless:
            jitter = random.random()  # noqa: S311 - not a secret
            pause_s = pause_after(row["tries"], self._pauses_s, jitter, answer.retry_after_s)
        state = "delivered" if answer.is_delivered else "failed" if pause_s is None else "pending"
        values = {
            "id": row["id"],
            "attempt": row["attempts"],
            "status": answer.status,
            "error": answer.error,
            "answer": answer.body,
            "duration_s": duration_s,
            "state": state,
            "pause_s": pause_s or 0.0,
        }
        async with self._db.begin() as connection:
            await connection.execute(RECORD, values)
        self._metrics.deliveries.labels("retried" if state == "pending" else state).inc()
        logger.info(
            "webhook_tried",
            job_id=str(row["job_id"]),
            delivery_id=str(row["id"]),
            tries=row["attempts"],
            state=state,
            status=answer.status,
            error=answer.error,
            next_in_s=round(pause_s) if state == "pending" and pause_s else None,
        )

    async def _try(self, row: Mapping[str, Any], keys: Signers) -> Answer:
        tenant_id: UUID = row["tenant_id"]
        job = await job_queries.get(self._db, row["job_id"], tenant_id)
        body = webhook_body(job, self._base_url)
        headers = signatures.headers(
            pairs=keys.pairs,
            secrets=keys.secrets.get(tenant_id, ()),
            tenant_id=tenant_id,
            delivery_id=row["id"],
            job_id=row["job_id"],
            timestamp=int(time.time()),
            body=body,
        )
        return await self._sender.send(row["url"], body, headers)
