"""An app as fal's tutorial for several GPUs has it: only its imports name others. The model is arithmetic."""

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


class PicturesWorker(DistributedWorker):
    """Each rank paints a square of its own; rank 0 puts them beside each other."""

    def setup(self, side: int = 16) -> None:
        self.side = side

    def paint(self, light: int) -> Any:
        mine = torch.full((self.side, self.side, 3), light + self.rank, dtype=torch.uint8)
        all_ = [torch.zeros_like(mine) for _ in range(self.world_size)] if self.rank == 0 else None
        dist.gather(mine, all_)
        return Pil.fromarray(torch.cat(all_, dim=1).numpy()) if all_ else None

    def __call__(self, streaming: bool = False, prompt: str = "", num_inference_steps: int = 2) -> dict[str, Any]:
        if prompt == "fail":
            raise ValueError("no such style")
        for step in range(num_inference_steps):
            grid = self.paint(step)
            if streaming and grid is not None:
                self.add_streaming_result({"image": grid, "step": step}, as_text_event=True)
            dist.barrier()
        grid = self.paint(100)
        return {} if grid is None else {"image": grid}


class Request(BaseModel):
    prompt: str = Field(description="What to paint.")
    num_inference_steps: int = Field(default=2, ge=1, le=10)


class Answer(BaseModel):
    image: File


class PortedPictures(fal.App):
    machine_type = "GPU-H100"
    num_gpus = 2
    requirements = ["torch"]
    keep_alive = 300
    min_concurrency = 0
    max_concurrency = 2

    async def setup(self) -> None:
        self.runner = DistributedRunner(PicturesWorker, world_size=self.num_gpus)
        await self.runner.start(side=8)
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
