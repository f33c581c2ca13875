"""Evidence: what a world's rows, logs and objects say, as history. It changes nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import boto3
import psycopg
from psycopg.rows import dict_row

from tests.chaos.client import Clients
from tests.chaos.history import History, Line, Row, Stored
from tests.chaos.world import World

LOOK_S = 0.2
ROWS = {
    "jobs": "SELECT id, state, attempt, error, webhook_url, tags, created_at,"
    " finished_at, CASE WHEN result IS NOT NULL THEN 1 END AS result,"
    " (SELECT c.parent_id FROM job_children c WHERE c.child_id = jobs.id) AS parent_id FROM jobs",
    "job_children": "SELECT child_id, parent_id, name, generation FROM job_children",
    "job_attempts": "SELECT * FROM job_attempts",
    "job_events": "SELECT job_id, seq, attempt, kind, data ->> 'state' AS state, data ->> 'reason' AS reason"
    " FROM job_events",
    "job_heads": "SELECT job_id, last_seq FROM job_heads",
    "job_leases": "SELECT * FROM job_leases",
    "job_outputs": "SELECT job_id, attempt, key, size_bytes FROM job_outputs",
    "webhook_deliveries": "SELECT id, job_id, state, attempts FROM webhook_deliveries",
    "usage_records": "SELECT job_id, attempt, gpu_seconds FROM usage_records",
    "queue_lanes": "SELECT * FROM queue_lanes",
    "v_invariants": "SELECT * FROM v_invariants",
    "v_stuck_jobs": "SELECT * FROM v_stuck_jobs",
}
OPEN = """
SELECT (SELECT count(*) FROM jobs WHERE finished_at IS NULL) AS jobs, (SELECT count(*) FROM job_leases) AS leases,
       (SELECT count(*) FROM admin_requests WHERE done_at IS NULL) AS requests,
       (SELECT count(*) FROM webhook_deliveries WHERE state = 'pending' AND attempts < %(tries)s) AS deliveries
"""


async def settled(world: World, within_s: float, *, tries: int = 1) -> dict[str, Any]:
    """Wait until nothing is open; what still is when time is up. A webhook is let be after so many ``tries``."""
    deadline = time.monotonic() + within_s
    while True:
        still = await asyncio.to_thread(_open, world.database_url, tries)
        if not any(still.values()) or time.monotonic() > deadline:
            return still
        await asyncio.sleep(LOOK_S)


async def gather(world: World, clients: Clients) -> History:
    """All there is."""
    rows = await asyncio.to_thread(_rows, world.database_url)
    objects = await asyncio.to_thread(lambda: list(_objects(world.store)))
    return History(
        answers=clients.answers,
        streams=clients.streams,
        deliveries=clients.deliveries,
        lines=[line for line, _ in lines(world.folder / "log") if line is not None],
        objects=objects,
        left=world.left,
        complaints=clients.complaints,
        rows=rows,
    )


def lines(folder: Path) -> Iterator[tuple[Line | None, dict[str, Any]]]:
    """Every structured line of every process, as a line about an attempt where it is one."""
    for log in sorted(folder.glob("*.*.log")):
        process, boot, _ = log.name.split(".")
        for text in log.read_text(errors="replace").splitlines():
            try:
                said = json.loads(text) if text.startswith("{") else None
            except ValueError:  # a process that died while it wrote
                said = None
            if said is None:
                continue
            line = None
            if "job_id" in said and "attempt" in said and isinstance(said["attempt"], int):
                state = str(said.get("state", ""))
                line = Line(process, int(boot), str(said["event"]), said["job_id"], said["attempt"], state)
            yield line, said


def complaints(folder: Path) -> Counter[str]:
    """What processes said with an error's weight, by name."""
    return Counter(
        f"{said.get('service')}: {said.get('event')}"[:90]
        for _, said in lines(folder)
        if said.get("level") in ("error", "critical")
    )


def _open(database_url: str, tries: int) -> dict[str, Any]:
    with psycopg.connect(database_url, connect_timeout=5, row_factory=dict_row) as connection:
        row = connection.execute(OPEN, {"tries": tries}).fetchone()
    assert row is not None
    return row


def _rows(database_url: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for table, query in ROWS.items():
            found[table] = [
                {name: str(value) if isinstance(value, UUID) else value for name, value in row.items()}
                for row in connection.execute(query)
            ]
    return found


def _objects(store: dict[str, str]) -> Iterator[Stored]:
    client = boto3.client(
        "s3",
        endpoint_url=store["S3_ENDPOINT_URL"],
        aws_access_key_id=store["S3_ACCESS_KEY_ID"],
        aws_secret_access_key=store["S3_SECRET_ACCESS_KEY"],
        region_name=store["S3_REGION"],
    )
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=store["S3_BUCKET"]):
        for each in page.get("Contents", ()):
            if each["Key"].count("/") >= 3:
                yield Stored(each["Key"], each["Size"])
