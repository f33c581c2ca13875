"""Metrics: what every kind of process counts of jobs, and the port of those that serve no HTTP of their own.

Labels are apps, states, codes and kinds, never jobs or tenants: what a label can hold must not grow with the load.
The API, the control loop and the node add what only they see. It decides nothing and reads no engine.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, start_http_server

from stoker.errors import ConfigurationError
from stoker.states import JobState


class JobCounts:
    """Jobs and attempts whose end this process recorded. Summed over all processes, each is there once."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._finished = Counter(
            "stoker_jobs_finished_total", "Jobs that became final.", ("app", "state"), registry=registry
        )
        self._retries = Counter(
            "stoker_job_retries_total", "Attempts that failed and left the job to wait again.", ("app", "code"),
            registry=registry,
        )  # fmt: skip

    def ended(self, app: str, state: JobState, code: str | None = None) -> None:
        """An attempt, or a job that waited, has ended in ``state``. ``code``: the error for which it is tried again."""
        if state.is_final:
            self._finished.labels(app, state.value).inc()
        elif code is not None:
            self._retries.labels(app, code).inc()


def serve(registry: CollectorRegistry, host: str, port: int) -> None:
    """Answer scrapes from a thread of its own, as long as the process lives. Port 0: do not.

    Raises:
        ConfigurationError: the address cannot be taken.
    """
    if not port:
        return
    try:
        start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigurationError(
            f"metrics cannot be served on {host}:{port}: {error}",
            hint="STOKER_METRICS_HOST and STOKER_METRICS_PORT name the address; each process needs a port of its own.",
        ) from error
