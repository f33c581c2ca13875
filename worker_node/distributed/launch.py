"""Launch: all that a rank needs to know before its first call."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker_node.distributed.media import Frame


@dataclass(frozen=True, slots=True)
class Launch:
    """How the ranks of a runner are made; the same for every rebuild."""

    worker: str
    world_size: int
    setup: Sequence[Frame]
    master_addr: str
    master_port: int | None
    group_timeout_s: float
    devices: Sequence[int | str] | None
    cwd: str | None
    env: Mapping[str, str]

    def fields(self) -> dict[str, Any]:
        """Return what a rank is told, beside the arguments of ``setup``: where this process looks for modules, too."""
        here = [str(Path(entry).absolute()) for entry in sys.path]
        return {
            "worker": self.worker,
            "world_size": self.world_size,
            "master_addr": self.master_addr,
            "master_port": self.master_port,
            "timeout_s": self.group_timeout_s,
            "sys_path": [*here, self.cwd] if self.cwd else here,
            "pythonpath": self.env.get("PYTHONPATH", os.environ.get("PYTHONPATH")),
        }
