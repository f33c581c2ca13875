"""Whatever an app logs and returns is on every stream of events what it was when it was said, as far as JSON has it."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.fal.route import REQUEST_ID
from stoker import jobs
from stoker.events import EventKind
from stoker.stored_json import as_possible, loaded
from tests.support.acting_node import ActingNode
from tests.support.json_values import texts, values
from tests.support.sse_spec import parse

pytestmark = pytest.mark.anyio

EXAMPLES = 60


def drawn(strategy: st.SearchStrategy[Any]) -> list[Any]:
    """Values of many kinds, all of which one job may say: a job for each would take ten times as long."""
    kept: list[Any] = []

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def keep(value: Any) -> None:
        kept.append(value)

    keep()
    return kept


async def said_by_a_job(http: httpx2.AsyncClient, node: ActingNode, app: str, said: list[Any]) -> str:
    answer = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "a cat"}})
    claim = await node.claim()
    await jobs.append_events(node.db, claim.lease, [(EventKind.LOG, {"message": value}) for value in said])
    await node.succeed(claim, {"said": said})
    job_id: str = answer.json()["id"]
    return job_id


def as_json_has_it(value: Any) -> Any:
    return as_floats(loaded(as_possible(value).obj))


def as_floats(value: Any) -> Any:
    """Numbers as JavaScript has them: 4.5e16 is stored as a whole number, whose digits are more than a float's."""
    if isinstance(value, dict):
        return {name: as_floats(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [as_floats(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def read(text: str | bytes) -> Any:
    return as_floats(json.loads(text))


async def test_a_jobs_stream_and_that_of_all_jobs_say_what_the_app_said(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    said = drawn(values)
    expected = [as_json_has_it(value) for value in said]
    job_id = await said_by_a_job(http, node, app, said)

    of_job = parse((await http.get(f"/v1/jobs/{job_id}/events")).content)
    page = (await http.get("/v1/events", params={"job_id": job_id}, headers={"accept": "application/json"})).json()
    of_all = []
    async with http.stream("GET", "/v1/events", params={"job_id": job_id}) as answer:
        stream = b""
        async for chunk in answer.aiter_bytes():
            stream += chunk
            of_all = [event for event in parse(stream) if event.type != "place"]
            if len(of_all) == len(page["events"]):
                break

    assert [read(event.data)["message"] for event in of_job if event.type == "log"] == expected
    assert read(of_job[-1].data)["result"] == {"said": expected}
    assert [as_floats(event["data"]["message"]) for event in page["events"] if event["kind"] == "log"] == expected
    assert [json.loads(event.data)["data"] for event in of_all] == [event["data"] for event in page["events"]]
    assert read((await http.get(f"/v1/jobs/{job_id}")).content)["result"] == {"said": expected}


async def test_fals_result_and_statuses_say_what_the_app_said(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    said = drawn(texts)
    expected = [as_json_has_it(value) for value in said]
    job_id = await said_by_a_job(http, node, app, said)
    place = f"/queue/{app}/requests/{job_id}"

    result = await http.get(place)
    status = await http.get(f"{place}/status", params={"logs": "1"})
    followed = parse((await http.get(f"{place}/status/stream", params={"logs": "1"})).content)

    assert (result.status_code, result.headers[REQUEST_ID]) == (200, job_id)
    assert read(result.content) == {"said": expected}
    assert [line["message"] for line in status.json()["logs"]] == expected
    assert [line["message"] for event in followed for line in json.loads(event.data)["logs"]] == expected
