"""docs/errors.md names every code, with its HTTP status."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import api
import stoker.client
from stoker.errors import ConfigurationError, ExecutionError, StokerError

DOCUMENT = (Path(__file__).parents[3] / "docs" / "errors.md").read_text()
ROWS = {row[1]: row[0] for row in re.finditer(r"^\| `(\w+)` \|.*$", DOCUMENT, re.MULTILINE)}

for package in (api, stoker.client):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def tree(kind: type[StokerError]) -> Iterator[type[StokerError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


ERRORS = [kind for kind in tree(StokerError) if kind.__module__.partition(".")[0] in ("stoker", "api")]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_code_is_documented_with_its_status(kind: type[StokerError]) -> None:
    assert kind.code in ROWS
    if not issubclass(kind, ConfigurationError | ExecutionError) and kind.__module__ != "stoker.client.problems":
        assert f"| {kind.status} |" in ROWS[kind.code]


def test_no_code_is_documented_that_does_not_exist() -> None:
    assert set(ROWS) == {kind.code for kind in ERRORS}
