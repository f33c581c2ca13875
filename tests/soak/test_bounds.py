"""The soak's judgement: a leak is found, noise is not."""

from __future__ import annotations

import random

import pytest

from tests.soak.bounds import Verdict, growth, judge_count, judge_growth, slope, table

CALLS = list(range(0, 20_000, 100))
MIB = 2**20


def memory(leak_bytes: float, seed: int) -> list[float]:
    """Samples of a process of 500 MiB whose memory wavers by a few MiB, plus a leak for each call."""
    noise = random.Random(seed)
    return [500 * MIB + leak_bytes * call + noise.gauss(0, 2 * MIB) for call in CALLS]


@pytest.mark.parametrize("seed", range(20))
def test_a_leak_of_a_kibibyte_a_call_is_found_and_noise_is_not(seed: int):
    assert judge_growth("memory", "bytes", 512, CALLS, memory(1024, seed)).is_broken
    assert not judge_growth("memory", "bytes", 512, CALLS, memory(0, seed)).is_broken


def test_what_is_taken_once_is_no_leak():
    values = [100.0 * MIB if call < 12_000 else 140.0 * MIB for call in CALLS]

    assert slope(CALLS, values) > 512
    assert growth(CALLS, values) < 1


def test_what_grows_and_is_given_back_is_no_leak():
    values = [float(10 * MIB * min(call, 20_000 - call) / 10_000) for call in CALLS]

    assert growth(CALLS, values) < 0


def test_a_few_samples_are_judged_as_a_whole():
    assert growth([0, 10, 20], [0.0, 100.0, 200.0]) == pytest.approx(10)
    assert growth([5], [1.0]) == 0
    assert growth([], []) == 0


def test_descriptors_that_stay_open_are_found_and_one_that_is_open_for_a_moment_is_not():
    assert judge_count("descriptors", 2, [20, 20, 21, 23, 24, 26, 28, 30]).is_broken
    assert not judge_count("descriptors", 2, [20, 20, 29, 20, 20, 20, 20, 20]).is_broken
    assert not judge_count("descriptors", 2, []).is_broken


def test_the_table_names_what_broke():
    lines = table([Verdict("memory", 2000, 512, "bytes a call", 9), Verdict("threads", 0, 2, "more", 9)]).splitlines()

    assert lines[1].split() == ["memory", "2,000.00", "512.00", "bytes", "a", "call", "9", "BROKEN"]
    assert lines[2].endswith("ok")
