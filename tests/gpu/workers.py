"""What ranks do in the tests on GPUs, beside what the Toolbox can: hold memory, stay away, name their GPU."""

from __future__ import annotations

import threading
from typing import Any

import torch

from tests.distributed.workers import Toolbox

DTYPES = (
    *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "complex64", "complex128"),
)


def patterned(name: str) -> torch.Tensor:
    """A tensor of (3, 4) whose bytes differ, not-a-numbers among them."""
    dtype = getattr(torch, name)
    raw = torch.arange(12 * dtype.itemsize, dtype=torch.uint8)
    return (raw % 2 if dtype is torch.bool else raw * 21).view(dtype).reshape(3, 4)


class GpuToolbox(Toolbox):
    def uuids(self, **_: Any) -> list[str]:
        """The GPU of each rank, as the driver names it."""
        import torch.distributed as dist

        told: list[Any] = [None] * self.world_size
        dist.all_gather_object(told, str(torch.cuda.get_device_properties(self.device).uuid))
        return told

    def tensors(self, **_: Any) -> dict[str, torch.Tensor]:
        """A tensor of each dtype from the GPU, and one that is not contiguous there."""
        made = {name: patterned(name).to(self.device) for name in DTYPES}
        return {**made, "transposed": patterned("float32").to(self.device).T}

    def wait_for_a_rank_that_never_comes(self, hold_bytes: int, **_: Any) -> float:
        """Take memory, say so, and enter a collective on all ranks but the last."""
        self.held = torch.ones(hold_bytes, dtype=torch.uint8, device=self.device)
        torch.cuda.synchronize(self.device)
        self.add_streaming_result("holding")
        if self.rank == self.world_size - 1:
            threading.Event().wait()
        return self.all_reduce()

    def hold(self, gib: int, **_: Any) -> int:
        """Take so much memory and keep it; how many ranks did."""
        self.held = torch.ones(gib * 2**30, dtype=torch.uint8, device=self.device)
        return round(self.all_reduce())
