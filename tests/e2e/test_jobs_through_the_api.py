"""Jobs through the whole: the API, the control loop and a node as the processes that ``stoker up`` starts."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stoker.client import Client
from stoker.client.models import StreamedEvent
from stoker.events import EventId, EventKind
from stoker.local import place
from stoker.local.engines import Engines
from stoker.local.stack import Options, Running, started
from stoker.states import JobState
from tests.conftest import scratch_folder
from tests.support.databases import fresh_database
from tests.support.processes import Watched

APPS = ("tests.apps.well:Echo", "tests.apps.well:TwoRanks")


@pytest.fixture(scope="module")
def running(engines: Engines, own_environ: dict[str, str]) -> Iterator[Running]:
    """A stack on the session's engines, with a database of its own."""
    data_dir = scratch_folder("e2e")
    quick = {"OMP_NUM_THREADS": "1", "STOKER_HEARTBEAT_S": "0.5"}
    with fresh_database(engines, migrated=False) as database_url:
        environ = {**own_environ, **engines.environment(), "DATABASE_URL": database_url, **quick}
        with started(Options(data_dir, apps=APPS, durable=False, environ=environ)) as running:
            yield running
    place.discard(data_dir)


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.stack.api_url, running.stack.api_key) as client:
        yield client


def test_a_job_goes_from_post_to_a_file_that_its_link_gives(client: Client, tmp_path: Path) -> None:
    job = client.result(client.submit("tests/echo", {"text": "through everything"}, endpoint="/file").id)

    assert job.state is JobState.SUCCEEDED
    [output] = job.outputs
    assert client.download(output, tmp_path).read_text() == "through everything"
    assert job.result is not None
    assert job.result["file"]["url"] == output.url


def test_a_stream_that_is_cut_at_any_event_goes_on_where_it_was(client: Client) -> None:
    job_id = client.submit("tests/two-ranks", {"steps": 5}).id
    whole = _rows(client.events(job_id))

    assert [_name(event) for event in whole] == ["queued", "running", "counting", "succeeded"]
    for cut in range(1, len(whole)):
        rest = _rows(client.events(job_id, after=whole[cut - 1].id))
        assert [event.id for event in rest] == [event.id for event in whole[cut:]]


def test_progress_reaches_a_caller_while_the_ranks_still_work_and_in_order(client: Client, tmp_path: Path) -> None:
    end = tmp_path / "end"
    job_id = client.submit("tests/two-ranks", {"steps": 4, "wait_for": str(end)}).id

    seen: list[StreamedEvent] = []
    for event in client.events(job_id):
        seen.append(event)
        if event.kind is EventKind.PROGRESS and event.data["step"] == 4:
            end.touch()  # who comes late gets the newest progress alone, of whichever rank

    ids = [EventId.parse(event.id) for event in seen]
    assert ids == sorted(ids)
    assert _name(seen[-1]) == "succeeded"


def test_a_running_job_is_cancelled_through_the_api(client: Client, tmp_path: Path) -> None:
    job_id = client.submit("tests/two-ranks", {"wait_for": str(tmp_path / "never")}).id
    events = client.events(job_id)
    assert any(_name(event) == "counting" for event in events)

    client.cancel(job_id)

    assert _name(list(events)[-1]) == "cancelled"
    assert client.get(job_id).state is JobState.CANCELLED


def test_a_job_outlives_its_node(running: Running, client: Client, tmp_path: Path) -> None:
    end = tmp_path / "end"
    job_id = client.submit("tests/echo", {"wait_for": str(end)}, endpoint="/wait").id
    events = client.events(job_id)
    assert any(_name(event) == "waiting" for event in events)
    node = running.stack.pids["node-1"]
    family = Watched([node, *(child.pid for child in psutil.Process(node).children(recursive=True))])

    os.kill(node, signal.SIGKILL)
    end.touch()

    rest = list(events)
    assert family.have_ended(within_s=30)
    assert [_name(event) for event in rest if event.kind is EventKind.STATE] == ["queued", "running", "succeeded"]
    job = client.get(job_id)
    assert job.attempt == 2
    assert len(job.outputs) == 1


def _name(event: StreamedEvent) -> str:
    return str(event.data.get("state") or event.data.get("message") or event.kind)


def _rows(events: Iterator[StreamedEvent]) -> list[StreamedEvent]:
    return [event for event in events if event.kind.is_row]
