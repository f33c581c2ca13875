"""What a stack costs that has nothing to do: CPU time by process, Redis commands and Postgres transactions."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import psutil
import psycopg
import redis

from stoker.local.engines import Engines
from stoker.local.stack import Running

MINUTE_S = 60.0


def cost(engines: Engines, running: Running, seconds: float) -> dict[str, dict[str, float]]:
    """Watch a stack for so long: CPU seconds a minute by process, and what it asked of the engines a second."""
    pids = {**engines.pids, **{role: pid for role, pid in running.stack.pids.items() if role != "up"}}
    before, began = _moment(engines, running, pids), time.monotonic()
    time.sleep(seconds)
    after, took = _moment(engines, running, pids), time.monotonic() - began
    cpu = {role: (after[0][role] - before[0][role]) / took * MINUTE_S for role in sorted(after[0])}
    asked = {name: (after[1][name] - before[1][name]) / took for name in after[1]}
    return {"CPU s a minute": cpu, "a second": asked}


def _moment(engines: Engines, running: Running, pids: dict[str, int]) -> tuple[Counter[str], dict[str, float]]:
    cpu: Counter[str] = Counter()
    for role, pid in pids.items():
        parent = psutil.Process(pid)
        for each in [parent, *parent.children(recursive=True)]:
            try:
                times = each.cpu_times()
            except psutil.NoSuchProcess:
                continue
            name = role if each is parent or role in engines.pids else f"{role}: {_part(each)}"
            cpu[name] += times.user + times.system  # type: ignore[assignment]  # Counter's stub knows integers alone
    with redis.Redis.from_url(engines.redis_url) as client:
        stats: Any = client.info("stats")
    with psycopg.connect(running.stack.database_url) as db:
        found = db.execute(
            "SELECT xact_commit, tup_inserted + tup_updated + tup_deleted FROM pg_stat_database"
            " WHERE datname = current_database()"
        ).fetchone()
    assert found is not None
    return cpu, {
        "Redis commands": float(stats["total_commands_processed"]),
        "Postgres transactions": float(found[0]),
        "Postgres rows written": float(found[1]),
    }


def _part(process: psutil.Process) -> str:
    words = " ".join(process.cmdline())
    return next((name for name in ("apphost", "distributed") if f"worker_node.{name}" in words), process.name())
