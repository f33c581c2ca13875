"""TextToImage: the app ``stoker/text-to-image``. Text to pictures, spread over the ranks.

Serves the model that comes with Stoker, or the diffusers folder or hub id of the SDXL or Flux family that
STOKER_TEXT_TO_IMAGE_MODEL names. The work is ``worker_node.diffusion.text_to_image``'s.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Literal

from pydantic import BaseModel, Field

from stoker import App, Image, endpoint
from worker_node.diffusion.grid import make_grid
from worker_node.models.shapes128 import WEIGHTS_DIR

MAX_SEED = 2**53 - 1
"""What JavaScript still tells from its neighbours."""


class TextToImageRequest(BaseModel, extra="forbid"):
    """What to draw."""

    prompt: str = Field(min_length=1, max_length=2000, description="What the pictures show.", examples=["a red circle"])
    negative_prompt: str = Field(default="", max_length=2000, description="What they should not show.")
    num_images: int = Field(default=1, ge=1, le=8, description="How many. Picture i is drawn from seed + i.")
    seed: int | None = Field(
        default=None, ge=0, le=MAX_SEED, description="The same seed draws the same pictures. Left out: a random one."
    )
    width: int | None = Field(
        default=None, ge=16, le=2048, multiple_of=16, description="Pixels. Left out: what the model draws best."
    )
    height: int | None = Field(
        default=None, ge=16, le=2048, multiple_of=16, description="Pixels. Left out: what the model draws best."
    )
    num_inference_steps: int | None = Field(default=None, ge=1, le=100, description="Left out: what suits the model.")
    guidance_scale: float | None = Field(
        default=None, ge=0, le=20, description="How closely to follow the prompt. Left out: what suits the model."
    )
    output_format: Literal["png", "jpeg", "webp"] = Field(default="png", description="How pictures are written.")


class Picture(Image):
    """A picture and the seed that draws it again."""

    seed: int


class Pictures(BaseModel):
    """What was drawn."""

    images: list[Picture]
    grid: Image | None = Field(default=None, description="All pictures in one, where there are several.")
    prompt: str
    seed: int
    timings: dict[str, float] = Field(description="Seconds.")


class TextToImage(App):
    """Draws pictures of a prompt, each on one rank."""

    name = "stoker/text-to-image"
    title = "Text to image"
    worker, num_gpus = "worker_node.diffusion.text_to_image:TextToImageWorker", 1
    setup_args = {"model": str(WEIGHTS_DIR), "max_batch": 4, "threads": 1}

    @endpoint("/", run_timeout=600, stall_timeout=300)
    async def draw(self, request: TextToImageRequest) -> Pictures:
        """Draw pictures of a prompt."""
        seed = secrets.randbelow(2**32) if request.seed is None else request.seed
        drawn = await self.run(request, seed=seed)
        return await asyncio.to_thread(_pictures, drawn, request, seed)


def _pictures(drawn: dict[str, Any], request: TextToImageRequest, seed: int) -> Pictures:
    content_type = f"image/{request.output_format}"
    images = [
        Picture.of(image, content_type=content_type, seed=own_seed)
        for image, own_seed in zip(drawn["images"], drawn["seeds"], strict=True)
    ]
    grid = None
    if len(images) > 1:
        sources: list[Any] = [image.source for image in images]
        grid = Image.from_picture(make_grid(sources), content_type=content_type)
    return Pictures(images=images, grid=grid, prompt=request.prompt, seed=seed, timings=drawn["timings"])
