"""Runs where there are GPUs, without the engines of the other tests: ``pytest --confcutdir tests/gpu tests/gpu``."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def world_size() -> int:
    """All GPUs of the machine."""
    return torch.cuda.device_count()
