"""The benchmark of the queue: it runs as documented, and its thresholds judge what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers.figures import Figures, Key
from benchmarks.peers.thresholds import Verdict
from benchmarks.queue_peers.thresholds import ENTRY, RATE, verdicts

ROOT = Path(__file__).parents[2]


def judged(figures: Figures, claims: dict[str, dict[int, float]] | None = None, *, measure: str) -> list[Verdict]:
    return [verdict for verdict in verdicts(figures, claims or {}) if measure in verdict.measure]


@pytest.mark.timeout(300)
def test_a_quick_run_of_the_benchmark_measures_claims(tmp_path: Path):
    file = tmp_path / "figures.json"

    run = subprocess.run(
        [sys.executable, "benchmarks/queues.py", "--quick", "--only", "claims", "--json", file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert len(json.loads(file.read_text())["claims"]) == 6


def test_rates_are_judged_against_celery_with_sqlalchemy_results_of_the_same_run():
    figures = Figures()
    for slots, ours, theirs in ((1, 90.0, 80.0), (8, 70.0, 80.0)):
        figures.add(Key(slots, RATE, "stoker"), 0, [ours])
        figures.add(Key(slots, RATE, "celery sqlalchemy"), 0, [theirs])

    at_one, at_eight = judged(figures, measure=RATE)

    assert at_one.is_met
    assert not at_eight.is_met
    assert "80" in at_eight.wanted


def test_a_latency_is_judged_by_its_median_and_by_the_worst_99th_percentile():
    figures = Figures()
    figures.add(Key(1, ENTRY, "stoker, warm rank"), 0, [9.0] * 50)
    figures.add(Key(1, ENTRY, "stoker, warm rank"), 1, [9.0] * 50 + [1000.0])

    p50, p99 = judged(figures, measure="warm rank")

    assert p50.is_met
    assert not p99.is_met


def test_claims_are_judged_against_the_shortest_queue():
    flat, steep = judged(Figures(), {"plain": {1000: 2.0, 100_000: 2.8, 1_000_000: 3.2}}, measure="claim")

    assert flat.is_met
    assert not steep.is_met


def test_what_was_not_measured_is_missed():
    assert not any(verdict.is_met for verdict in verdicts(Figures(), {}))
