"""Warm runners that all tests of the defects share."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.distributed.conftest import ENV, LogBook
from worker_node.distributed import DistributedRunner

BENCH = "tests.distributed.defects.workers:Bench"
MAX_WAITING = 4


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the runners put their files, if any."""
    folder = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture(scope="package")
async def single(anyio_backend: str, folder: Path) -> AsyncIterator[DistributedRunner]:
    """A warm Bench of one rank."""
    runner = DistributedRunner(BENCH, env=ENV, max_waiting=MAX_WAITING)
    await runner.start(name="single")
    yield runner
    await runner.stop()


@pytest.fixture(scope="package")
def logs() -> LogBook:
    """What the ranks of ``pair`` log."""
    return LogBook()


@pytest.fixture(scope="package")
async def pair(anyio_backend: str, folder: Path, logs: LogBook) -> AsyncIterator[DistributedRunner]:
    """A warm Bench of two ranks, without GPUs."""
    runner = DistributedRunner(BENCH, 2, env=ENV, devices=[], on_log=logs.add, grace_s=0.5, heartbeat_s=0.01)
    await runner.start(name="pair")
    yield runner
    await runner.stop()
