"""Inputs: the files that a job's input names, brought into the spool before the app reads them.

An uploaded file's id, the link of a job's output, a data URI or an https link; nothing else. The app host asks for
each by its link, since it runs without credentials and the supervisor has them. What may be fetched is
``stoker.fetch``'s decision.
"""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

from anyio import to_thread
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import fetch, job_queries, stored_files
from stoker.errors import InvalidFile, NotFound
from stoker.jobs import Claim
from stoker.storage import Storage

MAX_BYTES = 5_000_000_000
DATA_URI_BYTES = 50_000_000


class Inputs:
    """The files of one attempt. They lie in ``folder`` until the attempt ends."""

    def __init__(
        self, db: AsyncEngine, storage: Storage, claim: Claim, folder: Path, *, allowed_hosts: frozenset[str]
    ) -> None:
        self._db, self._storage, self._claim = db, storage, claim
        self._folder, self._allowed_hosts = folder, allowed_hosts
        self._numbers = count()

    async def fetch(self, url: str) -> Path:
        """Bring the file that ``url`` names into the spool.

        Raises:
            InvalidFile: it is none of these kinds, or may not be fetched.
            PayloadTooLarge, NotFound, StorageUnavailable
        """
        if url.startswith("file_"):
            stored = await stored_files.get(self._db, url, self._claim.tenant_id)
            path = self._place(stored.file_name)
            await self._storage.get_to(stored.key, path)
            return path
        if url.startswith("/outputs/"):
            return await self._fetch_output(url)
        try:
            scheme = urlsplit(url).scheme.lower()
        except ValueError as error:
            raise InvalidFile(f"{url[:80]!r} is no link: {error}") from error
        if scheme == "data":
            content, content_type = fetch.decode_data_uri(url, DATA_URI_BYTES)
            path = self._place(f"inline.{content_type.rpartition('/')[2]}")
            await to_thread.run_sync(path.write_bytes, content)
            return path
        if scheme in ("http", "https"):
            path = self._place(urlsplit(url).path.rpartition("/")[2])
            await fetch.fetch(url, path, max_bytes=MAX_BYTES, allow_private_hosts=self._allowed_hosts)
            return path
        raise InvalidFile(f"{url[:80]!r} is neither an uploaded file's id, a data URI nor an https link")

    async def _fetch_output(self, url: str) -> Path:
        """An output of another job of the same tenant, by the link that its result has."""
        output = await job_queries.output_by_token(self._db, url.split("/")[2])
        if output.tenant_id != self._claim.tenant_id:
            raise NotFound("there is no output with this link")
        path = self._place(output.name)
        await self._storage.get_to(output.key, path)
        return path

    def _place(self, file_name: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{next(self._numbers)}-{safe_name(file_name)}"


def safe_name(file_name: str) -> str:
    """``file_name`` as one plain part of a path or a key, with its suffix kept."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", file_name).strip("._") or "file"
    return plain[-100:]
