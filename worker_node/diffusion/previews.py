"""Previews: a small picture of where denoising stands, by a linear map from latents to colours instead of a decoder.

The map comes with the model (``preview.json``) or is fitted at setup on patches of colour sent through its own VAE.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from worker_node.diffusion.families import Family

PATCHES = 32
SIDE = 128
"""Pixels of a preview's longer side, at least: latents are eight times smaller than that."""


class LatentPreview:
    """Turns latents of one family into pictures."""

    def __init__(self, family: Family) -> None:
        self._family = family
        given = family.preview_map
        if given is None:
            self._factors, self._bias = fit(family)
        else:
            self._factors, self._bias = torch.tensor(given["factors"]), torch.tensor(given["bias"])

    def draw(self, grid: Tensor) -> Image.Image:
        """A picture of one (C, h, w) grid of latents."""
        rgb = torch.einsum("chw,cr->hwr", grid.float().cpu(), self._factors) + self._bias
        pixels = rgb.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
        picture = Image.fromarray(pixels)
        larger = max(1, SIDE // max(picture.size))
        return picture.resize((picture.width * larger, picture.height * larger), Image.Resampling.BICUBIC)


class CleanLatents:
    """Guesses from two steps in a row where an Euler sampler is heading: latents without the noise that is left."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._last: tuple[int, Tensor] | None = None

    def after(self, step: int, latents: Tensor) -> Tensor:
        """The guess after ``step`` (from 0); the latents themselves where nothing better is known."""
        last, self._last = self._last, (step, latents)
        sigmas = getattr(self._scheduler, "sigmas", None)
        if last is None or last[0] != step - 1 or sigmas is None or step + 1 >= len(sigmas):
            return latents
        before, now = float(sigmas[step]), float(sigmas[step + 1])
        if before == now:
            return latents
        return latents - (latents - last[1]) * (now / (now - before))


@torch.no_grad()
def fit(family: Family) -> tuple[Tensor, Tensor]:
    """Least squares from latents to colours on ``PATCHES`` x ``PATCHES`` patches: (C, 3) factors and a (3,) bias."""
    generator = torch.Generator("cpu").manual_seed(0)
    coarse = torch.rand((1, 3, PATCHES // 2, PATCHES // 2), generator=generator)
    colours = torch.nn.functional.interpolate(coarse, scale_factor=2, mode="nearest")
    pixels = torch.nn.functional.interpolate(colours, scale_factor=family.downscale, mode="nearest")
    dtype = next(family.vae.parameters()).dtype
    encoded = family.vae.encode((pixels * 2 - 1).to(family.device, dtype)).latent_dist.mode()
    latents = family.normalised(encoded).float().cpu().flatten(2)[0].T
    inputs = torch.cat([latents, torch.ones(len(latents), 1)], dim=1).nan_to_num()
    solution = torch.linalg.lstsq(inputs, colours.flatten(2)[0].T, driver="gelsd").solution
    return solution[:-1], solution[-1]
