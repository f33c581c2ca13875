"""A text-to-image worker one rank of which fails where the prompt says so. Imported by ranks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from worker_node.diffusion.collectives import Lockstep
from worker_node.diffusion.text_to_image import Sampling, TextToImageWorker


class Stumbling(TextToImageWorker):
    def _draw(self, sampling: Sampling, lockstep: Lockstep, **options: Any) -> Tensor:
        if sampling.prompt == "stumble" and self.rank == self.world_size - 1:
            raise MemoryError("this rank is out of memory")
        return super()._draw(sampling, lockstep, **options)
