"""The app on the page about writing apps does what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stoker.events import EventKind
from tests.integration.host.conftest import Serve

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[3] / "docs" / "writing-apps.md"


async def test_the_app_of_the_page_about_writing_apps_can_be_served(serve: Serve, tmp_path: Path) -> None:
    source = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert source
    module = tmp_path / "my_module.py"
    module.write_text(source[1])

    app = await serve(f"{module}:MyApp")
    result = await app.call(prompt="a red square", steps=2)

    assert app.host.manifest.app == "me/my-app"
    assert app.host.manifest.endpoints[0].summary == "The first line is what callers read."
    assert [(file.pointer, file.content_type) for file in result.files] == [("/images/0", "image/png")]
    steps = {(event.data["rank"], event.data["step"]) for event in app.events if event.kind is EventKind.PROGRESS}
    assert steps == {(rank, step) for rank in (0, 1) for step in (1, 2)}
