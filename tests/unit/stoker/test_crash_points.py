"""Crash points: off by default, refused outside tests, and dead on the spot where one is armed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from stoker.crash_points import CrashAt, Point
from stoker.errors import ConfigurationError
from stoker.settings import NodeSettings
from tests.unit.stoker.test_settings_and_log import ENGINES

SCRIPT = """
from stoker.crash_points import CrashAt, Point, arm, reach
arm({armed})
for turn in (1, 2):
    reach(Point.NODE_BEGUN)
    reach(Point.NODE_CLAIMED)
    print("alive after", turn, flush=True)
"""


@pytest.mark.parametrize(
    ("armed", "exit_code", "said"),
    [
        ("None", 0, ["alive after 1", "alive after 2"]),
        ("CrashAt.parse('node.claimed')", -signal.SIGKILL, []),
        ("CrashAt.parse('node.claimed:2')", -signal.SIGKILL, ["alive after 1"]),
        ("CrashAt.parse('node.claimed:3')", 0, ["alive after 1", "alive after 2"]),
    ],
)
def test_a_process_dies_the_nth_time_it_reaches_its_point(armed: str, exit_code: int, said: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(armed=armed)], capture_output=True, text=True, timeout=60, check=False
    )

    lines = [line for line in ended.stdout.splitlines() if line.startswith("alive")]
    assert (ended.returncode, lines) == (exit_code, said), ended.stderr


@pytest.mark.parametrize("testing", [None, "0"])
def test_a_crash_point_is_refused_outside_tests(monkeypatch: pytest.MonkeyPatch, testing: str | None) -> None:
    _set(monkeypatch, STOKER_CRASH_AT="node.claimed", **({} if testing is None else {"STOKER_TESTING": testing}))

    with pytest.raises(ConfigurationError, match=r"STOKER_CRASH_AT.*only for tests"):
        NodeSettings.load()


def test_a_point_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, STOKER_CRASH_AT="node.nowhere", STOKER_TESTING="1")

    with pytest.raises(ConfigurationError, match=r"node\.nowhere"):
        NodeSettings.load()


def test_a_test_may_arm_one(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, STOKER_CRASH_AT="node.claimed:2", STOKER_TESTING="1")

    assert NodeSettings.load().crash_at == CrashAt(Point.NODE_CLAIMED, 2)


def _set(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in ("STOKER_TESTING", "STOKER_CRASH_AT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (ENGINES | variables).items():
        monkeypatch.setenv(name, value)
