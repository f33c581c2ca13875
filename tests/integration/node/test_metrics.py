"""What Prometheus finds at each part: real processes, scraped over HTTP."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stoker import jobs
from stoker.bus import Bus
from stoker.jobs import ErrorReport, Failed, Usage
from stoker.local.engines import Engines
from stoker.local.part import Part, wait_ready
from stoker.local.ports import free_ports
from tests.integration.node.conftest import QUICK
from tests.support.acting_node import ActingNode
from tests.support.nodes import Desk, NodeProcess, eventually, running_node

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
Samples: TypeAlias = dict[str, float]


@pytest.fixture(scope="module")
def node_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def node(engines: Engines, database_url: str, node_dir: Path, node_port: int) -> Iterator[NodeProcess]:
    apps = [f"tests.apps.{app}" for app in ("well:Echo", "well:TwoRanks", "well:Late", "badly:Exiter")]
    with running_node(engines, database_url, node_dir, apps, STOKER_METRICS_PORT=str(node_port), **QUICK) as running:
        yield running


@pytest.fixture(scope="module")
def control_url(engines: Engines, database_url: str, node_dir: Path) -> Iterator[str]:
    port = free_ports(1)[0]
    environ = {**os.environ, **engines.environment(), "DATABASE_URL": database_url, "STOKER_METRICS_PORT": str(port)}
    process, reader = Part("control", "api.control", node_dir / "log", environ).start()
    try:
        wait_ready(process, reader)
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        process.stop()


@pytest.fixture(scope="module")
def api_url(engines: Engines, database_url: str, node_dir: Path) -> Iterator[str]:
    own = {"DATABASE_URL": database_url, "STOKER_PORT": "0", "STOKER_METRICS_AGE_S": "0"}
    process, reader = Part("api", "api", node_dir / "log", {**os.environ, **engines.environment(), **own}).start()
    try:
        yield f"{wait_ready(process, reader)['url']}/metrics"
    finally:
        process.stop()


async def scrape(url: str) -> str:
    async with httpx2.AsyncClient() as http:
        answer = await http.get(url)
    assert answer.status_code == 200
    return answer.text


def samples(text: str) -> Samples:
    """Each sample by its name and labels, as the text writes them."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


async def until(url: str, wanted: Samples) -> Samples:
    """What is there once all that is ``wanted`` is."""
    seen: Samples = {}

    async def look() -> Samples | None:
        nonlocal seen
        seen = samples(await scrape(url))
        return seen if all(seen.get(name) == value for name, value in wanted.items()) else None

    try:
        return await eventually(look, lambda: str(wanted))
    except TimeoutError:
        missing = {name: (value, seen.get(name)) for name, value in wanted.items() if seen.get(name) != value}
        pytest.fail(f"wanted and seen: {missing}")


async def test_a_node_shows_its_jobs_its_runners_and_its_events(
    node: NodeProcess, node_port: int, desk: Desk, storage: object
) -> None:
    url = f"http://127.0.0.1:{node_port}/metrics"
    counted = await desk.final(await desk.submit("tests/two-ranks", steps=2))
    await desk.final(await desk.submit("tests/two-ranks", steps=1))
    said = await desk.final(await desk.submit("tests/echo", "/file", text="words"))

    seen = await until(
        url,
        {
            "stoker_jobs_finished_total{app=tests/two-ranks,state=succeeded}": 2,
            "stoker_jobs_finished_total{app=tests/echo,state=succeeded}": 1,
            "stoker_job_wait_seconds_count{app=tests/two-ranks}": 2,
            "stoker_job_run_seconds_count{app=tests/two-ranks}": 2,
            "stoker_runners{app=tests/two-ranks,state=warm}": 1,
            "stoker_runners{app=tests/two-ranks,state=busy}": 0,
            "stoker_runners{app=tests/two-ranks,state=down}": 0,
            "stoker_events_persisted_total{kind=output}": 1,
            "stoker_events_persisted_total{kind=state}": 6,
            "stoker_heartbeats_missed_total{}": 0,
        },
    )
    assert seen["stoker_gpu_seconds_total{app=tests/two-ranks}"] > 0
    assert seen["stoker_events_persisted_total{kind=log}"] > 0
    text = await scrape(url)
    for job in (counted, said):
        assert str(job.id) not in text
        assert str(job.tenant_id) not in text


