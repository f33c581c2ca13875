"""HostLoading: what an app's process says of its app, each time that one has imported it.

The first time is waited for; an app that says something else later is another app. ``worker_node.host`` holds one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from stoker import log
from stoker.errors import AppDefinitionError
from stoker.manifest import Manifest
from worker_node.apphost import protocol

logger = log.get(__name__)

LOAD_TIMEOUT_S = 600.0


class HostLoading:
    """``manifest`` and the settings beside it are the app's, once ``first`` has returned."""

    def __init__(self, import_string: str) -> None:
        self._import_string = import_string
        self.manifest: Manifest | None = None
        self.min_runners = 1
        self.keep_alive_s: float | None = None
        self.max_multiplexing = 1
        self.refusal: protocol.Refused | None = None
        """What the process that lives, or has just ended, gave as its reason."""
        self._loaded: asyncio.Future[Manifest] | None = None

    def begin(self) -> Awaitable[Manifest]:
        """Expect the first time from now on. Raises AppDefinitionError where it does not come."""
        loaded = self._loaded = asyncio.get_running_loop().create_future()
        return self._first(loaded)

    async def _first(self, loaded: asyncio.Future[Manifest]) -> Manifest:
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                return await loaded
        except TimeoutError as error:
            hint = "Do slow things in the worker's setup, not when the module is imported."
            message = f"{self._import_string} was not imported within {LOAD_TIMEOUT_S:g} s"
            raise AppDefinitionError(message, hint=hint) from error

    def take(self, loaded: protocol.Loaded) -> bool:
        """Take in what a process says; False: it is another app than it was."""
        manifest = Manifest.from_json(loaded.manifest)
        if self.manifest is not None and self.manifest.schema_hash != manifest.schema_hash:
            logger.error("app_has_changed", app=manifest.app, then="it stays down", hint="Restart the node.")
            return False
        self.manifest, self.max_multiplexing = manifest, loaded.max_multiplexing
        self.min_runners, self.keep_alive_s = loaded.min_runners, loaded.keep_alive_s
        if self._loaded is not None and not self._loaded.done():
            self._loaded.set_result(manifest)
        return True

    def has_failed(self, problem: str, last_words: str) -> bool:
        """The process has ended; whether that was before it said anything, so that nobody can serve the app."""
        if self._loaded is None or self._loaded.done():
            return False
        text, hint = f"{problem} while it was imported", last_words
        if self.refusal is not None:
            text, hint = self.refusal.problem, self.refusal.hint
        self._loaded.set_exception(AppDefinitionError(text, hint=hint or None))
        return True
