"""Apps and their versions, as nodes publish them and callers see them.

It moves no job. Nodes publish; the API reads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import sql
from stoker.database import reading
from stoker.errors import UnknownApp
from stoker.ids import new_id
from stoker.manifest import EndpointManifest, Manifest
from stoker.tables import app_versions, apps, nodes


@dataclass(frozen=True)
class AppVersion:
    """A published manifest. ``hash`` is its schema hash; ``max_queue_length`` is the app's, None for no limit."""

    id: UUID
    app: str
    hash: str
    manifest: Manifest
    max_queue_length: int | None = None

    def endpoint(self, path: str) -> EndpointManifest:
        """The endpoint at ``path``.

        Raises:
            UnknownApp: the version has none there.
        """
        return self.manifest.endpoint(path)


@dataclass(frozen=True)
class AppRow:
    """An app as a list shows it: the version that new jobs get, and how many live nodes serve that."""

    app: str
    version: str
    title: str
    description: str
    num_gpus: int
    endpoints: tuple[EndpointManifest, ...]
    live_nodes: int
    paused: bool = False
    max_running: int | None = None
    max_queue_length: int | None = None


_VERSIONS = select(
    app_versions.c.id,
    apps.c.name.label("app"),
    app_versions.c.hash,
    app_versions.c.manifest,
    apps.c.max_queue_length,
).join(apps)
_LIVE_NODES = (
    select(func.count())
    .where(
        nodes.c.state == "ready",
        func.stoker_is_live(nodes.c.state, nodes.c.heartbeat_at, nodes.c.lease_s),
        app_versions.c.id == nodes.c.versions.any_(),
    )
    .scalar_subquery()
)
# As find_newest_version.sql has it, for all apps.
_NEWEST_FIRST = ((_LIVE_NODES > 0).desc(), app_versions.c.published_at.desc(), app_versions.c.id.desc())


async def publish(db: AsyncEngine, manifest: Manifest) -> AppVersion:
    """Make ``manifest`` the newest version. One whose schema hash is known takes the new texts and limits."""
    async with db.begin() as tx:
        await tx.execute(insert(apps).values(id=new_id(), name=manifest.app).on_conflict_do_nothing())
        app_id = select(apps.c.id).where(apps.c.name == manifest.app).scalar_subquery()
        version = insert(app_versions).values(
            id=new_id(), app_id=app_id, hash=manifest.schema_hash, manifest=manifest.to_json()
        )
        await tx.execute(
            version.on_conflict_do_update(
                index_elements=["app_id", "hash"],
                set_={"manifest": version.excluded.manifest, "published_at": func.stoker_now()},
            )
        )
        stored = await tx.execute(
            _VERSIONS.where(apps.c.name == manifest.app, app_versions.c.hash == manifest.schema_hash)
        )
        return _version(stored.one())


async def newest(db: AsyncEngine, app: str) -> AppVersion:
    """The version of ``app`` that new jobs get: the one published last, among those that a live node serves if any.

    Raises:
        UnknownApp: nobody has published it.
    """
    found = await sql.ask(db, "find_newest_version", {"app": app})
    if not found:
        raise UnknownApp(f"no node has published an app {app!r}")
    row = found[0]
    return AppVersion(row["id"], row["app"], row["hash"], _manifest(row["manifest"]), row["max_queue_length"])


async def version(db: AsyncEngine, version_id: UUID) -> AppVersion:
    """One version.

    Raises:
        UnknownApp: there is none with this id.
    """
    async with reading(db) as tx:
        found = (await tx.execute(_VERSIONS.where(app_versions.c.id == version_id))).one_or_none()
    if found is None:
        raise UnknownApp(f"there is no app version {version_id}")
    return _version(found)


async def list_apps(db: AsyncEngine) -> list[AppRow]:
    """All apps by name."""
    newest_ones = (
        _VERSIONS.add_columns(_LIVE_NODES.label("live_nodes"), apps.c.paused, apps.c.max_running)
        .ext(distinct_on(apps.c.name))
        .order_by(apps.c.name, *_NEWEST_FIRST)
    )
    async with reading(db) as tx:
        found = (await tx.execute(newest_ones)).all()
    return [_row(row) for row in found]


def _row(row: Row[*tuple[Any, ...]]) -> AppRow:
    manifest = Manifest.from_json(row.manifest)
    return AppRow(
        app=row.app,
        version=row.hash,
        title=manifest.title,
        description=manifest.description,
        num_gpus=manifest.num_gpus,
        endpoints=manifest.endpoints,
        live_nodes=row.live_nodes,
        paused=row.paused,
        max_running=row.max_running,
        max_queue_length=row.max_queue_length,
    )


@lru_cache(maxsize=64)
def _manifest(text: str) -> Manifest:
    """Each submit reads its app's; nobody changes what it is given."""
    return Manifest.from_json(json.loads(text))


def _version(row: Row[*tuple[Any, ...]]) -> AppVersion:
    return AppVersion(row.id, row.app, row.hash, Manifest.from_json(row.manifest), row.max_queue_length)
