"""Apps and their versions, as nodes publish them and callers see them.

It moves no job. Nodes publish; the API reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker.manifest import EndpointManifest, Manifest


@dataclass(frozen=True)
class AppVersion:
    """A published manifest. ``hash`` is its schema hash."""

    id: UUID
    app: str
    hash: str
    manifest: Manifest

    def endpoint(self, path: str) -> EndpointManifest:
        """The endpoint at ``path``.

        Raises:
            UnknownApp: the version has none there.
        """
        return self.manifest.endpoint(path)


@dataclass(frozen=True)
class AppRow:
    """An app as a list shows it: its newest version, and how many live nodes serve that."""

    app: str
    version: str
    title: str
    description: str
    num_gpus: int
    endpoints: tuple[EndpointManifest, ...]
    live_nodes: int


async def publish(db: AsyncEngine, manifest: Manifest) -> AppVersion:
    """Make ``manifest`` known: a new schema hash is the newest version, a known one takes the new texts and limits."""
    raise NotImplementedError


async def newest(db: AsyncEngine, app: str) -> AppVersion:
    """The newest version of ``app``.

    Raises:
        UnknownApp: nobody has published it.
    """
    raise NotImplementedError


async def version(db: AsyncEngine, version_id: UUID) -> AppVersion:
    """One version.

    Raises:
        UnknownApp: there is none with this id.
    """
    raise NotImplementedError


async def list_apps(db: AsyncEngine) -> list[AppRow]:
    """All apps by name."""
    raise NotImplementedError
