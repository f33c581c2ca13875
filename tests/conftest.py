"""What all tests may use: one set of real engines for the session, and asyncio as the only event loop."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from stoker.local import place
from stoker.local.engines import Engines, start_engines

collect_ignore = [] if Path("/dev/nvidia0").exists() else ["gpu"]  # nothing to skip where nothing can run
TESTS = Path(__file__).parent
SCRATCH = TESTS.parent / ".stoker" / "tests"
LONGEST_FIRST = ("e2e", "chaos", "soak", "protocol", "distributed", "integration")
"""Folders whose files take longest. Begun last, one of them would keep a process at work while the others are done."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def own_environ() -> dict[str, str]:
    """This process's environment without what would lead a test to a developer's own engines."""
    foreign = ("DATABASE_URL", "REDIS_URL", "S3_", "STOKER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign) or name.endswith("_BIN")}


@pytest.fixture(scope="session")
def engines(own_environ: dict[str, str]) -> Iterator[Engines]:
    """PostgreSQL, Valkey and SeaweedFS, shared by the whole session: take a fresh database and keys of your own."""
    data_dir = scratch_folder("engines")
    with start_engines(data_dir, durable=False, environ=own_environ) as running:
        yield running
    place.discard(data_dir)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data folder for a test that runs engines of its own; pytest's ``tmp_path`` is closed to the user ``nobody``."""
    folder = scratch_folder("own")
    yield folder
    place.discard(folder)


def scratch_folder(name: str) -> Path:
    """A new folder of this process; those that killed test runs left are removed."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    for folder in SCRATCH.iterdir():
        owner = int(folder.name.split("-")[1])
        if not Path(f"/proc/{owner}").exists() and place.holder(folder) is None:
            with suppress(OSError):  # another session may be removing it too
                place.discard(folder)
    folder = SCRATCH / f"{name}-{os.getpid()}-{next(_numbers)}"
    folder.mkdir()
    return folder


_numbers = iter(range(1_000_000))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def turn(item: pytest.Item) -> int:
        folder = item.path.relative_to(TESTS).parts[0]
        return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=turn)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tests of text that is no text leave it in what pytest captured, and xdist cannot send that."""
    report = yield
    report.sections = [(name, text.encode(errors="replace").decode()) for name, text in report.sections]
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a test that was skipped is one that nobody ran: the session fails."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter and reporter.stats.get("skipped"):
        reporter.write_line("CI=true: a skipped test counts as a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
