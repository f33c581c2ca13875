"""The benchmark of the runner: it runs as documented, and its thresholds judge what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.figures import Figures, Key
from benchmarks.peers.thresholds import Verdict, verdicts

ROOT = Path(__file__).parents[2]


def judged(figures: Figures, measure: str) -> list[Verdict]:
    return [verdict for verdict in verdicts(figures, 1, calls=True) if verdict.measure == measure]


def test_a_quick_run_of_the_benchmark_measures_everything_but_fal(tmp_path: Path):
    file = tmp_path / "figures.json"

    run = subprocess.run(
        [sys.executable, "benchmarks/runner.py", "--quick", "--json", file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    told = json.loads(file.read_text())
    unmeasured = [verdict["text"] for verdict in told["verdicts"] if verdict["value"] is None]
    assert all("than fal" in text for text in unmeasured)
    assert {figure["peer"] for figure in told["figures"]} == {"raw", "bare", "ours"}
    assert [figure for figure in told["figures"] if "wrong" in figure["measure"] and figure["p99"]] == []
    assert "world size 1" in run.stdout


def test_a_call_is_judged_against_the_raw_round_trip_and_fal_of_the_same_run():
    figures = Figures()
    for peer, samples in {"raw": [0.04], "ours": [0.1], "fal": [100.0]}.items():
        figures.add(Key(1, "empty call", peer), 0, samples)

    times_raw, quicker = judged(figures, "empty call")

    assert times_raw.value == 2.5
    assert quicker.value == 1000
    assert times_raw.is_met
    assert quicker.is_met


def test_what_was_not_measured_is_missed():
    figures = Figures()

    assert not any(verdict.is_met for verdict in verdicts(figures, 1, calls=True))


def test_one_lost_event_in_one_repeat_is_missed():
    figures = Figures()
    for repeat, wrong in enumerate([0, 1, 0]):
        figures.add(Key(1, "burst, stream(), wrong", "ours"), repeat, [wrong])

    lost = judged(figures, "burst, stream()")[1]

    assert lost.value == 1
    assert not lost.is_met


def test_the_table_has_the_median_of_the_repeats_and_the_worst_99th_percentile():
    figures, key = Figures(), Key(1, "start", "ours")
    for repeat, samples in enumerate([[1.0, 2.0, 3.0], [4.0], [9.0, 9.0]]):
        figures.add(key, repeat, samples)

    assert figures.typical(key) == 4.0
    assert figures.p99(key) == 9.0
