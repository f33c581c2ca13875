"""What the documents say is true of the code: links, names, settings, views, verbs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stoker import settings
from stoker.cli.program import PARTS, VERBS

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
