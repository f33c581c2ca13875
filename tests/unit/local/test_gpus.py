"""How many GPUs a local stack counts, with a program of nvidia-smi's name that answers as it does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stoker.local.gpus import count_gpus


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\necho 'GPU 1: NVIDIA H200 (UUID: GPU-2)'\n")
    program.chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


@pytest.mark.parametrize(("visible", "count"), [(None, 2), ("1", 1), ("", 0), ("0,1,2", 2), ("GPU-2", 1)])
def test_gpus_are_counted_as_far_as_they_are_visible(environ: dict[str, str], visible: str | None, count: int) -> None:
    named = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}

    assert count_gpus(environ | named) == count


def test_a_machine_without_a_driver_has_none(tmp_path: Path) -> None:
    assert count_gpus({"PATH": str(tmp_path)}) == 0
