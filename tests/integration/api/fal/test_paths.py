"""Any path under fal's prefixes, however it is written: answered, by one route alone, and never with another's job.

What a path means is said again here, by a reader of its own: it is decoded once, and its parts are its owner, alias and
what follows. Straight or through the proxy, it means the same.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, unquote
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from api.fal.proxy import PREFIXES, target_of
from stoker import job_queries
from stoker.states import JobState
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi
from tests.support.tenants import Tenant, make_client

pytestmark = pytest.mark.anyio

EXAMPLES = 250
GOOD = {"prompt": "a cat"}
HOSTS = {prefix: host for host, prefix in PREFIXES.items()}
STRANGE = [
    "",
    ".",
    "..",
    "%",
    "%2",
    "%zz",
    "%ff",
    "%00",
    "%2f",
    "%252f",
    "%2e%2e",
    "%c0%af",
    "%0d%0a",
    "%EF%BB%BF",
    ";a=1",
    "*",
]
WORDS = ["requests", "status", "stream", "cancel", "multipart", "complete", "files", "uploads", "upload", "storage"]
WORDS += [
    "initiate",
    "initiate-multipart",
    "auth",
    "token",
    "tokens",
    "train",
    "workflows",
    ".well-known",
    "1",
    "10001",
]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True)
class Asker:
    """Sends a path as it stands: other clients tidy it up."""

    connection: HTTPConnection
    headers: dict[str, str]

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        sent = None if body is None else json.dumps(body)
        more = {} if body is None else {"content-type": "application/json"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, sent, {**self.headers, **more, **named})
        came = self.connection.getresponse()
        return Answer(came.status, came.headers, came.read())


@dataclass(frozen=True)
class World:
    """Two tenants, each with a job of the same app."""

    url: str
    app: str
    mine: Tenant
    theirs: Tenant
    my_job: str
    their_job: str
    their_file: str

    @contextmanager
    def client(self) -> Iterator[Asker]:
        connection = HTTPConnection(self.url.removeprefix("http://"), timeout=20)
        try:
            yield Asker(connection, {"authorization": f"Key {self.mine.key}"})
        finally:
            connection.close()


@pytest.fixture
async def world(api: RunningApi, node: ActingNode, app: str, db: AsyncEngine) -> World:
    mine, theirs = await make_client(api, "run"), await make_client(api, "run")
    async with mine.http, theirs.http:
        jobs = [(await each.http.post(f"/queue/{app}", json=GOOD)).json()["request_id"] for each in (mine, theirs)]
        begun = await theirs.http.post("/rest/storage/upload/initiate", json={"file_name": "a", "content_type": "a/b"})
    file_id = begun.json()["file_url"].split("/")[-2]
    return World(api.url, app, mine, theirs, jobs[0], jobs[1], file_id)


def written(part: str) -> st.SearchStrategy[str]:
    """A part of a path, in one of the ways in which it may be written."""
    bare = quote(part, safe="")
    every = "".join(f"%{byte:02x}" for byte in part.encode())
    return st.sampled_from([bare, bare, every, every.upper(), quote(bare, safe="")])


def paths(world: World) -> st.SearchStrategy[str]:
    owner, alias = world.app.split("/")
    known = [owner, alias, world.my_job, world.their_job, world.their_file, world.their_job.upper(), *WORDS]
    part = st.one_of(
        st.sampled_from(known).flatmap(written),
        st.sampled_from(STRANGE),
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=6).map(lambda text: quote(text, safe="")),
    )
    free = st.lists(part, max_size=7).map("/".join)
    of_job = job_paths(world, world.my_job, world.their_job)
    ends = st.one_of(
        written("train").map(lambda end: [end]), st.lists(st.sampled_from(WORDS).flatmap(written), max_size=3)
    )
    of_app = ends.map(lambda rest: "/".join([owner, alias, *rest]))
    return st.tuples(st.sampled_from([*sorted(set(PREFIXES.values())), "/cdn"]), st.one_of(of_job, of_app, free)).map(
        "/".join
    )


def job_paths(world: World, *jobs: str) -> st.SearchStrategy[str]:
    """Below one of fal's prefixes: a job's own place, with any end, however each part is written."""
    owner, alias = world.app.split("/")
    ends = st.sampled_from(
        [[], ["status"], ["cancel"], ["status", "stream"], ["stream"], ["status", ""], ["", "status"]]
    )
    return st.tuples(
        written(owner),
        written(alias),
        written("requests"),
        st.sampled_from([*jobs, *(job.upper() for job in jobs), *(job.replace("-", "") for job in jobs)]).flatmap(
            written
        ),
        ends.flatmap(lambda parts: st.tuples(*(written(part) for part in parts))).map("/".join),
    ).map(lambda parts: "/".join(parts).removesuffix("/"))


METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"])
BODIES = st.sampled_from([None, {}, GOOD, [], "text"])


def is_answered_at_once(path: str) -> bool:
    """Whether the request is answered at once: a run waits for its job, which nobody runs here."""
    parts = [part for part in unquote(path).split("/") if part]
    return not (parts[:1] == ["run"] and len(parts) >= 3) and parts[-2:] != ["status", "stream"]


async def test_no_path_breaks_the_server_or_leads_to_what_is_anothers(world: World, db: AsyncEngine) -> None:
    def check_all() -> None:
        with world.client() as http:

            @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(paths(world).filter(is_answered_at_once), METHODS, BODIES)
            def check(path: str, method: str, body: Any) -> None:
                answer = http.request(method, path, body)

                assert answer.status < 500, (method, path, answer.text)
                assert answer.headers["x-fal-request-id"], (method, path)
                if answer.status < 400 and method != "OPTIONS":
                    assert_of_own(world, method, path, answer)
                assert world.their_job not in answer.headers.get("x-fal-request-id", "")

            check()

    await asyncio.to_thread(check_all)
    assert (await job_queries.get(db, UUID(world.their_job), world.theirs.id)).state is JobState.QUEUED


async def test_no_writing_of_a_path_leads_to_anothers_job(world: World, db: AsyncEngine) -> None:
    def check_all() -> None:
        with world.client() as http:

            @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(job_paths(world, world.their_job), st.sampled_from(["GET", "PUT"]), st.booleans())
            def check(path: str, method: str, through_proxy: bool) -> None:
                target = {"x_fal_target_url": f"https://queue.fal.run/{path}"} if through_proxy else {}
                place = "/api/fal/proxy" if through_proxy else f"/queue/{path}"

                answer = http.request(method, place, **target)

                assert 400 <= answer.status < 500, (method, path, answer.text)

            check()

    await asyncio.to_thread(check_all)
    assert (await job_queries.get(db, UUID(world.their_job), world.theirs.id)).state is JobState.QUEUED


def assert_of_own(world: World, method: str, path: str, answer: Answer) -> None:
    """What was answered is what the path says, read as one decoded path: nothing else has the prefix's meaning."""
    parts = unquote(path).strip("/").split("/")
    told = answer.text
    assert world.their_job not in told, (method, path, told)
    if parts[0] != "queue":
        return
    assert "/".join(parts[1:3]) == world.app, (method, path)
    if method in ("POST", "GET") and parts[3:4] != ["requests"]:
        request_id = answer.json()["request_id"]
        assert answer.json()["response_url"] == f"{world.url}/queue/{world.app}/requests/{request_id}"
    else:
        assert UUID(parts[4]) == UUID(world.my_job), (method, path)


