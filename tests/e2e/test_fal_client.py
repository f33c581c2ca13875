"""fal's own clients as they are published, against a real stack with real jobs: only their hosts are others."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fal_client
import fal_client.client
import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from fal_client import Completed, FalClientHTTPError, FalClientTimeoutError, InProgress, Queued
from PIL import Image as Pil

from stoker.compat import fal
from stoker.local import place
from stoker.local.engines import Engines
from stoker.local.stack import Options, Stack, started
from tests.conftest import scratch_folder
from tests.support.api_server import api_settings, running_api
from tests.support.databases import fresh_database
from tests.support.patience import waiting_for
from tests.support.receiver import Received, running_receiver
from tests.support.webhook_verifiers import verified_as_fal_says

APP, PORTED = "tests/served", "local/parallel-sdxl"
CONSTANTS = ("RUN_URL_FORMAT", "QUEUE_URL_FORMAT", "REALTIME_URL_FORMAT", "REST_URL", "CDN_URL")
NODE, MODULES = shutil.which("node"), Path(__file__).parents[1] / "javascript" / "node_modules"
LARGE = b"\x00\x01\x02\x03 101 MiB" * (101 * 1024 * 1024 // 12 + 1)
"""Just over what the client sends as a whole."""


@pytest.fixture(scope="module")
def stack(engines: Engines, own_environ: dict[str, str]) -> Iterator[Stack]:
    """A stack on the session's engines, with a database of its own."""
    data_dir = scratch_folder("fal")
    with fresh_database(engines, migrated=False) as database_url:
        environ = {**own_environ, **engines.environment(), "DATABASE_URL": database_url, "OMP_NUM_THREADS": "1"}
        environ["STOKER_WEBHOOK_ALLOWED_HOSTS"] = "127.0.0.1"
        apps = ("tests.apps.served:Served", "tests.apps.ported:ParallelSdxl")
        with started(Options(data_dir, apps=apps, durable=False, environ=environ)) as running:
            yield running.stack
    place.discard(data_dir)


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[fal_client.SyncClient]:
    before = {name: getattr(fal_client.client, name) for name in CONSTANTS}
    fal.patch(stack.api_url)
    yield fal_client.SyncClient(key=stack.api_key)
    for name, value in before.items():
        setattr(fal_client.client, name, value)


@pytest.fixture(scope="module", autouse=True)
def painting(client: fal_client.SyncClient) -> fal_client.SyncRequestHandle:
    """Begun with the first test: ranks take seconds to start, and the other tests need none."""
    return client.submit(PORTED, {"prompt": "a cat"})


def test_a_request_is_submitted_followed_and_its_result_read(client: fal_client.SyncClient, tmp_path: Path) -> None:
    end = tmp_path / "end"
    handle = client.submit(f"{APP}/wait", {"wait_for": str(end)}, priority="low", start_timeout=60, hint="a", path="")

    seen = []
    for event in handle.iter_events(with_logs=True, interval=0.02):
        seen.append(event)
        if isinstance(event, InProgress) and event.logs:
            end.touch()

    assert {type(event) for event in seen} <= {Queued, InProgress, Completed}
    last = seen[-1]
    assert isinstance(last, Completed)
    assert [line["message"] for line in last.logs or []] == ["waiting"]
    assert (last.error, last.metrics["inference_time"] > 0) == (None, True)
    assert handle.get()["text"] == "waited"
    assert client.result(APP, handle.request_id) == handle.get()
    assert isinstance(client.status(APP, handle.request_id), Completed)


def test_a_result_links_to_the_files_of_the_job_and_they_are_good_inputs(client: fal_client.SyncClient) -> None:
    updates, ids = [], []
    result = client.subscribe(
        APP, {"text": "hello"}, with_logs=True, on_queue_update=updates.append, on_enqueue=ids.append, interval=0.02
    )

    link = result["file"]["url"]
    assert httpx.get(link, follow_redirects=True).text == "hello"
    assert client.subscribe(f"{APP}/digest", {"file": {"url": link}})["size_bytes"] == 5
    assert isinstance(updates[-1], Completed)
    assert len(ids) == 1


def test_an_input_that_breaks_the_schema_is_422_with_its_places(client: fal_client.SyncClient) -> None:
    with pytest.raises(FalClientHTTPError) as refused:
        client.subscribe(APP, {"text": "", "size": 1})

    assert refused.value.status_code == 422
    places = {tuple(entry["loc"]) for entry in refused.value.response.json()["detail"]}
    assert places == {("body", "text"), ("body", "size")}


