"""The training split as arrays: scenes laid out and put into words, by several processes, the same for the same seed.

Also pictures of nothing in particular, so that the VAE can hold what the grammar cannot say. ``train`` calls it.
"""

import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker_node.models.shapes128.grammar import SHAPES, draw_scene, loosen, write_prompt
from worker_node.models.shapes128.layout import CANVAS, THING_COLUMNS, lay_out

CHUNK = 5000
SHARE_OF_PAIRS = 0.7
"""Two things are the harder half: most of the training shows two."""

Rows = tuple[NDArray[np.float32], NDArray[np.float32], list[str]]
Tokenize = Callable[[list[str]], Tensor]


@dataclass(frozen=True)
class Bank:
    """Rows for ``render`` and the two encoders' token ids, on one device."""

    things: Tensor
    grounds: Tensor
    t5_ids: Tensor
    clip_ids: Tensor


def build_bank(size: int, seed: int, tokenizers: tuple[Tokenize, Tokenize], device: torch.device) -> Bank:
    """Draw ``size`` scenes (rounded up to whole chunks) of the training split."""
    with ProcessPoolExecutor() as pool:
        chunks = list(pool.map(partial(draw_chunk, seed), range(math.ceil(size / CHUNK))))
    prompts = [prompt for chunk in chunks for prompt in chunk[2]]
    ids = [
        torch.cat([tokenize(prompts[i : i + CHUNK]) for i in range(0, len(prompts), CHUNK)]) for tokenize in tokenizers
    ]
    things, grounds = (torch.from_numpy(np.concatenate([chunk[i] for chunk in chunks])) for i in (0, 1))
    return Bank(things.to(device), grounds.to(device), ids[0].to(device), ids[1].to(device))


def draw_chunk(seed: int, index: int) -> Rows:
    """Lay out and describe ``CHUNK`` scenes of the training split."""
    rng = np.random.default_rng([seed, index])
    things, grounds, prompts = [], [], []
    for _ in range(CHUNK):
        scene = draw_scene(rng, 2 if rng.random() < SHARE_OF_PAIRS else 1, held_out=False)
        rows, ground = lay_out(scene, rng)
        things.append(rows)
        grounds.append(ground)
        prompts.append(loosen(write_prompt(scene, rng), scene, rng))
    return np.stack(things), np.stack(grounds), prompts


def wild_rows(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows of up to five turned, overlapping things in any colours over a gradient."""

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=generator.device)

    things = torch.zeros(count, 5, THING_COLUMNS, device=generator.device)
    things[..., :2] = draw(count, 5, 2) * CANVAS
    things[..., 2] = 4 + 36 * draw(count, 5) ** 2
    things[..., 3] = (draw(count, 5) * len(SHAPES)).floor()
    things[..., 4] = draw(count, 5) * 2 * math.pi
    things[..., 5:8] = draw(count, 5, 3)
    things[..., 8] = (draw(count, 5) < 0.7).float()
    return things, draw(count, 2, 3)