async def test_a_submitted_path_is_the_jobs_app_and_endpoint(world: World, db: AsyncEngine) -> None:
    sent: list[tuple[str, str]] = []

    def submit_all() -> None:
        with world.client() as http:

            @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(paths(world).filter(lambda path: path.startswith("/queue/")))
            def check(path: str) -> None:
                answer = http.request("POST", path, GOOD)

                assert answer.status in (200, 404, 405, 422), (path, answer.text)
                if answer.status == 200:
                    sent.append((path, answer.json()["request_id"]))

            check()

    await asyncio.to_thread(submit_all)

    assert {unquote(path).strip("/").partition(world.app)[2].strip("/") for path, _ in sent} >= {"", "train"}
    for path, request_id in sent:
        job = await job_queries.get(db, UUID(request_id), world.mine.id)
        _, _, owner, alias, *rest = unquote(path).split("/")
        assert (job.app, job.endpoint) == (f"{owner}/{alias}", "/" + "/".join(rest).strip("/"))


async def test_a_path_means_the_same_through_the_proxy(world: World) -> None:
    def compare_all() -> None:
        with world.client() as http:

            @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(
                paths(world).filter(lambda path: is_answered_at_once(path) and not path.startswith("/cdn")),
                st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "OPTIONS"]),
            )
            def check(path: str, method: str) -> None:
                _, prefix, rest = path.split("/", 2)
                direct = http.request(method, path)
                target = f"https://{HOSTS[f'/{prefix}']}/{rest}"
                by_proxy = http.request(method, "/api/fal/proxy", x_fal_target_url=target)

                assert by_proxy.status == direct.status, (method, path, direct.text, by_proxy.text)
                assert shape(by_proxy) == shape(direct), (method, path)

            check()

    await asyncio.to_thread(compare_all)


def shape(answer: Answer) -> Any:
    """What was answered, but for what is new each time."""
    if not answer.content or "json" not in answer.headers["content-type"]:
        return answer.content
    told = answer.json()
    for name in ("request_id", "response_url", "status_url", "cancel_url", "gateway_request_id", "queue_position"):
        told.pop(name, None)
    return told


@given(st.text(st.characters(codec="latin-1", exclude_characters="\0\r\n"), max_size=60) | st.sampled_from(STRANGE))
@settings(max_examples=100, deadline=None, database=None)
def test_no_target_leads_the_proxy_anywhere_but_under_fals_prefixes(rest: str) -> None:
    for url in (rest, f"https://queue.fal.run{rest}", f"https://queue.fal.run/{rest}", f"https://{rest}/x"):
        meant = target_of(url)

        assert meant is None or meant[0].startswith(tuple(f"{prefix}/" for prefix in PREFIXES.values())), (url, meant)
