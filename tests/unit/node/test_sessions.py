"""What a killed process leaves behind is waited for, whoever is its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

from worker_node.sessions import end_session, session_ends

LEADER = """
import subprocess, sys
subprocess.Popen(["sleep", "600"], process_group=0)
print("started", flush=True)
sys.stdin.read()
"""


def test_a_session_has_ended_when_the_last_of_its_processes_has():
    with subprocess.Popen(
        [sys.executable, "-c", LEADER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as leader:
        leader.stdout.readline()
        os.kill(leader.pid, signal.SIGKILL)
        os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)

        while_one_lives = asyncio.run(session_ends(leader.pid, 0.05))
        end_session(leader.pid)
        after_that = asyncio.run(session_ends(leader.pid, 30))

    assert (while_one_lives, after_that) == (False, True)
