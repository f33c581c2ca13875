"""The process group of a rank: device and backend, the rendezvous, the vote, and the count of collectives.

The one place that decides between cuda with NCCL and cpu with gloo. Rank 0 brings a socket that listens on a port that
the system chose and the parent tells the others, so two runners on a host cannot meet.
"""

from __future__ import annotations

import logging
import operator
import os
import socket
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

_log = logging.getLogger("worker_node.distributed.rank")

Votes = Callable[[bool], bool]


def device_of(rank: int) -> torch.device:
    """Return the device that a rank works on."""
    return torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")


def join(
    *, rank: int, world_size: int, address: str, port: int, listener: socket.socket | None, timeout_s: float
) -> Votes:
    """Enter the runner's process group and return its vote. ``listener`` is rank 0's and taken over."""
    device = device_of(rank)
    if device.type == "cuda":
        if world_size > torch.cuda.device_count():
            raise ValueError(f"{world_size} ranks need as many GPUs, {torch.cuda.device_count()} are visible")
        torch.cuda.set_device(device)
    else:
        if chosen := os.environ.get("CUDA_VISIBLE_DEVICES"):
            _log.warning("GPUs %s were chosen and none can be used: working on the CPU", chosen)
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // world_size))
    store = _meet(world_size, address, port, listener, timedelta(seconds=timeout_s))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout_s),
        device_id=device if device.type == "cuda" else None,
    )
    if world_size == 1:
        return lambda mine: mine
    # A group of its own: a vote between two collectives that the worker left in flight must not pair with them.
    side = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))

    def vote(mine: bool) -> bool:
        ballot = torch.tensor([int(mine)], dtype=torch.int32)
        dist.all_reduce(ballot, op=dist.ReduceOp.MAX, group=side)
        return bool(ballot.item())

    return vote


def steps() -> dict[str, int]:
    """Count the collectives that this rank has entered, by group.

    Equal counts on all ranks after a failure mean that no collective is half done, so the group can be used again.
    """
    # Torch has no public name for either.
    count = operator.methodcaller("_get_sequence_number_for_group")
    groups = dist.distributed_c10d._world.pg_names  # noqa: SLF001
    return {name: count(group) for group, name in groups.items()}


def _meet(world_size: int, address: str, port: int, listener: socket.socket | None, timeout: timedelta) -> TCPStore:
    store = TCPStore(
        address,
        port,
        world_size,
        is_master=listener is not None,
        timeout=timeout,
        wait_for_workers=False,
        master_listen_fd=listener.detach() if listener is not None else None,
    )
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(port)
    return store
