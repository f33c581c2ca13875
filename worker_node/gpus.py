"""The GPUs of this machine, as nvidia-smi lists them. No torch: the supervisor stays light."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import asdict, dataclass

TIMEOUT_S = 20


@dataclass(frozen=True)
class Gpu:
    """One device. ``index`` is the number by which CUDA_VISIBLE_DEVICES names it."""

    index: int
    name: str
    memory_bytes: int

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def list_gpus() -> list[Gpu]:
    """The devices that this node may use; none where there is no driver. CUDA_VISIBLE_DEVICES narrows them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return visible([_read(line) for line in answer.stdout.splitlines() if line.strip()], os.environ)


def visible(gpus: list[Gpu], environ: os._Environ[str] | dict[str, str]) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves, if it is set and made of numbers."""
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return gpus
    wanted = {int(part) for part in listed.split(",") if part.strip().isdigit()}
    return [gpu for gpu in gpus if gpu.index in wanted]


def _read(line: str) -> Gpu:
    index, name, mebibytes = (part.strip() for part in line.split(","))
    return Gpu(int(index), name, int(mebibytes) * 1024 * 1024)
