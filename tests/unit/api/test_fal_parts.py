"""The pure parts of fal's wire: errors, statuses, wishes, our own links in inputs, the endpoint that a path names."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import BaseModel
from starlette.datastructures import Headers

from api import shown
from api.fal import errors, own_links, query_input, wishes
from api.fal.proxy import target_of
from api.fal.route import streamed
from api.fal.statuses import WORD, log_json, status_json
from stoker import File
from stoker.errors import Conflict, ExecutionError, InvalidInput, LeaseLost, StokerError
from stoker.events import Event, EventId, EventKind
from stoker.job_status import JobStatus
from stoker.states import JobState
from tests.support.acting_node import manifest

BASE = "https://stoker.example"
FILE_ID = "file_" + "0" * 32
JOB_ID = UUID(int=7)
UPLOAD_ID = UUID(int=0xABCDEF)


class Pictures(BaseModel):
    image: File
    masks: list[File] = []
    by_name: dict[str, File | None] = {}
    prompt: str = ""


def _all(kind: type[StokerError]) -> set[type[StokerError]]:
    return {kind}.union(*(_all(each) for each in kind.__subclasses__()))


def test_every_error_that_a_job_ends_with_has_a_status_and_a_type_of_fals():
    codes = {kind.code for kind in _all(ExecutionError) if kind.__module__ == "stoker.errors"}

    assert codes - errors.ENDS.keys() == {ExecutionError.code, LeaseLost.code}


def test_a_conflict_is_never_409_which_their_clients_try_again():
    assert errors.of_request(Conflict("it is final")).status == 400


def test_places_of_an_input_are_named_from_the_body():
    wrong = [
        {"loc": ["body", "input", "images", 0], "msg": "no", "type": "missing"},
        {"loc": ["body", "webhook_url"], "msg": "no", "type": "url_not_usable"},
    ]

    refused = errors.of_request(InvalidInput("wrong", errors=wrong))

    assert [entry["loc"] for entry in refused.body["detail"]] == [["body", "images", 0], ["query", "fal_webhook"]]


def test_an_input_that_only_the_node_could_judge_is_422():
    refused = errors.of_job({"code": "invalid_file", "message": "nothing is stored there"})

    assert (refused.status, refused.body["detail"][0]["type"]) == (422, "invalid_file")


def test_every_state_has_one_of_fals_words_and_the_fields_that_their_client_takes_for_granted():
    needed = {"IN_QUEUE": {"queue_position"}, "IN_PROGRESS": {"logs"}, "COMPLETED": {"logs", "metrics", "error"}}

    for state in JobState:
        status = JobStatus("acme/app", state, None, None, None, 1)
        answer = status_json(JOB_ID, status, BASE)
        assert answer["status"] == WORD[state]
        assert needed[answer["status"]] <= answer.keys()


def test_a_line_of_the_log_has_one_of_fals_levels():
    made = datetime(2026, 1, 1, tzinfo=UTC)
    lines = [
        Event(EventId(1), EventKind.LOG, data, made)
        for data in ({"message": "a"}, {"message": "b", "level": "warning", "rank": 1}, {"message": "c", "level": "x"})
    ]

    assert [(log_json(line)["level"], log_json(line)["labels"]) for line in lines] == [
        ("INFO", {}),
        ("WARN", {"rank": "1"}),
        ("INFO", {}),
    ]


def test_addresses_of_our_own_become_what_a_node_knows_them_by_where_a_file_is_meant():
    link = f"{BASE}/cdn/files/{FILE_ID}/cat.png"
    output = f"/outputs/{'t' * 43}/said.txt"
    value = {
        "image": link,
        "masks": [{"url": BASE + output}, "https://elsewhere.example/a.png"],
        "by_name": {"x": {"url": link}, "y": None},
        "prompt": link,
    }

    found = own_links.resolved(Pictures.model_json_schema(), value, BASE)

    assert found == {
        "image": FILE_ID,
        "masks": [{"url": output}, "https://elsewhere.example/a.png"],
        "by_name": {"x": {"url": FILE_ID}, "y": None},
        "prompt": link,
    }


@pytest.mark.parametrize("url", [f"https://other.example/cdn/files/{FILE_ID}/cat.png", f"{BASE}/v1/jobs", "cat.png"])
def test_other_addresses_stay(url: str):
    assert own_links.resolved(Pictures.model_json_schema(), {"image": url}, BASE) == {"image": url}


@pytest.mark.parametrize(
    "path",
    [
        f"/cdn/files/{FILE_ID}/cat.png",
        f"/cdn/files/{FILE_ID}/cat.png/multipart/{JOB_ID}/1",
        f"/cdn/uploads/{JOB_ID}/complete",
        f"/cdn/uploads/{JOB_ID.hex}",
        f"/cdn/uploads/{str(UPLOAD_ID).upper()}/1",
        f"/outputs/{JOB_ID.hex}/../..",
        f"/v1/keys/sk_aB3:{JOB_ID.hex}",
        f"/v1/jobs/Key sk_aB3:{JOB_ID.hex}/events",
        f"/v1/files/sk_aB3.4102444800.{JOB_ID.hex}",
    ],
)
def test_no_line_of_a_log_and_no_answer_holds_an_address_that_is_a_right(path: str):
    told = shown.path({"path": path})

    assert "***" in told
    assert not [secret for secret in (FILE_ID, str(JOB_ID), JOB_ID.hex, str(UPLOAD_ID).upper()) if secret in told]


def test_the_table_of_the_docs_has_every_header_that_means_something_or_nothing():
    table = (Path(__file__).parents[3] / "docs" / "from-fal.md").read_text().partition("## Headers")[2]
    listed = set(re.findall(r"`(x-fal-[a-z-]+|x-fal-[a-z]+-io)`", table.partition("\n## ")[0].lower()))

    sent = {header.lower() for header in wishes.HEADERS} - {"x-fal-target-url", "x-fal-file-name"}
    assert sent == listed


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "nan", "soon", "", "1e9"])
def test_a_start_timeout_that_is_no_time_is_refused(seconds: str):
    with pytest.raises(InvalidInput):
        wishes.read(Headers({"X-Fal-Request-Timeout": seconds}))


def test_without_headers_there_are_no_wishes():
    assert wishes.read(Headers({})) == wishes.Wishes()


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("https://queue.fal.run/acme/app?logs=1", ("/queue/acme/app", "logs=1")),
        ("https://fal.run/acme/app/stream", ("/run/acme/app/stream", "")),
        (
            "https://rest.fal.ai/storage/upload/initiate?storage_type=gcs",
            ("/rest/storage/upload/initiate", "storage_type=gcs"),
        ),
        ("https://rest.alpha.fal.ai/tokens/", ("/rest/tokens/", "")),
    ],
)
def test_the_proxy_knows_fals_hosts(url: str, meant: tuple[str, str]):
    assert target_of(url) == meant


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://example.com/acme/app",
        "https://queue.fal.run.example.com/acme/app",
        "https://queue.fal.run@example.com/acme/app",
        "https://user@queue.fal.run/acme/app",
        "http://queue.fal.run/acme/app",
        "https://queue.fal.run:8080/acme/app",
        "https://queue.fal.run:x/acme/app",
        "https://[queue.fal.run/acme/app",
        "https://queue.fal.run",
        "https://queue.fal.run/\u00e9",
        "//queue.fal.run/acme/app",
    ],
)
def test_the_proxy_knows_no_other_host(url: str):
    assert target_of(url) is None


def test_a_stream_is_of_the_endpoint_that_its_path_names_or_of_the_one_before():
    app = manifest("acme/app")  # has / and /train

    paths = ("stream", "train/stream", "train", "upstream", "")
    assert [streamed(app, path) for path in paths] == ["", "train", "train", "upstream", ""]


def test_a_query_is_read_as_the_schema_would_have_it():
    class Size(BaseModel):
        width: int

    class Wanted(BaseModel):
        prompt: str
        steps: int = 1
        scale: float | None = None
        is_tiled: bool = False
        seeds: list[int] = []
        size: Size | None = None
        note: str | int = ""

    given = {
        "prompt": "17",
        "steps": "4",
        "scale": "0.5",
        "is_tiled": "true",
        "seeds": "[1, 2]",
        "size": '{"width": 8}',
        "note": "3",
        "fal_webhook": "https://example.com/",
    }
    schema = Wanted.model_json_schema()

    read = query_input.read(given.items(), schema)

    assert Wanted.model_validate(read, strict=True).model_dump() == {
        "prompt": "17",
        "steps": 4,
        "scale": 0.5,
        "is_tiled": True,
        "seeds": [1, 2],
        "size": {"width": 8},
        "note": "3",
    }
    # What is of no type that is wanted stays as it came, for the check of the input to name.
    wrong = {"steps": "many", "is_tiled": "1", "scale": "null", "unknown": "1"}
    assert query_input.read(wrong.items(), schema) == {**wrong, "scale": None}
