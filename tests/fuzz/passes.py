"""Passes: who calls the API in a campaign, with what, and what is looked at.

All of schemathesis' checks are on. What one of them cannot know of this API stands in ``EXPECTED``, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemathesis.config import SchemathesisConfig

from tests.fuzz.stand import Owner, Stand

CHECKS = frozenset(
    {
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "positive_data_acceptance",
        "missing_required_header",
        "unsupported_method",
        "allow_header_conformance",
        "use_after_free",
        "ensure_resource_availability",
        "ignored_auth",
        "object_level_authorization",
    }
)
"""Every one there is, so that one that comes with a new release is looked at: ``test_fuzz`` compares."""

ACCEPTED = ["2xx", "3xx", "401", "403", "404", "409", "429"]
EXPECTED: Mapping[tuple[str, str], str] = {
    (
        "POST /v1/jobs",
        "422",
    ): "an input is of its app's form, which is in the app's own document: the pass 'app' has it",
    ("GET /v1/jobs/{job_id}/events", "400"): "an event id may be well formed and beyond the job's last event",
    ("POST /v1/files/uploads", "413"): "how large a file may be is a setting",
    ("POST /v1/keys", "403"): "a key may make none that may do more",
}
"""What a request that fits the document may be answered besides what it asks for, by operation and status."""

NUL = ["\0", "a\0b"]
NUL_PLACES = {
    f"query.{name}": {"dictionary": "nul", "probability": 0.5} for name in ("app", "tag", "cursor", "file_name")
}
PHASES = ("examples", "coverage", "fuzzing", "stateful")
STREAM_EVENTS = 2
"""Of a stream that does not end so many are read."""
TIMEOUT_S = 10.0
QUIET, QUIET_S = "/v1/jobs/{job_id}/events", 1.0
"""The stream of a job to which nothing happens says nothing more: it is left after this time."""
PLACES = {
    "": {
        "path.job_id": "job_id",
        "query.job_id": "job_id",
        "query.parent": "job_id",
        "query.parent_id": "job_id",
        "query.root_id": "job_id",
        "path.delivery_id": "delivery_id",
        "path.file_id": "file_id",
        "path.key_id": "key_id",
        "path.secret_id": "secret_id",
        "path.token": "token",
        "path.owner": "owner",
        "path.alias": "alias",
        "path.node_id": "node_id",
    },
    "/v1/tenants/{name}": {"path.name": "tenant"},
    "/outputs/{token}/{name}": {"path.name": "output"},
}
"""Where ids go, everywhere or at one path, and the names that the stand has for them."""


@dataclass(frozen=True)
class Pass:
    """One caller. ``key`` None: none, or one that was made up. ``ids_of``: whose things paths name, and how often."""

    name: str
    says: str
    caller: str = "owner"
    key: str | None = "admin"
    ids_of: str = "owner"
    share_of_ids: float = 0.6
    phases: tuple[str, ...] = PHASES
    generation: Mapping[str, Any] = field(default_factory=dict)
    of_app: bool = False
    off: Mapping[str, str] = field(default_factory=dict)
    """Checks that are left out of it, with the reason."""


PASSES = (
    Pass("reader", "a key that may only read", key="read"),
    Pass("nobody", "no key, or one that was made up", key=None, phases=("coverage", "fuzzing")),
    Pass("stranger", "another tenant's admin, on what is not its own", caller="stranger", share_of_ids=1.0),
    Pass(
        "app",
        "the app's own document: inputs of its form are accepted",
        key="run",
        of_app=True,
        off=dict.fromkeys(
            ("unsupported_method", "allow_header_conformance"),
            "the document is about one call of a path that has others",
        ),
    ),
    Pass("admin", "a tenant's admin, on the own things; what it may read is asked for as another tenant, too"),
    Pass(
        "nul",
        "the same with U+0000 in every text",
        phases=("fuzzing",),
        generation={"allow-x00": True},
        off={"positive_data_acceptance": "no text may hold it, which the document does not say of each"},
    ),
)
"""Those that delete are the last."""


def config(chosen: Pass, stand: Stand, seed: int, examples: int, auth_file: Path) -> SchemathesisConfig:
    """schemathesis' configuration of a pass. ``auth_file`` is written here: it takes callers from a file alone."""
    things = {"owner": stand.owner, "stranger": stand.stranger}
    ids = things[chosen.ids_of].ids
    return SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "base-url": stand.url,
            "continue-on-failure": True,
            "request-timeout": TIMEOUT_S,
            "max-stream-events": STREAM_EVENTS,
            "warnings": False,
            "cache": {"enabled": False},
            "generation": {"max-examples": examples, "database": "none", "allow-x00": False, **chosen.generation},
            "phases": {name: {"enabled": name in chosen.phases} for name in PHASES},
            "auth": _auth(chosen, things, auth_file),
            "dictionaries": {name: {"values": values} for name, values in (ids | {"nul": NUL}).items()},
            "parameters": _bound(chosen, "") | (NUL_PLACES if "allow-x00" in chosen.generation else {}),
            "operations": [
                *({"include-path": path, "parameters": _bound(chosen, path)} for path in PLACES if path),
                {"include-path": QUIET, "request-timeout": QUIET_S, "request-retries": 2},
                *_expected(chosen),
            ],
            "checks": {name: {"enabled": False} for name in chosen.off},
        }
    )


def _auth(chosen: Pass, things: Mapping[str, Owner], auth_file: Path) -> dict[str, Any]:
    if chosen.key is None:
        return {}
    callers = [chosen.caller, *(name for name in things if name != chosen.caller)]
    users = [
        {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Key {things[name].keys[chosen.key]}"}]}
        for name in callers
    ]
    auth_file.write_text(json.dumps({"auth": users}))
    return {"wfc": {"path": str(auth_file), "user": chosen.caller, "peers": callers}}


def _bound(chosen: Pass, path: str) -> dict[str, Any]:
    return {place: {"dictionary": name, "probability": chosen.share_of_ids} for place, name in PLACES[path].items()}


def _expected(chosen: Pass) -> Iterator[dict[str, Any]]:
    if chosen.of_app or "positive_data_acceptance" in chosen.off:
        return
    for operation in dict.fromkeys(name for name, _ in EXPECTED):
        more = [status for name, status in EXPECTED if name == operation]
        yield {
            "include-name": operation,
            "checks": {"positive_data_acceptance": {"expected-statuses": [*ACCEPTED, *more]}},
        }
