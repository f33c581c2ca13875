"""The API as an ASGI application. It holds no state but its connections: any number of replicas may run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from api import openapi, problems
from api.connections import open_connections
from api.edge import Edge
from api.fal import cdn, proxy, route, wire, wishes
from api.limits import BodyLimit
from api.metrics import Metrics
from api.routes import (
    apps,
    audit,
    deletions,
    deliveries,
    events,
    files,
    health,
    jobs,
    keys,
    nodes,
    outputs,
    queues,
    tenant_events,
    tenants,
    webhooks,
)
from stoker.settings import ApiSettings

CALLER_HEADERS = ["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-Id", *wishes.HEADERS]
SHOWN_HEADERS = ["Location", "Retry-After", "X-Request-Id", "Idempotency-Replayed", *route.SHOWN]


def create_app(settings: ApiSettings) -> FastAPI:
    """The application. ``app.state.stopping`` is the event that ends its streams."""
    metrics, stopping = Metrics(max_age_s=settings.metrics_age_s), asyncio.Event()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_connections(settings, metrics, stopping) as here:
            app.state.here = here
            yield

    # The interactive pages of the framework load scripts from elsewhere.
    app = FastAPI(title="Stoker", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.stopping = stopping
    problems.install(app)
    openapi.install(app)
    for module in (jobs, events, tenant_events, apps, files, outputs, nodes, queues, tenants, keys, health):
        app.include_router(module.router)
    for module in (audit, deletions, deliveries, webhooks):
        app.include_router(module.router)
    app.include_router(wire.router)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, streamed=[files.UPLOAD_PATH, cdn.PATH])
    app.add_middleware(proxy.FalProxy)
    app.add_middleware(Edge, metrics=metrics)
    if settings.cors_origins:  # outside the edge: a page must be able to read a 503 and a 500, too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(settings.cors_origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=CALLER_HEADERS,
            expose_headers=SHOWN_HEADERS,
        )
    return app
