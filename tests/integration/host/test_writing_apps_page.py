"""The app on the page about writing apps does what the page says."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
from PIL import Image

from stoker.errors import InvalidInput
from stoker.events import EventKind
from stoker.validation import validate
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
    schema = app.host.manifest.endpoints[0].input_schema
    with pytest.raises(InvalidInput) as refused:  # as the API does with what the node has published
        validate(schema, {"prompt": "x" * 2001, "steps": 101})
    assert [(entry["loc"], entry["type"]) for entry in refused.value.errors] == [
        (["prompt"], "string_too_long"),
        (["steps"], "less_than_equal"),
    ]
    steps = {(event.data["rank"], event.data["step"]) for event in app.events if event.kind is EventKind.PROGRESS}
    assert steps == {(rank, step) for rank in (0, 1) for step in (1, 2)}


async def test_the_guard_of_the_page_refuses_a_picture_of_too_many_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [guard] = [
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "MAX_IMAGE" in block
    ]
    picture = tmp_path / "large.png"
    Image.new("1", (8000, 8000)).save(picture)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)

    with warnings.catch_warnings():
        exec(guard, {})

        with pytest.raises(Image.DecompressionBombWarning):
            Image.open(picture)
