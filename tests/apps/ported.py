"""An app as fal's tutorial for several GPUs has it, on a tiny SDXL: only its imports name others."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from PIL import Image as Pil
from pydantic import BaseModel, Field

from stoker.compat import fal
from stoker.compat.fal import Response, StreamingResponse
from stoker.compat.fal.toolkit import File, Image
from worker_node.distributed import DistributedRunner, DistributedWorker

SIDE = 64


class SdxlWorker(DistributedWorker):
    """Each rank paints a picture of its own; rank 0 puts them beside each other, and a preview at every step."""

    def setup(self) -> None:
        from tests.support.tiny_pipelines import make_sdxl  # in place of from_pretrained, which needs weights

        self.pipe = make_sdxl().to(self.device)
        self.pipe.set_progress_bar_config(disable=True)
        torch.manual_seed(self.rank)

    def gathered(self, pictures: torch.Tensor) -> Pil.Image | None:
        mine = pictures.float().clamp(0, 1).contiguous()
        all_ = [torch.zeros_like(mine) for _ in range(self.world_size)] if self.rank == 0 else None
        dist.gather(mine, all_)
        if all_ is None:
            return None
        return Pil.fromarray((torch.cat(all_, dim=-1)[0].permute(1, 2, 0) * 255).round().byte().numpy())

    def __call__(self, streaming: bool = False, prompt: str = "", num_inference_steps: int = 2) -> dict[str, Any]:
        if prompt == "fail":
            raise ValueError("no such style")
        self.rank_print(f"painting {prompt}")

        def preview(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            decoded = pipe.vae.decode(tensors["latents"] / pipe.vae.config.scaling_factor).sample
            grid = self.gathered(decoded / 2 + 0.5)
            if grid is not None:
                self.add_streaming_result({"image": grid, "step": step}, as_text_event=True)
            dist.barrier()
            return tensors

        painted = self.pipe(
            prompt,
            num_inference_steps=num_inference_steps,
            height=SIDE,
            width=SIDE,
            output_type="pt",
            callback_on_step_end=preview if streaming else None,
        ).images
        grid = self.gathered(painted)
        return {} if grid is None else {"image": grid}


class Request(BaseModel):
    prompt: str = Field(description="What to paint.")
    num_inference_steps: int = Field(default=2, ge=1, le=10)


class Answer(BaseModel):
    image: File


class ParallelSdxl(fal.App):
    machine_type = "GPU-H100"
    num_gpus = 2
    requirements = ["torch"]
    keep_alive = 300
    min_concurrency = 0
    max_concurrency = 2

    async def setup(self) -> None:
        self.runner = DistributedRunner(SdxlWorker, world_size=self.num_gpus)
        await self.runner.start()
        warm = await self.runner.invoke({"prompt": "a cat wearing a hat"})
        assert "image" in warm

    @fal.endpoint("/")
    async def generate(self, request: Request, response: Response) -> Answer:
        result = await self.runner.invoke(request.model_dump())
        response.headers["x-fal-billable-units"] = "1"
        return Answer(image=Image.from_pil(result["image"], format="png"))

    @fal.endpoint("/stream")
    async def stream(self, request: Request, response: Response) -> StreamingResponse:
        events = self.runner.stream(request.model_dump(), as_text_events=True)
        return StreamingResponse(events, media_type="text/event-stream")
