"""One app that cannot be served keeps no other from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.patience import waiting_for
from worker_node import opening
from worker_node.engines import Engines
from worker_node.host import AppSpec
from worker_node.opening import open_apps

pytestmark = pytest.mark.anyio

PLAIN = """
from pydantic import BaseModel
from stoker import App, endpoint

class Nothing(BaseModel):
    pass

class Served(App):
    name = "tests/{name}"

    @endpoint("/")
    async def serve(self, request: Nothing) -> Nothing:
        {doc!r}
        return request
"""
APPS: Mapping[str, str] = {
    "well": PLAIN.format(name="well", doc="Fine."),
    "hangs": "import signal\nsignal.pause()",
    "unpublishable": PLAIN.format(name="unpublishable", doc="A text that no row may hold: \0"),
}


@pytest.mark.parametrize(
    ("other", "says"), [("hangs", "not imported within"), ("unpublishable", "could not be published")]
)
async def test_an_app_is_served_whatever_becomes_of_another(
    engines_of_a_node: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str, says: str
) -> None:
    if other == "hangs":
        monkeypatch.setattr(opening, "LATE_S", 0.1)
    specs = []
    for name in (other, "well"):
        (tmp_path / f"{name}.py").write_text(APPS[name])
        specs.append(AppSpec(f"{tmp_path}/{name}.py:Served", None, tmp_path / f"spool-{name}", os.environ))

    async with waiting_for("an app beside one that is no good", 30):
        opened = await open_apps(engines_of_a_node.db, specs, slots=None, are_gpus=False, on_change=lambda: None)
    try:
        assert [version.app for _, version in opened.served] == ["tests/well"]
        [refusal] = opened.refused
        assert says in refusal
    finally:
        for host, _ in opened.served:
            await host.stop(2)
