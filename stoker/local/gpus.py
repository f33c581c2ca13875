"""How many GPUs a local stack may use, without importing torch. ``stoker.local.stack`` asks."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping


def count_gpus(environ: Mapping[str, str]) -> int:
    """The GPUs that nvidia-smi lists, at most those that CUDA_VISIBLE_DEVICES leaves; 0 where there is no driver."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], env=dict(environ), capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    found = sum(line.startswith("GPU ") for line in listed.splitlines())
    named = environ.get("CUDA_VISIBLE_DEVICES")
    return found if named is None else min(found, sum(bool(name.strip()) for name in named.split(",")))