async def test_a_cold_start_is_counted_for_the_job_that_waited_for_it_alone(
    node: NodeProcess, node_port: int, desk: Desk
) -> None:
    await desk.final(await desk.submit("tests/late", steps=1))
    await desk.final(await desk.submit("tests/late", steps=1))

    seen = await until(f"http://127.0.0.1:{node_port}/metrics", {"stoker_job_run_seconds_count{app=tests/late}": 2})

    assert seen["stoker_job_cold_start_seconds_count{app=tests/late}"] == 1
    assert seen["stoker_job_cold_start_seconds_sum{app=tests/late}"] > 0


async def test_a_node_counts_what_is_tried_again_by_its_error(node: NodeProcess, node_port: int, desk: Desk) -> None:
    await desk.submit("tests/exiter")

    await until(
        f"http://127.0.0.1:{node_port}/metrics",
        {
            "stoker_job_retries_total{app=tests/exiter,code=worker_crashed}": 1,
            "stoker_app_restarts_total{app=tests/exiter}": 1,
        },
    )


async def test_the_control_loop_counts_lost_leases_and_deliveries(control_url: str, desk: Desk, redis_url: str) -> None:
    app, bus = f"acme/app-{uuid4().hex[:8]}", Bus(redis_url)
    lost = await ActingNode.start(desk.db, bus, app)
    lost.lease_s = 0.2
    await jobs.submit(desk.db, replace(_job(desk, lost), webhook_url="http://127.0.0.1:1/hook"))
    await lost.claim()

    await until(
        control_url,
        {
            f"stoker_leases_expired_total{{app={app}}}": 1,
            f"stoker_job_retries_total{{app={app},code=node_lost}}": 1,
            "stoker_webhook_deliveries_total{outcome=failed}": 0,
        },
    )
    lost.lease_s = 60
    again = await lost.claim()
    await jobs.finish(desk.db, again.lease, Failed(ErrorReport("app_error", "no")), Usage())
    seen = await until(control_url, {"stoker_webhook_deliveries_total{outcome=failed}": 1})

    assert seen["stoker_duty_seconds_count{duty=reap}"] > 0
    assert not [name for name in seen if name.startswith("stoker_duty_failures_total{")]
    await bus.close()


def _job(desk: Desk, node: ActingNode) -> jobs.NewJob:
    return jobs.NewJob(tenant_id=desk.tenant_id, version=node.version, endpoint="/", input={"prompt": "x"})


async def test_the_page_for_operators_lists_each_metric_and_no_other(
    node: NodeProcess, node_port: int, control_url: str, api_url: str
) -> None:
    described = set(re.findall(r"^\| `(stoker_\w+)", (ROOT / "docs" / "operating.md").read_text(), re.MULTILINE))

    shown = set()
    for url in (f"http://127.0.0.1:{node_port}/metrics", control_url, api_url):
        shown |= set(re.findall(r"^# HELP (stoker_\w+)", await scrape(url), re.MULTILINE))

    assert {name for name in shown if not name.endswith("_created")} == described


@pytest.mark.parametrize(
    "part", [["api.control"], ["worker_node", "--app", "tests.apps.well:Echo"]], ids=lambda part: part[0]
)
def test_a_part_whose_port_is_taken_says_so_and_does_not_start(
    node: NodeProcess, node_port: int, engines: Engines, database_url: str, tmp_path: Path, part: list[str]
) -> None:
    environ = {**os.environ, **engines.environment(), "DATABASE_URL": database_url, "STOKER_DATA_DIR": str(tmp_path)}
    environ["STOKER_METRICS_PORT"] = str(node_port)

    ended = subprocess.run(
        [sys.executable, "-m", *part], env=environ, capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: metrics cannot be served on 127.0.0.1:{node_port}")
    assert "STOKER_METRICS_PORT" in ended.stderr
