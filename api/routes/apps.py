"""Apps, as the nodes publish them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from api.answers import App, Apps, answers, refused
from api.app_openapi import app_openapi
from api.auth import Reader
from api.connections import BaseUrl, Connections, Here
from stoker import apps
from stoker.apps import AppRow
from stoker.errors import UnknownApp

router = APIRouter(prefix="/v1/apps", tags=["apps"])


@router.get("", responses=answers(200, Apps))
async def list_apps(_caller: Reader, here: Here, base_url: BaseUrl) -> dict[str, Any]:
    """Every known app."""
    return {"apps": [_app_json(row, base_url) for row in await apps.list_apps(here.db)]}


@router.get("/{owner}/{alias}", responses=answers(200, App, UnknownApp))
async def get(owner: str, alias: str, _caller: Reader, here: Here, base_url: BaseUrl) -> dict[str, Any]:
    """One app, with the schemas of its endpoints."""
    return _app_json(await _find(here, f"{owner}/{alias}"), base_url)


@router.get("/{owner}/{alias}/openapi.json", responses=refused(UnknownApp))
async def openapi(owner: str, alias: str, _caller: Reader, here: Here, base_url: BaseUrl) -> dict[str, Any]:
    """How to call the app, as OpenAPI 3.1."""
    return app_openapi(await _find(here, f"{owner}/{alias}"), base_url)


async def _find(here: Connections, name: str) -> AppRow:
    for row in await apps.list_apps(here.db):
        if row.app == name:
            return row
    raise UnknownApp(f"no app is called {name[:200]!r}")


def _app_json(row: AppRow, base_url: str) -> dict[str, Any]:
    self_link = f"{base_url}/v1/apps/{row.app}"
    return {
        "app": row.app,
        "version": row.version,
        "title": row.title,
        "description": row.description,
        "num_gpus": row.num_gpus,
        "live_nodes": row.live_nodes,
        "paused": row.paused,
        "max_running": row.max_running,
        "max_queue_length": row.max_queue_length,
        "endpoints": [asdict(endpoint) for endpoint in row.endpoints],
        "links": {"self": self_link, "openapi": f"{self_link}/openapi.json", "submit": f"{base_url}/v1/jobs"},
    }
