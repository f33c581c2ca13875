"""Metrics of a node for Prometheus: its jobs' times, its runners, its GPUs' memory, leases and events.

Counters are written on the node's loop; what is true at a moment is read at the scrape, on the thread that answers it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from stoker.events import EventKind
from stoker.jobs import Claim, Failed, Finished, Outcome, Usage
from stoker.metrics import JobCounts
from worker_node.gpus import Gpu, memory_used
from worker_node.host_values import HostState, RunnerState

WAIT_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 21600.0)
RUN_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 10800.0, 36000.0)
COLD_START_BUCKETS_S = (0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0)
GPU_AGE_S = 5.0
"""nvidia-smi takes up to half a second and wakes the driver: two scrapers must not ask twice."""
RUNNER_STATES = sorted({*get_args(RunnerState), *get_args(HostState), "quarantined", "stuck"} - {"ready"})


@dataclass(frozen=True)
class RunnerStatus:
    """An app on this node at the moment. ``restarts`` counts its processes that had to be replaced."""

    app: str
    state: str
    restarts: int
    slots: int


class NodeMetrics:
    """What the parts of one node count."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counts = JobCounts(self.registry)
        self._wait = self._histogram("stoker_job_wait_seconds", "From due to claimed.", WAIT_BUCKETS_S)
        self._run = self._histogram("stoker_job_run_seconds", "An attempt's work on the ranks.", RUN_BUCKETS_S)
        self._cold = self._histogram(
            "stoker_job_cold_start_seconds", "What jobs that met no warm ranks waited for them.", COLD_START_BUCKETS_S
        )
        self._gpu_seconds = self._counter("stoker_gpu_seconds_total", "GPU time of recorded attempts.", "app")
        self._leases_lost = self._counter("stoker_leases_lost_total", "Attempts given up without their lease.", "app")
        self.slots = Gauge("stoker_slots", "Of the node: its GPUs, or CPU ranks.", registry=self.registry)
        self._evictions = self._counter("stoker_runner_evictions_total", "Ranks ended for another app's job.", "app")
        self._quarantines = self._counter("stoker_app_quarantines_total", "Rests after too many crashes.", "app")
        self.heartbeats_missed = self._counter("stoker_heartbeats_missed_total", "Heartbeats Postgres did not take.")
        self.published = self._counter("stoker_events_published_total", "Events that Redis took.", "kind")
        self.persisted = self._counter("stoker_events_persisted_total", "Events that became rows.", "kind")
        self.dropped = self._counter(
            "stoker_events_dropped_total", "Progress and previews that nobody was sent.", "kind"
        )  # fmt: skip

    def watch(self, runners: Callable[[], Sequence[RunnerStatus]], gpus: Sequence[Gpu]) -> None:
        """Show these too, as they are at each scrape."""
        self.registry.register(_AtScrape(runners, gpus))

    def claimed(self, claim: Claim) -> None:
        """A job was taken. The wait is by this node's clock; one that is behind the database's shows zero."""
        waited_s = (datetime.now(UTC) - claim.available_at).total_seconds()
        self._wait.labels(claim.app).observe(max(waited_s, 0.0))
        self.persisted.labels(EventKind.STATE.value).inc()

    def finished(self, claim: Claim, finished: Finished, outcome: Outcome, usage: Usage) -> None:
        """The end of an attempt is recorded."""
        if finished.state is not None:
            code = outcome.error.code if isinstance(outcome, Failed) else None
            self.counts.ended(claim.app, finished.state, code)
        self.persisted.labels(EventKind.STATE.value).inc()
        self._gpu_seconds.labels(claim.app).inc(usage.gpu_seconds)
        if "run" in usage.phases:
            self._run.labels(claim.app).observe(usage.phases["run"])
        if cold_start_s := usage.phases.get("cold_start"):
            self._cold.labels(claim.app).observe(cold_start_s)

    def evicted(self, app: str) -> None:
        """The app's ranks make room for another app's job."""
        self._evictions.labels(app).inc()

    def quarantined(self, app: str) -> None:
        """Jobs of the app are not claimed for a while."""
        self._quarantines.labels(app).inc()

    def discarded(self, claim: Claim) -> None:
        """The attempt had lost its lease: nothing of it counts."""
        self._leases_lost.labels(claim.app).inc()

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(name, says, labels, registry=self.registry)

    def _histogram(self, name: str, says: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, says, ("app",), buckets=buckets, registry=self.registry)


class _AtScrape(Collector):
    def __init__(self, runners: Callable[[], Sequence[RunnerStatus]], gpus: Sequence[Gpu]) -> None:
        self._runners, self._gpus = runners, gpus
        self._used: dict[str, int] = {}
        self._asked_at = -float("inf")
        self._asking = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        states = GaugeMetricFamily(
            "stoker_runners", "1 for the state that an app's runner is in.", labels=("app", "state")
        )
        restarts = CounterMetricFamily(
            "stoker_app_restarts", "Processes of an app that were replaced.", labels=("app",)
        )
        slots = GaugeMetricFamily("stoker_slots_held", "Slots that an app's ranks hold.", labels=("app",))
        for runner in self._runners():
            slots.add_metric((runner.app,), runner.slots)
            for state in RUNNER_STATES:
                states.add_metric((runner.app, state), float(state == runner.state))
            restarts.add_metric((runner.app,), runner.restarts)
        yield from (states, restarts, slots)
        used = GaugeMetricFamily("stoker_gpu_memory_used_bytes", "Of all processes on the GPU.", labels=("gpu",))
        total = GaugeMetricFamily("stoker_gpu_memory_total_bytes", "Of the GPU.", labels=("gpu",))
        now_used = self._memory_used()
        for gpu in self._gpus:
            name = gpu.uuid if gpu.index is None else str(gpu.index)
            total.add_metric((name,), gpu.memory_bytes)
            if gpu.uuid in now_used:
                used.add_metric((name,), now_used[gpu.uuid])
        yield from (used, total)

    def _memory_used(self) -> dict[str, int]:
        with self._asking:
            if self._gpus and time.monotonic() - self._asked_at >= GPU_AGE_S:
                self._used = memory_used()
                self._asked_at = time.monotonic()
            return self._used
