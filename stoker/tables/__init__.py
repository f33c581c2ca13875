"""The tables, as SQLAlchemy knows them.

The migrations make them, and a test compares the two; nothing creates tables from here. Reads are composed from these
objects; what changes a job's state is plain SQL (``stoker.sql``). Times are timestamptz by ``stoker_now()``, ids UUIDv7
made in Python.
"""

from __future__ import annotations

from stoker.tables.accounts import admin_requests, api_keys, audit_log, event_clock, signing_keys, tenants
from stoker.tables.columns import metadata
from stoker.tables.results import delivery_attempts, files, job_outputs, uploads, usage_records, webhook_deliveries
from stoker.tables.retention import object_removals, retention_places
from stoker.tables.serving import app_versions, apps, nodes, queue_lanes, runners
from stoker.tables.work import job_attempts, job_children, job_events, job_heads, job_leases, jobs

__all__ = [
    "admin_requests",
    "api_keys",
    "app_versions",
    "apps",
    "audit_log",
    "delivery_attempts",
    "event_clock",
    "files",
    "job_attempts",
    "job_children",
    "job_events",
    "job_heads",
    "job_leases",
    "job_outputs",
    "jobs",
    "metadata",
    "nodes",
    "object_removals",
    "queue_lanes",
    "retention_places",
    "runners",
    "signing_keys",
    "tenants",
    "uploads",
    "usage_records",
    "webhook_deliveries",
]
