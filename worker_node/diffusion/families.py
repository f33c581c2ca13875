"""Families of pipelines: what differs between SDXL and Flux, behind one face.

A family encodes prompts, says which arguments its pipeline takes, and turns its latents into a (B, C, h, w) grid.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor


@dataclass(frozen=True)
class Defaults:
    """How a model is used where a request does not say. ``side`` in pixels."""

    side: int
    num_inference_steps: int
    guidance_scale: float


class Family:
    """A loaded pipeline. ``folder`` is where it came from, None for a hub id."""

    gpu_dtype: ClassVar[torch.dtype]

    def __init__(self, pipeline: Any, folder: Path | None) -> None:
        self.pipeline = pipeline
        self.vae = pipeline.vae
        self.device = cast("torch.device", pipeline.device)
        self.downscale = int(pipeline.vae_scale_factor)
        own = (
            json.loads((folder / "defaults.json").read_text())
            if folder and (folder / "defaults.json").is_file()
            else {}
        )
        side = int(self.vae.config.sample_size)
        self.defaults = Defaults(**({"side": side, **self.usual_sampling()} | own))
        preview = folder / "preview.json" if folder else None
        self.preview_map: dict[str, Any] | None = (
            json.loads(preview.read_text()) if preview is not None and preview.is_file() else None
        )

    def usual_sampling(self) -> dict[str, Any]:
        """Steps and guidance that suit the family."""
        raise NotImplementedError

    def encode(self, prompt: str, negative_prompt: str, guidance_scale: float) -> dict[str, Any]:
        """The pipeline's arguments for one picture of this prompt."""
        raise NotImplementedError

    def grid(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Latents as the scheduler steps them, as (B, C, h, w)."""
        raise NotImplementedError

    def normalised(self, encoded: Tensor) -> Tensor:
        """What the VAE's encoder gave, as the scheduler steps it."""
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return cast("Tensor", (encoded - shift) * self.vae.config.scaling_factor)


class Sdxl(Family):
    """StableDiffusionXLPipeline."""

    gpu_dtype = torch.float16

    def usual_sampling(self) -> dict[str, Any]:
        """As its card says."""
        return {"num_inference_steps": 30, "guidance_scale": 5.0}

    def encode(self, prompt: str, negative_prompt: str, guidance_scale: float) -> dict[str, Any]:
        """Both encoders, and the negative prompt where guidance uses it."""
        embeds, negative, pooled, negative_pooled = self.pipeline.encode_prompt(
            prompt=prompt,
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=guidance_scale > 1,
            negative_prompt=negative_prompt,
        )
        return {
            "prompt_embeds": embeds,
            "negative_prompt_embeds": negative,
            "pooled_prompt_embeds": pooled,
            "negative_pooled_prompt_embeds": negative_pooled,
            "guidance_scale": guidance_scale,
        }

    def grid(self, latents: Tensor, height: int, width: int) -> Tensor:
        """They are one."""
        del height, width
        return latents


class Flux(Family):
    """FluxPipeline, with distilled guidance (dev), without any (schnell), or with true guidance (shapes-128)."""

    gpu_dtype = torch.bfloat16

    def usual_sampling(self) -> dict[str, Any]:
        """A model that takes guidance as an input was distilled from one; one that does not needs few steps."""
        if self.pipeline.transformer.config.guidance_embeds:
            return {"num_inference_steps": 28, "guidance_scale": 3.5}
        return {"num_inference_steps": 4, "guidance_scale": 1.0}

    def encode(self, prompt: str, negative_prompt: str, guidance_scale: float) -> dict[str, Any]:
        """Both encoders; a negative prompt, or a model without distilled guidance, is guided by a second pass."""
        embeds, pooled = self._embed(prompt)
        is_distilled = bool(self.pipeline.transformer.config.guidance_embeds)
        arguments: dict[str, Any] = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
        if guidance_scale <= 1 or (is_distilled and not negative_prompt):
            return arguments | {"guidance_scale": guidance_scale}
        negative, negative_pooled = self._embed(negative_prompt)
        return arguments | {
            "negative_prompt_embeds": negative,
            "negative_pooled_prompt_embeds": negative_pooled,
            "true_cfg_scale": guidance_scale,
            "guidance_scale": 1.0,
        }

    def grid(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Tokens of 2x2 latents, laid out again."""
        return cast("Tensor", self.pipeline._unpack_latents(latents, height, width, self.downscale))  # noqa: SLF001 - diffusers' only spelling of it

    def _embed(self, prompt: str) -> tuple[Tensor, Tensor]:
        longest = min(512, int(self.pipeline.tokenizer_2.model_max_length))
        embeds, pooled, _ = self.pipeline.encode_prompt(
            prompt=prompt, prompt_2=None, device=self.device, num_images_per_prompt=1, max_sequence_length=longest
        )
        return embeds, pooled


FAMILIES: dict[str, type[Family]] = {"StableDiffusionXLPipeline": Sdxl, "FluxPipeline": Flux}
