"""The local stack as a whole: one command up, one down, and nothing left over however its head ends."""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
from logging.handlers import QueueHandler
from pathlib import Path

import httpx2
import psutil
import pytest

from stoker.errors import EngineError
from stoker.local import background, place, stack
from stoker.local.part import Part, wait_ready
from stoker.local.process import ProcessExitedError
from stoker.local.supervisor import Supervisor
from tests.support.processes import Watched

ROLES = {"up", "postgres", "valkey", "seaweedfs", "api", "control"}


def options(data_dir: Path, environ: dict[str, str]) -> stack.Options:
    """A stack without nodes: what a node does has tests of its own."""
    return stack.Options(data_dir=data_dir, nodes=0, durable=False, environ=environ)


def stoker(environ: dict[str, str], data_dir: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stoker", *arguments],
        env=environ | {"STOKER_DATA_DIR": str(data_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_detached_stack_stays_until_down_and_comes_back_with_its_keys(
    data_dir: Path, own_environ: dict[str, str]
) -> None:
    up = stoker(own_environ, data_dir, "up", "--detach", "--json", "--nodes", "0")
    written, said = up.communicate(timeout=120)
    assert up.returncode == 0, said
    first = json.loads(written)
    watched = Watched(first["pids"].values())
    headers = {"Authorization": f"Key {first['api_key']}"}

    assert set(first["pids"]) == ROLES
    assert psutil.Process(first["pids"]["control"]).environ()["STOKER_PUBLIC_URL"] == first["api_url"]
    assert json.loads((data_dir / "state.json").read_text()) == first
    assert httpx2.get(f"{first['api_url']}/readyz").status_code == 200
    assert httpx2.get(f"{first['api_url']}/v1/jobs", headers=headers).status_code == 200
    assert set(first["metrics_urls"]) == {"api", "control"}
    for url in first["metrics_urls"].values():
        assert "stoker_" in httpx2.get(url).text
    with pytest.raises(EngineError, match="already"):
        background.up(options(data_dir, own_environ))

    down = stoker(own_environ, data_dir, "down")
    written, said = down.communicate(timeout=60)
    assert (down.returncode, "down" in written) == (0, True), said
    assert watched.have_ended(within_s=0)
    assert not (data_dir / "state.json").exists()
    assert not background.down(data_dir)

    with stack.started(options(data_dir, own_environ)) as running:
        second = running.stack
        assert (second.api_url, second.api_key, second.admin_key) == (
            first["api_url"],
            first["api_key"],
            first["admin_key"],
        )
        assert httpx2.get(f"{second.api_url}/v1/jobs", headers=headers).status_code == 200


def test_no_process_outlives_a_killed_head(data_dir: Path, own_environ: dict[str, str]) -> None:
    up = background.up(
        stack.Options(
            data_dir=data_dir, apps=("examples.echo.app:Echo",), world_size=1, durable=False, environ=own_environ
        )
    )
    tree = psutil.Process(up.pids["up"]).children(recursive=True)
    watched = Watched([up.pids["up"], *(process.pid for process in tree)])

    os.kill(up.pids["up"], signal.SIGKILL)

    assert {"node-1", *ROLES} == set(up.pids)
    assert len(tree) > len(up.pids)  # the app's own process, and PostgreSQL's
    assert watched.have_ended(within_s=30)
    assert place.holder(data_dir) is None


def test_a_stack_that_loses_an_engine_goes_down_and_says_which(data_dir: Path, own_environ: dict[str, str]) -> None:
    up = stoker(own_environ, data_dir, "up", "--json", "--nodes", "0")
    assert up.stdout
    pids = json.loads(up.stdout.readline())["pids"]
    watched = Watched(pids.values())

    os.kill(pids["valkey"], signal.SIGKILL)

    assert up.wait(timeout=60) != 0
    assert up.stderr
    assert "valkey ended" in up.stderr.read()
    assert watched.have_ended(within_s=0)


def test_a_stack_with_a_part_that_cannot_start_says_why_and_leaves_nothing(
    data_dir: Path, own_environ: dict[str, str]
) -> None:
    environ = own_environ | {"STOKER_REAP_S": "never"}

    with pytest.raises(EngineError, match="STOKER_REAP_S"):
        background.up(options(data_dir, environ))

    engines = json.loads((data_dir / "engines.json").read_text()).values()
    assert not [engine for engine in engines if Path(f"/proc/{engine['pid']}").exists()]
    assert place.holder(data_dir) is None


def test_a_part_that_ends_is_started_again(tmp_path: Path, own_environ: dict[str, str]) -> None:
    part = Part("announcer", "tests.support.announcer", tmp_path, own_environ)
    process, reader = part.start()
    assert wait_ready(process, reader) == {"ready": True, "answer": 42}
    restarts: queue.Queue[int] = queue.Queue()
    supervisor = Supervisor({"announcer": (part, process)}, {}, lambda: restarts.put(1))

    process.kill()
    restarts.get(timeout=30)

    again = supervisor.processes["announcer"]
    assert again.pid != process.pid
    supervisor.close()
    assert again.exit_code is not None


def test_a_part_that_cannot_be_started_again_is_tried_until_it_can(tmp_path: Path, own_environ: dict[str, str]) -> None:
    logs = tmp_path / "logs"
    part = Part("announcer", "tests.support.announcer", logs, own_environ)
    process, reader = part.start()
    wait_ready(process, reader)
    records: queue.Queue[logging.LogRecord] = queue.Queue()
    restarts: queue.Queue[int] = queue.Queue()
    hearing = QueueHandler(records)
    logging.getLogger("stoker.local.supervisor").addHandler(hearing)
    supervisor = Supervisor({"announcer": (part, process)}, {}, lambda: restarts.put(1))

    logs.rename(tmp_path / "moved away")
    logs.touch()
    process.kill()
    while "could not be started" not in records.get(timeout=30).getMessage():
        pass
    logs.unlink()
    restarts.get(timeout=30)

    assert supervisor.processes["announcer"].pid != process.pid
    supervisor.close()
    logging.getLogger("stoker.local.supervisor").removeHandler(hearing)


def test_a_part_that_ends_before_it_is_ready_is_reported_with_its_words(
    tmp_path: Path, own_environ: dict[str, str]
) -> None:
    process, reader = Part("broken", "tests.support.nothing_there", tmp_path, own_environ).start()

    with pytest.raises(ProcessExitedError, match="nothing_there"):
        wait_ready(process, reader)
