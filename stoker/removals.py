"""Removals: objects that nothing refers to any more, and their deletion in the object store.

Who deletes rows writes here, in the same transaction, what is to go with them. So nothing leads to an object that is
gone, and nothing is forgotten whatever dies or is away: a removal stays until the store has carried it out, and to do
so twice does no harm. The control loop calls ``carry_out``; any number of replicas may.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker.errors import StorageUnavailable
from stoker.storage import Storage

AT_ONCE = 200
AT_A_TIME = 8
TRY_AGAIN_S = 30.0
LONGEST_PAUSE_S = 3600.0

# Whoever takes one has as long as until it is due again; a process that dies leaves it to the next.
TAKE = text("""
WITH due AS (
    SELECT id FROM object_removals WHERE due_at <= stoker_now() ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE object_removals r
SET tries = r.tries + 1,
    due_at = stoker_now() + make_interval(secs => least(:again_s * power(2, least(r.tries, 20)), :longest_s))
FROM due WHERE r.id = due.id RETURNING r.id, r.prefix, r.is_folder, r.keep
""")
DONE = text("DELETE FROM object_removals WHERE id = ANY(:ids)")
FAILED = text("UPDATE object_removals SET last_error = :error WHERE id = ANY(:ids)")


@dataclass(frozen=True)
class Removal:
    """One object by its key; of a folder all objects whose keys begin with ``prefix``, but for those to ``keep``."""

    id: int
    prefix: str
    is_folder: bool
    keep: frozenset[str]


async def carry_out(db: AsyncEngine, storage: Storage) -> tuple[int, StorageUnavailable | None]:
    """Delete what is due, as much as is taken at once: how many removals were carried out, and why others were not.

    Those are tried again, later each time.
    """
    values = {"limit": AT_ONCE, "again_s": TRY_AGAIN_S, "longest_s": LONGEST_PAUSE_S}
    async with db.begin() as tx:
        rows = (await tx.execute(TAKE, values)).all()
    taken = [Removal(row.id, row.prefix, row.is_folder, frozenset(row.keep)) for row in rows]
    single = [removal for removal in taken if not removal.is_folder]
    requests = ([single] if single else []) + [[removal] for removal in taken if removal.is_folder]
    done, failure = 0, None
    for start in range(0, len(requests), AT_A_TIME):
        together = requests[start : start + AT_A_TIME]
        answers = await asyncio.gather(*(_delete(storage, part) for part in together))
        async with db.begin() as tx:
            for part, error in zip(together, answers, strict=True):
                ids = [removal.id for removal in part]
                if error is None:
                    await tx.execute(DONE, {"ids": ids})
                    done += len(ids)
                else:
                    await tx.execute(FAILED, {"ids": ids, "error": str(error)[:500]})
                    failure = error
        if failure is not None and not done:
            break  # a store that is away need not be asked for each
    return done, failure


async def _delete(storage: Storage, part: list[Removal]) -> StorageUnavailable | None:
    try:
        if part[0].is_folder:
            await storage.delete_prefix(part[0].prefix, keep=part[0].keep)
        else:
            await storage.delete([removal.prefix for removal in part])
    except StorageUnavailable as error:
        return error
    return None
