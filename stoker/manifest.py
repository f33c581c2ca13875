"""Manifest: what an app tells callers about itself, and how that travels as JSON.

Pure: no I/O. An app host reports one, a node publishes it through ``stoker.apps``, the API validates inputs against it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from stoker.errors import UnknownApp

EndpointKind = Literal["inference", "training"]
MOST_KEPT_S = 100 * 366 * 86_400
"""Nobody can wish for more seconds: a date so far away is no use to anybody, and later ones cannot be written."""


@dataclass(frozen=True)
class EndpointManifest:
    """One endpoint: its schemas, whether a call needs the app's GPUs, and its limits."""

    path: str
    kind: EndpointKind
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    uses_gpus: bool
    run_timeout_s: float
    start_timeout_s: float | None
    stall_timeout_s: float | None
    max_attempts: int
    summary: str


@dataclass(frozen=True)
class Manifest:
    """One app. ``app`` is its id, ``owner/alias``."""

    app: str
    title: str
    description: str
    num_gpus: int
    endpoints: tuple[EndpointManifest, ...]
    store_io: bool = True
    keep_outputs_s: float | None = None

    def endpoint(self, path: str) -> EndpointManifest:
        """The endpoint at ``path``.

        Raises:
            UnknownApp: the app has none there.
        """
        for endpoint in self.endpoints:
            if endpoint.path == path:
                return endpoint
        have = ", ".join(endpoint.path for endpoint in self.endpoints)
        raise UnknownApp(f"app {self.app!r} has no endpoint {path!r}", hint=f"Its endpoints are: {have}.")

    @property
    def schema_hash(self) -> str:
        """Names the version: sha256 over what a caller's request depends on. Texts and limits may change in one."""
        faces = [
            {
                "path": endpoint.path,
                "kind": endpoint.kind,
                "input_schema": endpoint.input_schema,
                "output_schema": endpoint.output_schema,
                "uses_gpus": endpoint.uses_gpus,
            }
            for endpoint in sorted(self.endpoints, key=lambda endpoint: endpoint.path)
        ]
        canonical = json.dumps({"app": self.app, "endpoints": faces}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """A dict that ``json.dumps`` takes."""
        whole = asdict(self) | {"endpoints": [asdict(endpoint) for endpoint in self.endpoints]}
        # A reader of the release before knows neither.
        usual = {"store_io": True, "keep_outputs_s": None}
        return {name: value for name, value in whole.items() if name not in usual or value != usual[name]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What ``to_json`` gave."""
        endpoints = tuple(EndpointManifest(**endpoint) for endpoint in data["endpoints"])
        return cls(**{**data, "endpoints": endpoints})
