"""Shares: which images a rank makes and from which noise, so that neither depends on how many ranks there are.

Image i is made from seed + i alone. Generators live on the CPU, whose random numbers are the same on every device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

LARGEST_SEED = 2**63 - 1


def batches_of(rank: int, world_size: int, num_images: int, largest: int) -> list[list[int]]:
    """The images of ``rank``, dealt in turn, in batches of at most ``largest``."""
    mine = list(range(rank, num_images, world_size))
    return [mine[start : start + largest] for start in range(0, len(mine), largest)]


def most_batches(world_size: int, num_images: int, largest: int) -> int:
    """How many batches the busiest rank has; the same number on every rank."""
    return len(batches_of(0, world_size, num_images, largest))


def generators(seed: int, images: Sequence[int]) -> list[torch.Generator]:
    """A generator for each image."""
    return [torch.Generator("cpu").manual_seed((seed + image) % (LARGEST_SEED + 1)) for image in images]
