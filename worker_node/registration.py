"""Registration: who this node is, on its machine and in Postgres.

A node keeps its id over restarts and takes a new boot id each time it starts; what its former boot held is given
back at once. A lock on the data folder keeps two processes from being the same node. It runs no job.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from uuid import UUID, uuid4

from stoker.errors import ConfigurationError
from stoker.ids import new_id
from stoker.nodes import NodeInfo
from worker_node.gpus import Gpu

NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Identity:
    """The node, as long as this process lives. ``folder`` is its own part of the data folder."""

    node_id: str
    boot_id: UUID
    folder: Path
    lock: TextIOWrapper

    def clear(self) -> None:
        """Remove the files of jobs that a former boot was killed in the middle of."""
        for left in (self.folder / "inputs", *self.folder.glob("spool/*/calls")):
            shutil.rmtree(left, ignore_errors=True)

    def info(self, *, gpus: Sequence[Gpu], slots: int, versions: Sequence[UUID], lease_s: float) -> NodeInfo:
        """What Postgres is told about this node."""
        return NodeInfo(
            node_id=self.node_id,
            boot_id=self.boot_id,
            hostname=socket.gethostname(),
            slots=slots,
            gpus=[gpu.to_json() for gpu in gpus],
            versions=list(versions),
            pid=os.getpid(),
            version=version("stoker"),
            lease_s=lease_s,
        )


def take_identity(data_dir: Path, wanted: str | None) -> Identity:
    """The node's id (``wanted``, or the one kept in ``data_dir``) and a fresh boot id; nobody else on this disk has it.

    Raises:
        ConfigurationError: the id cannot be used, or another process is this node.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    node_id = wanted or _kept_id(data_dir)
    if not NODE_ID.fullmatch(node_id):
        raise ConfigurationError(
            f"{node_id!r} cannot be a node's id", hint="Use up to 63 letters, digits, dots, dashes and underscores."
        )
    folder = data_dir / "nodes" / node_id
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    lock = (folder / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise ConfigurationError(
            f"another process is node {node_id!r}", hint="Stop it, or give this one its own --node-id."
        ) from error
    return Identity(node_id, new_id(), folder.absolute(), lock)


def _kept_id(data_dir: Path) -> str:
    path = data_dir / "node-id"
    if not path.exists():
        path.write_text(f"{re.sub('[^A-Za-z0-9-]', '-', socket.gethostname())[:40]}-{uuid4().hex[:8]}\n")
    return path.read_text().strip()
