"""Runs where there are GPUs, without the engines of the other tests: ``pytest --confcutdir tests/gpu tests/gpu``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import torch

from worker_node.distributed import DistributedRunner


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def world_size() -> int:
    """All GPUs of the machine."""
    return torch.cuda.device_count()


@pytest.fixture(scope="module")
async def runner(anyio_backend: str, world_size: int) -> AsyncIterator[DistributedRunner]:
    """A warm GpuToolbox on every GPU."""
    runner = DistributedRunner("tests.gpu.workers:GpuToolbox", world_size)
    await runner.start()
    yield runner
    await runner.stop()


@pytest.fixture
def many(world_size: int) -> int:
    """The number of GPUs, where there are several."""
    if world_size < 2:
        pytest.skip("needs two GPUs")
    return world_size
