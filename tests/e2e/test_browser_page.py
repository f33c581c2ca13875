"""examples/clients/sse.html in a real browser: it submits a job and follows it, and it takes a cut stream up again."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect, sync_playwright

from stoker.local import place
from stoker.local.stack import Options, Stack, started
from tests.conftest import scratch_folder

CLIENTS = Path(__file__).parents[2] / "examples" / "clients"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="apt-get install --no-install-recommends chromium"),
]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """Where the page is served from: another origin than the API's."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=CLIENTS)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def stack(own_environ: dict[str, str], origin: str) -> Iterator[Stack]:
    data_dir = scratch_folder("page")
    environ = own_environ | {"STOKER_CORS_ORIGINS": origin}
    with started(Options(data_dir, apps=("examples.echo.app:Echo",), durable=False, environ=environ)) as running:
        yield running.stack
    place.discard(data_dir)


@pytest.fixture
def page(stack: Stack, origin: str) -> Iterator[Page]:
    """The page, filled in. An error in its script fails the test."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page()
        broken: list[object] = []
        page.on("pageerror", lambda error: broken.append(error))
        page.goto(f"{origin}/sse.html")
        page.get_by_label("API").fill(stack.api_url)
        page.get_by_label("Key").fill(stack.api_key)
        yield page
        browser.close()
        assert broken == []


def test_a_job_is_submitted_and_followed_to_its_end(page: Page):
    page.get_by_role("button", name="Submit").click()

    expect(page.get_by_role("status")).to_have_text("succeeded", timeout=30_000)
    expect(page.locator("#log")).to_contain_text('"message":"saying')
    assert page.locator("progress").evaluate("bar => bar.value") == 1


def test_a_refused_input_is_shown_with_its_hint(page: Page):
    page.get_by_label("Input").fill('{"text": ""}')

    page.get_by_role("button", name="Submit").click()

    expect(page.get_by_role("status")).to_contain_text("error: the input breaks the app's schema", timeout=30_000)


def test_a_stream_that_is_cut_goes_on_after_the_last_event(page: Page):
    asked: list[str | None] = []

    def cut_the_first(route: Route) -> None:
        asked.append(route.request.headers.get("last-event-id"))
        if len(asked) == 1:
            body = 'retry: 1\n\nevent: state\nid: 1.0.0\ndata: {"state":"queued"}\n\nevent: state\nid: 2.1'
            allowed = {"Access-Control-Allow-Origin": "*", "Content-Type": "text/event-stream"}
            route.fulfill(status=200, headers=allowed, body=body)
        else:
            route.continue_()

    page.route("**/events", cut_the_first)
    page.get_by_role("button", name="Submit").click()

    expect(page.get_by_role("status")).to_have_text("succeeded", timeout=30_000)
    assert asked == [None, "1.0.0"]
    assert page.locator("#log").inner_text().count('"state":"queued"') == 1
