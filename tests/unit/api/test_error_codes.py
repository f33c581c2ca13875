"""docs/errors.md has every code, in the part where it belongs and with its HTTP status, and no other."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import api
import stoker.client
from api.fal import errors as fal_errors
from stoker.errors import ConfigurationError, ExecutionError, StokerError
from worker_node.distributed.errors import RunnerError

ROOT = Path(__file__).parents[3]
REQUEST, JOB, NODE, RUNNER, CLIENT, PROCESS = (
    "What a request can be answered with",
    "What a job can fail with",
    "What a node says of itself",
    "What the runner raises",
    "What the client and the command line add",
    "What a process can refuse to start with",
)

for package in (api, stoker.client):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def parts() -> Iterator[tuple[str, dict[str, str]]]:
    """Each part of the page, and the rows of its table by their codes."""
    for part in (ROOT / "docs/errors.md").read_text().split("\n## ")[1:]:
        yield part.partition("\n")[0], {row[1]: row[0] for row in re.finditer(r"^\| `(\w+)` \|.*$", part, re.MULTILINE)}


def tree(kind: type[StokerError]) -> Iterator[type[StokerError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


def part_of(kind: type[StokerError]) -> str:
    if kind.__module__ == "stoker.client.problems":
        return CLIENT
    if issubclass(kind, ConfigurationError):
        return PROCESS
    return JOB if issubclass(kind, ExecutionError) else REQUEST


def codes_of_source(*packages: str) -> set[str]:
    """What stands as the ``code`` of a class, in modules that nothing here imports, too."""
    found = set()
    for package in packages:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    found |= {code for statement in node.body for code in _code_in(statement)}
    return found


def _code_in(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        names, values = [statement.target], [statement.value]
    elif isinstance(statement, ast.Assign):
        target, value = statement.targets[0], statement.value
        several = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        names, values = (target.elts, value.elts) if several else ([target], [value])
    else:
        return
    for name, value in zip(names, values, strict=True):
        if isinstance(name, ast.Name) and name.id == "code" and isinstance(value, ast.Constant):
            yield str(value.value)


PARTS = dict(parts())
ERRORS = [kind for kind in tree(StokerError) if kind.__module__.partition(".")[0] in ("stoker", "api")]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_code_is_documented_with_its_status(kind: type[StokerError]) -> None:
    row = PARTS[part_of(kind)][kind.code]
    if part_of(kind) == REQUEST:
        assert f"| {kind.status} |" in row


@pytest.mark.parametrize("part", [REQUEST, JOB, CLIENT, PROCESS])
def test_no_code_is_documented_where_it_does_not_exist(part: str) -> None:
    assert set(PARTS[part]) == {kind.code for kind in ERRORS if part_of(kind) == part}


def test_the_runners_own_codes_stand_in_their_part_with_what_they_become_of_a_job() -> None:
    assert set(PARTS[RUNNER]) == codes_of_source("worker_node/distributed")
    assert {code for row in PARTS[RUNNER].values() for code in re.findall(r"`(\w+)`", row.split("|")[3])} <= set(
        PARTS[JOB]
    )
    assert RunnerError.code in PARTS[RUNNER]


def test_the_codes_that_a_node_adds_stand_in_their_part() -> None:
    own = codes_of_source("worker_node") - codes_of_source("worker_node/distributed")

    assert set(PARTS[NODE]) == own - {kind.code for kind in ERRORS}


def test_no_class_anywhere_has_a_code_that_stands_nowhere() -> None:
    assert codes_of_source("stoker", "api", "worker_node") == {code for rows in PARTS.values() for code in rows}


def test_every_code_has_a_title_and_a_hint() -> None:
    assert [kind.__name__ for kind in ERRORS if not (kind.title and kind.hint)] == []


def test_what_fals_clients_are_told_of_a_job_begins_with_a_code_of_a_job() -> None:
    assert set(fal_errors.ENDS) <= set(PARTS[JOB])