def test_a_failed_request_raises_with_the_apps_message(client: fal_client.SyncClient) -> None:
    handle = client.submit(f"{APP}/fail", {"text": "cubist"}, headers={"x-fal-no-retry": "1"})

    with pytest.raises(FalClientHTTPError, match="no such style: cubist") as failed:
        handle.get(interval=0.02)

    assert (failed.value.status_code, failed.value.error_type) == (500, "runner_server_error")
    status = handle.status()
    assert isinstance(status, Completed)
    assert status.error_type == "runner_server_error"


def test_cancelling_twice_is_refused_the_second_time(client: fal_client.SyncClient, tmp_path: Path) -> None:
    handle = client.submit(f"{APP}/wait", {"wait_for": str(tmp_path / "never")})
    handle.cancel()

    with pytest.raises(FalClientHTTPError) as cancelled:
        handle.get(interval=0.02)
    with pytest.raises(FalClientHTTPError) as refused:
        client.cancel(APP, handle.request_id)

    assert (cancelled.value.status_code, cancelled.value.error_type) == (499, "client_cancelled")
    assert (refused.value.status_code, refused.value.response.json()) == (400, {"status": "ALREADY_COMPLETED"})


def test_a_client_that_has_no_more_time_cancels_its_request(client: fal_client.SyncClient, tmp_path: Path) -> None:
    with pytest.raises(FalClientTimeoutError) as ended:
        client.subscribe(f"{APP}/wait", {"wait_for": str(tmp_path / "never")}, client_timeout=1.1, interval=0.05)

    request_id = ended.value.request_id
    assert request_id is not None
    handle = client.get_handle(APP, request_id)
    *_, last = handle.iter_events(interval=0.02)
    assert isinstance(last, Completed)
    assert last.error_type == "client_cancelled"


def test_a_run_and_a_stream_answer_at_once(client: fal_client.SyncClient) -> None:
    result = client.run(APP, {"text": "hello"})
    events = list(client.stream(APP, {"text": "hello"}))

    assert result["text"] == "hello"
    assert [event.get("step") for event in events[:-1]] == [1, 2][-len(events[:-1]) :]
    assert events[-1]["text"] == "hello"


def test_a_stream_that_is_left_cancels_its_job(client: fal_client.SyncClient, stack: Stack, tmp_path: Path) -> None:
    events = client.stream(f"{APP}/wait", {"wait_for": str(tmp_path / "never")})
    first = next(iter(events))
    events.close()

    assert first["step"] == 1
    with httpx.Client(base_url=stack.api_url, headers={"authorization": f"Key {stack.api_key}"}) as http:
        [job] = http.get("/v1/jobs", params={"limit": 1}).json()["jobs"]
        with http.stream("GET", f"/v1/jobs/{job['id']}/events") as answer:
            last = [line for line in answer.iter_lines() if line.startswith("data")][-1]
    assert '"state":"cancelled"' in last


@pytest.mark.parametrize(("repository", "name"), [("fal_v3", "said.txt"), ("fal", "grüße.txt")])
def test_five_bytes_are_uploaded_and_are_a_good_input(
    client: fal_client.SyncClient, repository: str, name: str
) -> None:
    url = client.upload(b"hello", "text/plain", file_name=name, repository=repository, fallback_repository=[])

    assert httpx.get(url, follow_redirects=True).content == b"hello"
    digest = client.subscribe(f"{APP}/digest", {"file": url}, interval=0.02)
    assert digest == {"sha256": hashlib.sha256(b"hello").hexdigest(), "size_bytes": 5}


