"""The GPUs of this machine, as nvidia-smi lists them. No torch: the supervisor stays light."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import asdict, dataclass

TIMEOUT_S = 20
MEMORY_TIMEOUT_S = 5
"""A driver that hangs must not hide the other metrics for as long as a scraper waits."""


@dataclass(frozen=True)
class Gpu:
    """One device. ``index`` is its number on the machine, None of a part of a GPU (MIG)."""

    index: int | None
    name: str
    memory_bytes: int
    uuid: str = ""

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def list_gpus() -> list[Gpu]:
    """The devices that this node may use; none where there is no driver. CUDA_VISIBLE_DEVICES narrows them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return visible([_read(line) for line in answer.stdout.splitlines() if line.strip()], os.environ)


def memory_used() -> dict[str, int]:
    """Bytes in use on each device, by uuid; empty where nobody can say. Waits for another program."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    query = [program, "--query-gpu=uuid,memory.used", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=MEMORY_TIMEOUT_S, check=True)
        lines = (line.split(",") for line in answer.stdout.splitlines() if line.strip())
        return {uuid.strip(): int(mebibytes) * 1024 * 1024 for uuid, mebibytes in lines}
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}


def visible(gpus: list[Gpu], environ: os._Environ[str] | dict[str, str]) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves, in its order, as CUDA reads it: up to the first name that is none."""
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return gpus
    found = []
    for name in (part.strip() for part in listed.split(",")):
        gpu = _named(name, gpus)
        if gpu is None:
            break
        found.append(gpu)
    return found


def _named(name: str, gpus: list[Gpu]) -> Gpu | None:
    if name.startswith("MIG-") and gpus:
        return Gpu(None, name, 0, name)  # nvidia-smi's list has whole GPUs alone
    if name.isdecimal():
        return next((gpu for gpu in gpus if gpu.index == int(name)), None)
    return next((gpu for gpu in gpus if name.startswith("GPU-") and gpu.uuid.startswith(name)), None)


def _read(line: str) -> Gpu:
    index, uuid, name, mebibytes = (part.strip() for part in line.split(","))
    return Gpu(int(index), name, int(mebibytes) * 1024 * 1024, uuid)
