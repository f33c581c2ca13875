"""Log file: what an attempt's log is too long for, in a file of the node first, then in the object store.

The reporter adds lines; the ending stores them, whatever the outcome. A log is no result: nothing here fails the job,
and it costs its end a few seconds at most. What could not be kept is said in the log's last line.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from stoker import job_logs, log
from stoker.database import is_passing
from stoker.errors import LeaseLost, StorageUnavailable
from stoker.job_logs import LogFile
from stoker.storage import Storage, Stored
from worker_node.attempt import Attempt, StopReason
from worker_node.engines import Engines

MAX_BYTES = 64_000_000
STORE_S = 5.0
"""How long the store may take for it, and then Postgres, before the job ends without."""

logger = log.get(__name__)


class Spill:
    """The lines of one attempt that are to be no rows, in a file at ``path``. ``write`` puts them there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines, self.dropped_lines = 0, 0
        self._bytes, self._is_full = 0, False
        self._waiting: list[bytes] = []

    @property
    def is_used(self) -> bool:
        return self.lines + self.dropped_lines > 0

    def add(self, line: dict[str, Any]) -> None:
        """Take a line, or count it where there is no room for more. Never waits."""
        text = _text(line)
        self._is_full = self._is_full or self._bytes + len(text) > MAX_BYTES
        if self._is_full:
            self.dropped_lines += 1
            return
        self._bytes += len(text)
        self.lines += 1
        self._waiting.append(text)

    async def write(self) -> None:
        """Write what waits. Belongs to one task at a time, which lets it come to its end."""
        taken, self._waiting = self._waiting, []
        if not taken:
            return
        try:
            await asyncio.to_thread(self._append, b"".join(taken))
        except OSError as error:
            logger.warning("log_lines_dropped", lines=len(taken), error=str(error)[:300], path=str(self.path))
            self._is_full = True
            self.lines -= len(taken)
            self.dropped_lines += len(taken)

    def _append(self, text: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(text)


async def store(engines: Engines, attempt: Attempt, spill: Spill) -> None:
    """Store the file where there is one, and say so in the log's last line, which is a row.

    What a lost lease leaves in the store is the ending's to discard.
    """
    await spill.write()
    if not spill.is_used or attempt.lease_lost.is_set():
        return
    claim = attempt.claim
    key = job_logs.key_of(claim.tenant_id, claim.job_id, claim.attempt)
    attempt.has_stored = True
    stored = await Upload(engines.storage, key, spill.path).within(STORE_S) if spill.lines else None
    file = None
    if stored is not None:
        token = secrets.token_urlsafe(24)
        file = LogFile(token, stored.size_bytes, stored.sha256, spill.lines, spill.dropped_lines)
        attempt.recorded.add(key)  # the answer may be all that is lost
    dropped = spill.dropped_lines + (spill.lines if file is None else 0)
    engines.metrics.dropped.labels("log").inc(dropped)
    try:
        async with asyncio.timeout(STORE_S):
            seq = await job_logs.record(engines.db, attempt.lease, _last_line(file, dropped), file)
    except LeaseLost:
        attempt.recorded.discard(key)
        attempt.stop(StopReason.LEASE_LOST)
    except Exception as error:  # whatever it is: the job's end is still to be recorded
        is_ours = not (is_passing(error) or isinstance(error, TimeoutError))
        logger.warning("log_file_not_recorded", error=str(error)[:300], exc_info=is_ours, **attempt.names)
    else:
        engines.tell(claim.job_id, seq, claim.tenant_id)


def _last_line(file: LogFile | None, dropped: int) -> str:
    kept = "" if file is None else f"{file.lines} further log lines ({file.size_bytes} bytes) are in a file. "
    if not dropped:
        return kept.rstrip()
    why = "could not be stored" if file is None else f"did not fit into {MAX_BYTES} bytes"
    return f"{kept}{dropped} log lines are lost: they {why}."


def _text(line: dict[str, Any]) -> bytes:
    """A line as the file has it: when, which rank, what; and what else the app has added, as JSON."""
    more = {name: value for name, value in line.items() if name not in ("rank", "attempt", "message")}
    rank = "" if line.get("rank") is None else f" rank {line['rank']}"
    added = f" {json.dumps(more, ensure_ascii=False, default=str)}" if more else ""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"{now}{rank} {line.get('message', '')}{added}\n".encode(errors="backslashreplace")


class Upload:
    """A file on its way to the store. One that comes too late is deleted as soon as it is there: no row names it."""

    late: ClassVar[set[asyncio.Task[None]]] = set()

    def __init__(self, storage: Storage, key: str, path: Path) -> None:
        self._storage, self._key, self._path = storage, key, path

    async def within(self, seconds: float) -> Stored | None:
        """What was stored; None if it failed or took too long."""
        uploading = asyncio.create_task(self._put())
        await asyncio.wait([uploading], timeout=seconds)  # its thread could not be cancelled
        if uploading.done():
            return uploading.result()
        logger.warning("log_file_late", key=self._key, after_s=seconds)
        clearing = asyncio.create_task(self._delete(uploading))
        self.late.add(clearing)
        clearing.add_done_callback(self.late.discard)
        return None

    async def _put(self) -> Stored | None:
        try:
            return await self._storage.put_file(self._key, self._path, job_logs.CONTENT_TYPE)
        except (OSError, StorageUnavailable) as error:
            logger.warning("log_file_not_stored", key=self._key, error=str(error)[:300])
            return None

    async def _delete(self, uploading: asyncio.Task[Stored | None]) -> None:
        if await uploading is None:
            return
        try:
            await self._storage.delete([self._key])
        except StorageUnavailable as error:
            logger.warning("log_file_left", next="goes with its job", key=self._key, error=str(error)[:300])
