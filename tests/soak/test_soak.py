"""The short soak; the long one is ``./run soak``."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.timeout(300)
def test_some_hundred_calls_with_two_kills_are_each_answered_once_and_leave_nothing():
    command = [sys.executable, "-m", "tests.soak", "--calls", "400", "--seed", "1", "--kills", "2"]

    soak = subprocess.run(command, capture_output=True, text=True)

    assert soak.returncode == 0, soak.stdout + soak.stderr
