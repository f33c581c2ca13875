"""The command line and the example clients against a running stack, each as a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from examples.album.app import MARGIN, SIDE
from stoker.local import place
from stoker.local.stack import Options, Stack, started
from tests.conftest import scratch_folder

ROOT = Path(__file__).parents[2]
ALBUM = ("examples.album.app:Album", "examples.album.app:Painter")
APPS = ("examples.echo.app:Echo", *ALBUM, "tests.apps.badly:Failing", "tests.apps.badly:Blocker")

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def stack(own_environ: dict[str, str]) -> Iterator[Stack]:
    data_dir = scratch_folder("cli")
    with started(Options(data_dir, apps=APPS, world_size=1, durable=False, environ=own_environ)) as running:
        yield running.stack
    place.discard(data_dir)


@pytest.fixture
def run(stack: Stack, own_environ: dict[str, str], tmp_path: Path) -> Command:
    """Run a program in a folder of its own; the local stack is found by its data folder."""

    def run(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=own_environ | {"STOKER_DATA_DIR": stack.data_dir} | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def stoker(run: Command) -> Command:
    return lambda *arguments, **environ: run(sys.executable, "-m", "stoker", *arguments, **environ)


def read_json(ended: subprocess.CompletedProcess[str]) -> Any:
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_a_job_is_followed_on_standard_error_and_its_result_alone_is_on_standard_output(
    stoker: Command, tmp_path: Path
):
    ended = stoker("submit", "examples/echo", "-i", "text=hello", "-i", "times:=3", "--out", "made")

    result, saved = ended.stdout.splitlines()
    assert ended.returncode == 0, ended.stderr
    assert json.loads(result)["text"] == "hello hello hello"
    assert (tmp_path / saved).read_text() == "hello\nhello\nhello"
    assert [line.split(" ")[0] for line in ended.stderr.splitlines() if line.startswith(("queued", "running", "succ"))]
    assert "saying 'hello' 3 times" in ended.stderr


def test_every_verb_speaks_json(stoker: Command, stack: Stack):
    job_id = stoker("submit", "examples/echo", "-i", "text=hi", "--tag", "json").stdout.strip()

    result = read_json(stoker("result", job_id, "--json"))
    events = [json.loads(line) for line in stoker("events", job_id, "--json").stdout.splitlines()]
    status = read_json(stoker("status", job_id, "--json"))
    listed = read_json(stoker("jobs", "--tag", "json", "--state", "succeeded", "--json"))
    apps = read_json(stoker("apps", "--json"))
    rows = read_json(stoker("sql", f"select app, state from v_jobs where id = '{job_id}'", "--json"))

    assert result == status
    assert (status["id"], status["state"], status["result"]["text"]) == (job_id, "succeeded", "hi hi hi")
    assert [event["data"]["state"] for event in events if event["kind"] == "state"] == [
        "queued",
        "running",
        "succeeded",
    ]
    assert [job["id"] for job in listed["jobs"]] == [job_id]
    assert "examples/echo" in {app["app"] for app in apps}
    assert rows == [{"app": "examples/echo", "state": "succeeded"}]


def test_an_app_that_calls_another_has_its_jobs_listed_under_its_own(stoker: Command, tmp_path: Path):
    ended = stoker("submit", "examples/album", "-i", "words=a garden", "-i", "pictures:=2", "--out", "made")

    assert ended.returncode == 0, ended.stderr
    saved = tmp_path / ended.stdout.splitlines()[1]
    started = read_json(stoker("jobs", "--parent", saved.parent.name, "--json"))["jobs"]
    with PIL.Image.open(saved) as picture:
        assert picture.size == (2 * SIDE + 2 * MARGIN, SIDE + 2 * MARGIN)
    assert [(job["app"], job["endpoint"]) for job in started] == [
        ("examples/painter", path) for path in ("/frame", "/", "/")
    ]


def test_events_go_on_after_the_one_that_is_named(stoker: Command):
    job_id = stoker("submit", "examples/echo", "-i", "text=hi").stdout.strip()
    every = stoker("events", job_id, "--json").stdout.splitlines()
    rows = [line for line in every if json.loads(line)["kind"] != "progress"]

    later = stoker("events", job_id, "--after", json.loads(rows[1])["id"], "--json").stdout.splitlines()

    assert [line for line in later if json.loads(line)["kind"] != "progress"] == rows[2:]


def test_a_job_that_fails_ends_every_verb_that_waits_for_it_with_1(stoker: Command):
    submitted = stoker("submit", "tests/failing", "--wait")
    job_id = read_json(stoker("jobs", "--app", "tests/failing", "--json"))["jobs"][0]["id"]

    assert (submitted.returncode, submitted.stdout) == (1, "")
    assert f"error: job {job_id} failed: app_error: ValueError: the app's own words" in submitted.stderr
    assert stoker("result", job_id).returncode == 1
    assert stoker("events", job_id).returncode == 1
    assert stoker("status", job_id).returncode == 0


def test_a_job_is_cancelled(stoker: Command, tmp_path: Path):
    job_id = stoker("submit", "tests/blocker", "-i", f"path={tmp_path / 'never'}").stdout.strip()

    refused = stoker("result", job_id, "--no-wait")
    asked = stoker("cancel", job_id)
    ended = stoker("result", job_id)

    assert refused.returncode == 2
    assert asked.returncode == 0, asked.stderr
    assert ended.returncode == 1
    assert f"job {job_id} cancelled" in ended.stderr
    assert stoker("cancel", job_id).returncode == 2


def test_an_interrupt_ends_with_130_and_leaves_the_job_alone(
    stoker: Command, stack: Stack, own_environ: dict[str, str], tmp_path: Path
):
    job_id = stoker("submit", "tests/blocker", "-i", f"path={tmp_path / 'go'}").stdout.strip()

    following = subprocess.Popen(
        # Where the tests were started in the background, a shell has them ignore interrupts.
        ["env", "--default-signal=INT", sys.executable, "-m", "stoker", "events", job_id],
        env=own_environ | {"STOKER_DATA_DIR": stack.data_dir},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stdout
    assert "state=queued" in following.stdout.readline()
    following.send_signal(signal.SIGINT)
    _, said = following.communicate(timeout=30)
    (tmp_path / "go").touch()

    assert (following.returncode, said) == (130, "")
    assert stoker("result", job_id).returncode == 0


def test_an_input_that_breaks_the_schema_is_refused_with_its_place(stoker: Command):
    refused = stoker("submit", "examples/echo", "-i", "text=hi", "-i", "times=three")

    assert (refused.returncode, refused.stdout) == (2, "")
    assert "body.input.times: " in refused.stderr


def test_the_same_idempotency_key_makes_one_job(stoker: Command):
    command = ("submit", "examples/echo", "-i", "text=once", "--idempotency-key", "one")

    assert stoker(*command).stdout == stoker(*command).stdout


def test_a_key_is_made_seen_used_and_revoked(stoker: Command, stack: Stack):
    made = read_json(stoker("keys", "create", "--tenant", "other", "--name", "mine", "--json"))
    mine = {"STOKER_API_URL": stack.api_url, "STOKER_API_KEY": made["key"]}

    assert made["scopes"] == ["read", "run"]
    assert read_json(stoker("jobs", "--json", **mine))["jobs"] == []
    assert made["id"] in {key["id"] for key in read_json(stoker("keys", "list", "--json"))}
    assert stoker("keys", "revoke", made["id"]).returncode == 0
    refused = stoker("jobs", **mine)
    assert refused.returncode == 2
    assert "hint: " in refused.stderr


def test_a_tenants_share_and_cap_are_set_and_seen(stoker: Command):
    stoker("keys", "create", "--tenant", "shared")

    changed = read_json(stoker("tenants", "set", "shared", "--weight", "2", "--max-running", "3", "--json"))
    uncapped = read_json(stoker("tenants", "set", "shared", "--uncapped", "--json"))

    rest = {"max_requests_per_s": None, "max_waiting": None}
    assert changed == [{"name": "shared", "weight": 2.0, "max_running": 3, **rest}]
    assert uncapped[0] in read_json(stoker("tenants", "list", "--json"))
    assert stoker("tenants", "set", "nobody", "--weight", "2").returncode == 2


def test_nodes_are_listed_with_what_their_runners_hold_and_do(stoker: Command):
    [node] = read_json(stoker("nodes", "--json"))
    table = stoker("nodes").stdout

    assert (node["is_live"], node["state"]) == (True, "ready")
    assert {runner["app"] for runner in node["runners"]} == set(node["apps"])
    assert node["node_id"] in table
    assert all(app in table for app in node["apps"])


def test_a_paused_app_starts_nothing_until_it_is_resumed(stoker: Command):
    paused = read_json(stoker("queues", "pause", "examples/echo", "--json"))
    job_id = stoker("submit", "examples/echo", "-i", "text=patience").stdout.strip()
    waiting = read_json(stoker("status", job_id, "--json"))
    resumed = read_json(stoker("queues", "resume", "examples/echo", "--json"))

    assert (paused["paused"], resumed["paused"]) == (True, False)
    assert waiting["state"] == "queued"
    assert stoker("result", job_id).returncode == 0


def test_the_limits_of_a_queue_are_set_and_taken_away(stoker: Command):
    limited = read_json(stoker("queues", "set", "examples/echo", "--max-running", "3", "--max-length", "9", "--json"))
    free = read_json(stoker("queues", "set", "examples/echo", "--max-running", "0", "--max-length", "0", "--json"))

    assert (limited["max_running"], limited["max_queue_length"]) == (3, 9)
    assert (free["max_running"], free["max_queue_length"]) == (None, None)
    assert stoker("queues", "pause", "no/such").returncode == 2


def test_sql_reads_and_cannot_change(stoker: Command):
    changed = stoker("sql", "delete from jobs")

    assert changed.returncode == 2
    assert "read-only transaction" in changed.stderr


def test_a_file_is_uploaded_as_an_input_names_it(stack: Stack, tmp_path: Path):
    from stoker.client import Client

    (tmp_path / "notes.txt").write_text("some notes")
    with Client(stack.api_url, stack.api_key) as client:
        uploaded = client.upload(tmp_path / "notes.txt")

    assert uploaded.id.startswith("file_")
    assert (uploaded.file_name, uploaded.file_size, uploaded.content_type) == ("notes.txt", 10, "text/plain")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("sh", ROOT / "examples/clients/curl.sh"), "hello from curl\nhello from curl\nhello from curl"),
        ((sys.executable, ROOT / "examples/clients/python_client.py"), "'text': 'hello from Python hello from Python"),
    ],
)
def test_an_example_client_runs_as_it_stands(command: tuple[str | Path, ...], says: str, run: Command, stack: Stack):
    ended = run(*command, STOKER_API_URL=stack.api_url, STOKER_API_KEY=stack.api_key)

    assert ended.returncode == 0, ended.stderr
    assert says in ended.stdout
