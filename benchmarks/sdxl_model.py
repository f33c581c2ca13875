"""A pipeline with the architecture of SDXL base 1.0 and random weights, and one rank's share of drawing with it.

Nothing is downloaded: the weights are made on the device from a seed, so that every process has the same, and a
tokenizer of single letters stands for the real one. All variants of ``sdxl`` draw with this, and time nothing else.
"""

from __future__ import annotations

import hashlib
import string
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

_PROMPT = "a lighthouse on a cliff above the sea in the last light of the day"
_WEIGHTS_SEED = 0

_FOUR_DOWN, _FOUR_UP = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}

MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "base": {
        "unet": {
            "sample_size": 128,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (320, 640, 1280),
            "layers_per_block": 2,
            "attention_head_dim": (5, 10, 20),
            "transformer_layers_per_block": (1, 2, 10),
            "cross_attention_dim": 2048,
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 6 * 256 + 1280,
        },
        "vae": {
            "sample_size": 1024,
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
            "scaling_factor": 0.13025,
        },
        "text_encoder": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "projection_dim": 768,
            "hidden_act": "quick_gelu",
        },
        "text_encoder_2": {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 20,
            "projection_dim": 1280,
            "hidden_act": "gelu",
        },
    },
    "tiny": {
        "unet": {
            "sample_size": 8,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "attention_head_dim": (2, 4),
            "transformer_layers_per_block": (1, 1),
            "cross_attention_dim": 64,
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 32,
        },
        "vae": {"sample_size": 64, "block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4},
        "text_encoder": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
        "text_encoder_2": {
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "projection_dim": 32,
        },
    },
}


class Painter:
    """Draws one picture at a time: float16 on a GPU, with the decoder in float32 as SDXL base 1.0 asks for.

    Prompts are encoded once. On a GPU the UNet is replayed as a CUDA graph unless ``eager``: launched kernel by kernel,
    a picture takes as long as one core needs for that, and how fast cores are differs by more than what is measured.
    """

    def __init__(self, model: str, size: int, steps: int, device: torch.device, *, eager: bool = False) -> None:
        self._size, self._steps = size, steps
        self._pipeline = _pipeline(MODELS[model], device)
        with torch.no_grad():
            names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
            self._prompt = dict(zip(names, self._pipeline.encode_prompt(_PROMPT, device=device), strict=True))
        if device.type == "cuda" and not eager:
            self._pipeline.unet.forward = Replayed(self._pipeline.unet.forward)

    @torch.no_grad()
    def draw(self, seed: int) -> torch.Tensor:
        """Return a picture of (size, size, 3) uint8 on the device."""
        pictures = self._pipeline(
            **self._prompt,
            height=self._size,
            width=self._size,
            num_inference_steps=self._steps,
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
        ).images
        picture: torch.Tensor = (pictures[0] * 255).round().to(torch.uint8)
        return picture.permute(1, 2, 0).contiguous()


class Replayed:
    """The forward of a UNet as a CUDA graph: captured at the first call, for inputs of the same shapes alone."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        added_cond_kwargs: dict[str, torch.Tensor],
        **_unused: object,
    ) -> tuple[torch.Tensor]:
        """Return the prediction; the next call overwrites it."""
        given = [sample, timestep, encoder_hidden_states, *added_cond_kwargs.values()]
        if self._graph is None:
            self._capture(given, list(added_cond_kwargs))
        for held, new in zip(self._held, given, strict=True):
            held.copy_(new)
        assert self._graph is not None
        self._graph.replay()
        return (self._output,)

    def _capture(self, given: list[torch.Tensor], added: list[str]) -> None:
        self._held = [tensor.to(given[0].device, copy=True) for tensor in given]
        sample, timestep, states, *others = self._held

        def forward() -> torch.Tensor:
            output: torch.Tensor = self._forward(
                sample, timestep, states, added_cond_kwargs=dict(zip(added, others, strict=True)), return_dict=False
            )[0]
            return output

        # What libraries set up at their first call cannot be captured.
        for _ in range(2):
            forward()
        graph = torch.cuda.CUDAGraph()
        # Of this thread alone: NCCL's own threads look after events meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._output = forward()
        self._graph = graph


class Share:
    """What one rank does, in our runner and in fal's alike; the worker class to mix it into comes after it."""

    rank: int
    world_size: int
    device: torch.device

    def setup(self, model: str, size: int, steps: int, eager: bool) -> None:
        """Build the pipeline."""
        self._painter = Painter(model, size, steps, self.device, eager=eager)
        self._spans: list[tuple[float, ...]] = []

    def __call__(self, seed: int = 0, spans: bool = False, **_streaming: bool) -> dict[str, Any]:
        """Draw a picture on each rank and gather them on rank 0, or tell what the calls before spent their time on."""
        if self.device.type == "cuda":
            # fal calls from threads of its own, whose current GPU is the first one.
            torch.cuda.set_device(self.device)
        if spans:
            told: list[Any] = [None] * self.world_size
            dist.all_gather_object(told, self._spans)
            self._spans = []
            return {"spans": told}
        began = time.monotonic()
        mine = self._painter.draw(seed + self.rank)
        _wait_for(mine)
        drawn = time.monotonic()
        parts = [torch.empty_like(mine) for _ in range(self.world_size)] if self.rank == 0 else None
        dist.gather(mine, parts, dst=0)
        _wait_for(mine)
        gathered = time.monotonic()
        pictures: np.ndarray[Any, Any] | None = torch.stack(parts).cpu().numpy() if parts is not None else None
        self._spans.append((began, drawn, gathered, time.monotonic()))
        return {"pictures": pictures} if pictures is not None else {}


def digest(picture: np.ndarray[Any, Any]) -> str:
    """Name a picture by its bytes."""
    return hashlib.sha256(picture.tobytes()).hexdigest()


def _wait_for(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def _pipeline(model: dict[str, dict[str, Any]], device: torch.device) -> Any:
    from worker_node.diffusion.quiet import quiet

    quiet()
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = _tokenizer()
    text = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id, "vocab_size": 49408}
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    torch.manual_seed(_WEIGHTS_SEED)
    with device:
        unet = UNet2DConditionModel(**model["unet"], use_linear_projection=True, addition_embed_type="text_time")
        vae = AutoencoderKL(**model["vae"], down_block_types=_FOUR_DOWN, up_block_types=_FOUR_UP, latent_channels=4)
        first = CLIPTextModel(CLIPTextConfig(**model["text_encoder"], **text))
        second = CLIPTextModelWithProjection(CLIPTextConfig(**model["text_encoder_2"], **text))
    pipeline: Any = StableDiffusionXLPipeline(
        vae=vae.to(dtype).eval(),
        text_encoder=first.to(dtype).eval(),
        text_encoder_2=second.to(dtype).eval(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet.to(dtype).eval(),
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", **_SCHEDULE),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _tokenizer() -> Any:
    from transformers import CLIPTokenizer

    letters = string.ascii_lowercase
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)
