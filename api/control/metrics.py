"""Metrics of the control loop for Prometheus: its duties, what they took back, and deliveries by outcome."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from stoker.metrics import JobCounts

DUTY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)


class ControlMetrics:
    """What the loop and its duties count."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counts = JobCounts(self.registry)
        self.leases_expired = Counter(
            "stoker_leases_expired_total", "Leases that ran out and were taken back.", ("app",), registry=self.registry
        )
        self.deliveries = Counter(
            "stoker_webhook_deliveries_total", "Tries to deliver a webhook.", ("outcome",), registry=self.registry
        )
        for outcome in ("delivered", "retried", "failed"):
            self.deliveries.labels(outcome)
        self.duty_seconds = Histogram(
            "stoker_duty_seconds", "Time that a turn of a duty took.", ("duty",), buckets=DUTY_BUCKETS_S,
            registry=self.registry,
        )  # fmt: skip
        self.duty_failures = Counter(
            "stoker_duty_failures_total", "Turns of a duty that failed.", ("duty",), registry=self.registry
        )