def test_101_mib_are_uploaded_in_parts(client: fal_client.SyncClient, tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(LARGE)

    url = client.upload_file(large)

    stored = hashlib.sha256()
    with httpx.stream("GET", url, follow_redirects=True) as answer:
        for chunk in answer.iter_raw(1_000_000):
            stored.update(chunk)
    assert stored.digest() == hashlib.sha256(LARGE).digest()


def test_files_go_along_in_every_form_that_the_client_has(client: fal_client.SyncClient) -> None:
    picture = Pil.new("RGB", (8, 8), "red")
    address = client.upload_image(picture, format="png")
    digests = [
        client.run(f"{APP}/digest", {"file": file})["size_bytes"]
        for file in (fal_client.encode(b"hello", "text/plain"), fal_client.encode_image(picture, "png"), address)
    ]

    assert Pil.open(io.BytesIO(httpx.get(address, follow_redirects=True).content)).getpixel((0, 0)) == (255, 0, 0)
    assert digests[0] == 5
    assert digests[1] == digests[2]


def test_the_async_client_does_the_same(client: fal_client.SyncClient, stack: Stack, tmp_path: Path) -> None:
    end, small = tmp_path / "end", tmp_path / "small.txt"
    small.write_bytes(b"hello")

    async def use() -> None:
        aio = fal_client.AsyncClient(key=stack.api_key)
        updates: list[object] = []

        def update(status: object) -> None:
            updates.append(status)
            if isinstance(status, InProgress):
                end.touch()

        waited = await aio.subscribe(f"{APP}/wait", {"wait_for": str(end)}, on_queue_update=update, interval=0.02)
        addresses = [await aio.upload(b"hello", "text/plain"), await aio.upload_file(small)]
        addresses.append(await aio.upload(b"hello", "text/plain", repository="fal", fallback_repository=[]))
        digests = [await aio.subscribe(f"{APP}/digest", {"file": url}, interval=0.02) for url in addresses]
        events = [event async for event in aio.stream(APP, {"text": "hello"})]

        assert waited["text"] == "waited"
        assert isinstance(updates[-1], Completed)
        assert [digest["size_bytes"] for digest in digests] == [5, 5, 5]
        assert events[-1]["text"] == "hello"
        assert (await aio.run(APP, {"text": "hello"}))["text"] == "hello"
        handle = await aio.submit(f"{APP}/wait", {"wait_for": str(tmp_path / "never")})
        assert isinstance(await aio.status(APP, handle.request_id, with_logs=True), Queued | InProgress)
        await aio.cancel(APP, handle.request_id)
        again = await aio.get_handle(APP, handle.request_id)
        assert [type(event) async for event in again.iter_events(interval=0.02)][-1] is Completed
        with pytest.raises(FalClientHTTPError):
            await aio.result(APP, handle.request_id)

    asyncio.run(use())


def test_a_webhook_is_fals_and_is_verified_by_the_published_recipe(client: fal_client.SyncClient, stack: Stack) -> None:
    async def both() -> tuple[dict[str, Any], list[Received], dict[str, Any]]:
        async with running_receiver() as receiver, httpx.AsyncClient(base_url=stack.api_url) as http:
            aio, url = fal_client.AsyncClient(key=stack.api_key), f"http://{receiver.address}/done?of=fal"
            done = await aio.submit(APP, {"text": "hello"}, webhook_url=url)
            failed = await aio.submit(f"{APP}/fail", {"text": "x"}, webhook_url=url, headers={"x-fal-no-retry": "1"})
            async with waiting_for("two webhooks"):
                while len(receiver.received) < 2:
                    receiver.has_received.clear()
                    await receiver.has_received.wait()
            keys = (await http.get("/rest/.well-known/jwks.json")).json()
            wanted = {
                done.request_id: {"status": "OK", "error": None, "payload": await done.get()},
                failed.request_id: {
                    "status": "ERROR",
                    "error": "Invalid status code: 500",
                    "payload": {"detail": "ValueError: no such style: x", "error_type": "runner_server_error"},
                },
            }
            return wanted, receiver.received, keys

    wanted, received, keys = asyncio.run(both())

    for sent in received:
        body = json.loads(sent.body)
        id_ = body["request_id"]
        fals = {name: body[name] for name in ("request_id", "gateway_request_id", "status", "payload", "error")}
        assert fals == {"request_id": id_, "gateway_request_id": id_, **wanted.pop(id_)}
        assert (sent.method, sent.path, sent.headers["x-fal-webhook-request-id"]) == ("POST", "/done?of=fal", id_)
        assert verified_as_fal_says(sent.headers, sent.body, keys)
        assert not verified_as_fal_says(sent.headers, sent.body + b" ", keys)
    assert wanted == {}


def test_an_app_file_of_fals_serves_its_own_client_with_other_imports_alone(
    client: fal_client.SyncClient, painting: fal_client.SyncRequestHandle
) -> None:
    """``tests/apps/ported.py`` is in the form of fal's tutorial for several GPUs."""
    *_, painted = painting.iter_events(with_logs=True, interval=0.05)
    result = painting.get()
    *previews, last = client.stream(PORTED, {"prompt": "a cat", "num_inference_steps": 3})

    assert isinstance(painted, Completed)
    said = [(line["labels"].get("rank"), line["message"]) for line in painted.logs or []]
    assert {("0", "painting a cat"), ("1", "painting a cat")} <= set(said)
    for image in (result["image"], last["image"]):
        picture = Pil.open(io.BytesIO(httpx.get(image["url"], follow_redirects=True).content)).convert("RGB")
        assert picture.size == (2 * 64, 64)  # a picture of each rank
        assert picture.crop((0, 0, 64, 64)).tobytes() != picture.crop((64, 0, 128, 64)).tobytes()
    assert (result["image"]["content_type"], last["image"]["content_type"]) == ("image/png", "image/jpeg")
    assert {event["image"]["url"][:23] for event in previews if "image" in event} == {"data:image/jpeg;base64,"}
    assert [event["step"] for event in previews if "image" not in event] == [0, 1, 2]
    with pytest.raises(FalClientHTTPError, match="no such style"):
        client.subscribe(PORTED, {"prompt": "fail"}, interval=0.05)


BY_ENVIRONMENT = """
import sys, fal_client
app = sys.argv[1]
assert fal_client.subscribe(app, {"text": "hello"})["text"] == "hello"
assert fal_client.run(app, {"text": "hello"})["text"] == "hello"
assert list(fal_client.stream(app, {"text": "hello"}))[-1]["text"] == "hello"
handle = fal_client.submit(app + "/fail", {"text": "x"}, headers={"x-fal-no-retry": "1"})
assert fal_client.status(app, handle.request_id) is not None
kept = fal_client.submit(app, {"text": "kept"})
assert kept.get() == fal_client.result(app, kept.request_id)
try:
    handle.get()
except fal_client.FalClientHTTPError as error:
    print(error.status_code, handle.status_url.partition("/queue/")[0])
"""


def test_environment_variables_alone_point_the_client_to_an_api_with_tls(
    stack: Stack, engines: Engines, own_environ: dict[str, str], tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "stoker", "certs", "--dir", str(tmp_path), "--json"]
    told = subprocess.run(words, env=own_environ, capture_output=True, text=True, timeout=60, check=True)
    made = {name: Path(path) for name, path in json.loads(told.stdout).items()}
    settings = api_settings(engines, stack.database_url)
    with start_blocking_portal() as portal:
        serving = running_api(settings, certificate=made["certificate"], key=made["key"])
        with portal.wrap_async_context_manager(serving) as api:
            host = "localhost:" + api.url.rpartition(":")[2]
            hosts = {
                "FAL_RUN_HOST": f"{host}/run",
                "FAL_QUEUE_RUN_HOST": f"{host}/queue",
                "FAL_KEY": stack.api_key,
                "SSL_CERT_FILE": str(made["authority"]),
            }
            ended = subprocess.run(
                [sys.executable, "-c", BY_ENVIRONMENT, APP],
                env=own_environ | hosts,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

    assert ended.stdout.split() == ["500", f"https://{host}"], ended.stderr
    assert made["key"].stat().st_mode & 0o077 == 0


@pytest.mark.skipif(not (NODE and MODULES.exists()), reason="npm ci --prefix tests/javascript")
@pytest.mark.parametrize(("way", "large_bytes"), [("middleware", ""), ("proxy", str(101 * 1024 * 1024))])
def test_the_javascript_client_makes_every_call_that_it_has(
    stack: Stack, own_environ: dict[str, str], tmp_path: Path, way: str, large_bytes: str
) -> None:
    environ = {
        **own_environ,
        "STOKER_URL": stack.api_url,
        "FAL_KEY": stack.api_key,
        "WAY": way,
        "FOLDER": str(tmp_path),
        "LARGE_BYTES": large_bytes,
    }

    ended = subprocess.run(
        [str(NODE), "calls.mjs"],
        cwd=MODULES.parent,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["polled"]["text"] == found["said"] == found["run"] == "hello"
    assert found["polled"]["id"]
    assert found["polled"]["last"] == found["afterTimeout"]["status"] == "COMPLETED"
    assert found["streamed"] == {"text": "hello", "logs": ["saying hello"]}
    assert (found["invalid"]["name"], found["invalid"]["status"]) == ("ValidationError", 422)
    assert found["invalid"]["body"]["detail"][0]["loc"] == ["body", "text"]
    assert found["submitted"]["before"] in ("IN_QUEUE", "IN_PROGRESS")
    assert (found["submitted"]["after"], found["submitted"]["text"]) == (["waiting"], "waited")
    assert (found["cancelled"]["result"]["status"], found["cancelled"]["again"]["status"]) == (499, 400)
    assert "timed out" in found["timeout"]["message"]
    assert found["afterTimeout"]["error_type"] == "client_cancelled"
    assert found["stream"]["events"][-1]["text"] == found["stream"]["done"] == "hello"
    assert found["byQuery"] == {"run": "hello", "text": "hello"}
    assert found["statuses"][-1] == "COMPLETED"
    assert found["byToken"] == "hello"
    assert found["small"] == "hello"
    assert found["digest"] == {"sha256": hashlib.sha256(b"hello").hexdigest(), "size_bytes": 5}
    assert found.get("large", True)
