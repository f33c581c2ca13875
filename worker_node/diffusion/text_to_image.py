"""TextToImageWorker: text to pictures on one rank of many, data parallel.

Each rank makes its own images from its own seeds, so a request gives the same pictures whatever the number of ranks:
bit for bit on CPUs, where one image at a time goes through the networks. ``worker_node.apps.text_to_image`` is the app.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker_node.diffusion import collectives, shares
from worker_node.diffusion.quiet import quiet
from worker_node.distributed import CallCancelled, DistributedWorker

PREVIEWS_AN_IMAGE = 5


@dataclass(frozen=True)
class Sampling:
    """What a request asks for, with the model's own defaults filled in."""

    prompt: str
    negative_prompt: str
    num_images: int
    seed: int
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float


class TextToImageWorker(DistributedWorker):
    """Keeps a pipeline of the SDXL or Flux family warm."""

    def setup(self, model: str, max_batch: int = 4, threads: int = 1) -> None:
        """Load ``model``. ``threads`` is for CPUs: the same on every rank, as sums depend on how they are split."""
        quiet()
        from worker_node.diffusion.loading import load_family
        from worker_node.diffusion.previews import LatentPreview

        on_cpu = self.device.type == "cpu"
        if on_cpu:
            torch.set_num_threads(threads)
        self.largest_batch = 1 if on_cpu else max_batch
        self.family = load_family(model, self.device)
        self.preview = LatentPreview(self.family)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str,
        seed: int,
        negative_prompt: str = "",
        num_images: int = 1,
        width: int | None = None,
        height: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        streaming: bool = False,
        **_others: Any,
    ) -> dict[str, Any] | None:
        """Make ``num_images`` pictures; rank 0 returns all of them, as uint8 arrays."""
        began = time.monotonic()
        defaults = self.family.defaults
        sampling = Sampling(
            prompt=prompt,
            negative_prompt=negative_prompt,
            num_images=num_images,
            seed=seed,
            width=width or defaults.side,
            height=height or defaults.side,
            num_inference_steps=num_inference_steps or defaults.num_inference_steps,
            guidance_scale=defaults.guidance_scale if guidance_scale is None else guidance_scale,
        )
        self._check(sampling)
        most = shares.most_batches(self.world_size, num_images, self.largest_batch)
        lockstep = collectives.Lockstep(self, most * sampling.num_inference_steps + 1)
        try:
            mine = self._draw(sampling, lockstep, streaming=streaming)
            lockstep.finish()
        except CallCancelled:
            raise
        except collectives.PeerFailedError:
            return None
        except Exception:
            lockstep.fail()
            raise
        pictures = collectives.gather_pictures(mine, self, num_images)
        if pictures is None:
            return None
        return {
            "images": list(pictures.numpy()),
            "seeds": [seed + image for image in range(num_images)],
            "width": sampling.width,
            "height": sampling.height,
            "num_inference_steps": sampling.num_inference_steps,
            "guidance_scale": sampling.guidance_scale,
            "timings": {"inference": round(time.monotonic() - began, 4)},
        }

    def _check(self, sampling: Sampling) -> None:
        """The same answer on every rank, so that all stop here or none."""
        side, largest = self.family.defaults.side, 2 * self.family.defaults.side
        for name, pixels in (("width", sampling.width), ("height", sampling.height)):
            if pixels > largest:
                raise ValueError(f"{name} is {pixels}: this model draws {side} pixels a side, and at most {largest}")
            if pixels % (2 * self.family.downscale):
                raise ValueError(f"{name} is {pixels}: it must be a multiple of {2 * self.family.downscale}")

    def _draw(self, sampling: Sampling, lockstep: collectives.Lockstep, *, streaming: bool) -> Tensor:
        """The pictures of this rank's share, uint8 (n, H, W, 3) on the CPU."""
        batches = shares.batches_of(self.rank, self.world_size, sampling.num_images, self.largest_batch)
        drawn = [torch.zeros((0, sampling.height, sampling.width, 3), dtype=torch.uint8)]
        if not batches:
            return drawn[0]
        arguments = self.family.encode(sampling.prompt, sampling.negative_prompt, sampling.guidance_scale)
        progress = _Progress(self, sampling, len(batches), streaming=streaming)
        for number, images in enumerate(batches):
            decoded = self.family.pipeline(
                **{name: _repeated(value, len(images)) for name, value in arguments.items()},
                width=sampling.width,
                height=sampling.height,
                num_inference_steps=sampling.num_inference_steps,
                generator=shares.generators(sampling.seed, images),
                callback_on_step_end=progress.following(number, images, lockstep),
                output_type="pt",
            ).images
            drawn.append(decoded.float().mul(255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu())
        return torch.cat(drawn).contiguous()


class _Progress:
    """What a rank streams while it draws: step, total and time left at each step, and a preview every few."""

    def __init__(self, worker: TextToImageWorker, sampling: Sampling, batches: int, *, streaming: bool) -> None:
        self._worker, self._sampling, self._streaming = worker, sampling, streaming
        self._steps, self._total = sampling.num_inference_steps, sampling.num_inference_steps * batches
        self._every = max(1, sampling.num_inference_steps // PREVIEWS_AN_IMAGE)
        self._began = time.monotonic()

    def following(
        self, batch: int, images: list[int], lockstep: collectives.Lockstep
    ) -> Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]:
        """The callback of one batch's run through the pipeline."""
        from worker_node.diffusion.previews import CleanLatents

        clean = CleanLatents(self._worker.family.pipeline.scheduler)

        def after_step(_pipeline: Any, step: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
            if step < self._steps:  # some schedulers take more steps than were asked for
                lockstep.reach(batch * self._steps + step + 1)
                self._tell(batch * self._steps + step + 1, step, images, clean.after(step, given["latents"]))
            return given

        return after_step

    def _tell(self, done: int, step: int, images: list[int], latents: Tensor) -> None:
        if not self._streaming:
            return
        eta_s = (time.monotonic() - self._began) / done * (self._total - done)
        data: dict[str, Any] = {"step": done, "total": self._total, "eta_s": round(eta_s, 2), "images": images}
        if (step + 1) % self._every == 0 and step > 0:
            grid = self._worker.family.grid(latents, self._sampling.height, self._sampling.width)
            data["preview"] = self._worker.preview.draw(grid[0])
        self._worker.add_progress(data)


def _repeated(value: Any, times: int) -> Any:
    return value.repeat_interleave(times, dim=0) if isinstance(value, Tensor) else value
