"""What the documents say is true of the code: links, names, settings, views, verbs."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from api.bodies import NewJobBody
from api.protocol import HEAD_S, MAX_HEAD_BYTES, MAX_HEADERS
from stoker import settings
from stoker.cli.program import PARTS, VERBS
from stoker.compat.fal.toolkit import MAX_POINTS
from stoker.depth import MAX_DEPTH
from stoker.validation import MAX_ERRORS
from tests.integration.security.table import ROWS
from worker_node.apphost.protocol import MAX_EVENT_BYTES, MAX_FILES, MAX_RESULT_BYTES
from worker_node.inputs import DATA_URI_BYTES

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
PROMISE = (
    "at-least-once execution, exactly-once result: only the attempt that holds the lease can publish the result, "
    "finish the job, count usage or fire a webhook"
)

OUR_APPS = {"stoker/text-to-image"}


def test_the_promise_stands_in_the_readme_word_for_word():
    assert PROMISE in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())

    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_is_there(page: Path):
    named = re.findall(
        r"`((?:stoker|api|worker_node|migrations|tests|infra|examples|docs)/[\w./-]+?)/?(?::[^`]*)?`", page.read_text()
    )

    assert [name for name in named if name not in OUR_APPS and not (ROOT / name).exists()] == []


def test_every_setting_stands_in_the_operators_page_and_no_other():
    page = (ROOT / "docs/operating.md").read_text()
    known = {
        str(field.validation_alias or f"STOKER_{name.upper()}")
        for kind in (settings.ApiSettings, settings.ControlSettings, settings.NodeSettings)
        for name, field in kind.model_fields.items()
    }
    of_others = {
        "STOKER_API_URL",
        "STOKER_API_KEY",
        "STOKER_APP",
        "STOKER_WORLD_SIZE",
        "STOKER_POSTGRES_BIN",
        "STOKER_VALKEY_BIN",
        "STOKER_SEAWEEDFS_BIN",
    }

    written = set(re.findall(r"`((?:STOKER|S3|DATABASE|REDIS)_\w+)`", page))
    assert known - written == set()
    assert written - known == of_others


def test_the_views_that_the_pages_name_are_the_views_that_there_are():
    scripts = "".join(script.read_text() for script in (ROOT / "migrations/versions").glob("*.py"))
    made = set(re.findall(r"^CREATE VIEW (v_\w+)", scripts, re.MULTILINE))
    pages = "".join(page.read_text() for page in PAGES)

    assert set(re.findall(r"\bv_[a-z_]+", pages)) == made


def test_every_verb_that_a_page_types_is_one():
    pages = "".join(page.read_text() for page in PAGES)
    typed = set(re.findall(r"(?:\.venv/bin/|`|')stoker ([a-z]+)", pages))

    assert typed - {*VERBS, *PARTS, "keys", "queues", "tenants", "webhooks"} == set()


def test_the_table_of_hostile_requests_is_counted_as_it_is():
    table = (ROOT / "docs/security.md").read_text().partition("| Kind | Rows |")[2]
    written = dict(re.findall(r"^\| ([^|]+) \| (\d+) \|[^|]*\|$", table, re.MULTILINE))
    counted = Counter(row.kind for row in ROWS)

    assert {kind: int(count) for kind, count in written.items()} == {**counted, "all": len(ROWS)}
    assert len({row.id for row in ROWS}) == len(ROWS)


def test_the_limits_on_the_page_about_security_are_those_of_the_code():
    page = (ROOT / "docs/security.md").read_text()
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE))

    assert rows["a request's address and headers"] == f"{MAX_HEAD_BYTES // 1024} kB, {MAX_HEADERS} headers"
    assert rows["the time for them to come"] == f"{HEAD_S:g} s"
    assert f"({settings.ApiSettings.model_fields['max_body_bytes'].default})" in rows["a body"]
    assert f"({settings.ApiSettings.model_fields['max_upload_bytes'].default})" in rows["a file"]
    assert rows["levels of JSON"] == str(MAX_DEPTH)
    assert rows["places that are told of one input"] == str(MAX_ERRORS)
    assert rows["a data URI"] == f"{DATA_URI_BYTES} bytes"
    assert rows["a result"] == f"{MAX_RESULT_BYTES} characters of JSON, {MAX_FILES} files"
    assert rows["an event"] == f"{MAX_EVENT_BYTES} bytes of JSON"
    assert f"{MAX_POINTS:,} points" in page
    body = NewJobBody.model_json_schema()["properties"]["tags"]
    assert rows["tags of a job"] == f"{body['maxItems']}, of {body['items']['maxLength']} characters each"
