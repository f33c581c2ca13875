"""The environment of a rank's process: what torchrun would set, the chosen GPUs, and how the rank finds its parent.

Pure: the caller brings its own environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

LINK = "RUNNER_LINK"
"""Carries address, token, flag descriptor and parent to the rank, which removes it before user code runs."""

_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])


def rank_environment(
    base: Mapping[str, str],
    extra: Mapping[str, str],
    *,
    rank: int,
    world_size: int,
    devices: Sequence[int | str] | None,
    link: str,
) -> dict[str, str]:
    """Build the environment of one rank.

    All ranks see all of the runner's GPUs, in the given order, so that rank i works on ``cuda:i`` as workers expect.
    """
    env = {**base, **extra, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    env["LOCAL_WORLD_SIZE"] = str(world_size)
    if devices is not None:
        env["CUDA_VISIBLE_DEVICES"] = visible_devices(devices, base.get("CUDA_VISIBLE_DEVICES"))
    # All ranks share this host. Gloo else asks the resolver for the host's name, which containers often cannot answer.
    env.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # Only for the interpreter's start: the rank takes over the parent's sys.path and puts PYTHONPATH back.
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [_PACKAGE_ROOT, env.get("PYTHONPATH")]))
    env[LINK] = link
    return env


def visible_devices(devices: Sequence[int | str], visible: str | None) -> str:
    """Name the chosen GPUs for CUDA: an index counts what this process may see, a string is CUDA's own name."""
    if visible is None:
        return ",".join(str(device) for device in devices)
    seen = [name.strip() for name in visible.split(",") if name.strip()]
    return ",".join(seen[device] if isinstance(device, int) else device for device in devices)
