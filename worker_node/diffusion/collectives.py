"""Collectives that ranks use to stay together: agreement, lockstep, and gathering pictures on rank 0.

Their number and order follow from the request alone, never from what one rank knows. Before each data collective all
ranks agree that all of them succeeded, so that an error on one is a clean error and none waits for another in vain.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from worker_node.distributed import DistributedWorker


class PeerFailedError(Exception):
    """Another rank failed; that rank reports why."""


def agree(ok: bool, world_size: int) -> bool:
    """Whether ``ok`` holds on every rank."""
    if world_size == 1:
        return ok
    flag = torch.tensor([int(ok)], dtype=torch.int32)
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag.item())


class Lockstep:
    """Meets the other ranks ``meetings`` times: at each step of the longest share and once at the end.

    A rank with less to do, or one that failed, comes to every meeting all the same.
    """

    def __init__(self, worker: DistributedWorker, meetings: int) -> None:
        self._worker, self._meetings, self._held = worker, meetings, 0

    def reach(self, meeting: int, ok: bool = True) -> None:
        """Meet until ``meeting`` meetings were held; the last one is ``meetings``.

        Raises:
            CallCancelled: on all ranks, at the same meeting.
            PeerFailedError: a rank was not ``ok``.
        """
        while self._held < min(meeting, self._meetings):
            self._held += 1
            self._worker.raise_if_cancelled()
            if not agree(ok, self._worker.world_size):
                raise PeerFailedError

    def finish(self) -> None:
        """Come to all meetings that remain. Raises as ``reach`` does."""
        self.reach(self._meetings)

    def fail(self) -> None:
        """Tell the others at the next meeting that this rank failed.

        Raises:
            CallCancelled: they stop for that reason.
        """
        try:
            self.reach(self._held + 1, ok=False)
        except PeerFailedError:
            return


def gather_pictures(mine: torch.Tensor, worker: DistributedWorker, num_images: int) -> torch.Tensor | None:
    """Bring pictures to rank 0: uint8 of shape (N, H, W, 3) in the order of the images; None on other ranks.

    ``mine`` holds images rank, rank + world_size, ... of this rank, on the CPU.
    """
    world_size = worker.world_size
    if world_size == 1:
        return mine
    most = -(-num_images // world_size)
    padded = torch.zeros((most, *mine.shape[1:]), dtype=torch.uint8)
    padded[: len(mine)] = mine
    if worker.rank != 0:
        dist.gather(padded)
        return None
    parts = [torch.empty_like(padded) for _ in range(world_size)]
    dist.gather(padded, parts)
    return torch.stack(parts, dim=1).flatten(0, 1)[:num_images]
