"""The shipped weights of shapes-128: what kind of files they are, how large, and that odd prompts do not break them."""

import json

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from safetensors import safe_open

from worker_node.models.shapes128 import WEIGHTS_DIR
from worker_node.models.shapes128.grammar import Scene, Thing
from worker_node.models.shapes128.layout import CANVAS, lay_out
from worker_node.models.shapes128.render import render

FILES = [path for path in WEIGHTS_DIR.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def pipeline() -> FluxPipeline:
    pipeline = FluxPipeline.from_pretrained(WEIGHTS_DIR, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_the_weights_are_safetensors_in_half_precision_with_at_most_eight_million_numbers():
    numbers = 0
    for path in WEIGHTS_DIR.rglob("*.safetensors"):
        with safe_open(path, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # not a mapping
                assert tensors.get_slice(name).get_dtype() == "F16"
                numbers += int(np.prod(tensors.get_slice(name).get_shape()))

    assert {path.suffix for path in FILES} == {".json", ".safetensors"}
    assert 7_000_000 < numbers <= 8_000_000
    assert sum(path.stat().st_size for path in FILES) < 18_000_000


def test_a_plain_load_gives_a_pipeline_in_single_precision(pipeline: FluxPipeline):
    parts = ("transformer", "vae", "text_encoder", "text_encoder_2")

    assert {getattr(pipeline, part).dtype for part in parts} == {torch.float32}
    assert pipeline.transformer.config.num_attention_heads % 8 == 0


@pytest.mark.parametrize(
    ("prompt", "negative"),
    [("a shiny sks zebra 日本", ""), ("", "blue"), ("a red circle " * 40, "a star " * 40), ("a Red STAR", "zebra")],
)
def test_any_prompt_and_negative_prompt_draws_a_picture(pipeline: FluxPipeline, prompt: str, negative: str):
    options = {"height": CANVAS, "width": CANVAS, "num_inference_steps": 2, "max_sequence_length": 32}

    drawn = pipeline(prompt, negative_prompt=negative, true_cfg_scale=2.0, output_type="np", **options).images

    assert drawn.shape == (1, CANVAS, CANVAS, 3)
    assert np.isfinite(drawn).all()


def test_how_a_prompt_is_capitalised_makes_no_difference(pipeline: FluxPipeline):
    plain, *others = (
        pipeline.encode_prompt(text, text, max_sequence_length=32)[:2]
        for text in ("a red star on navy", "A Red Star on Navy", "A RED STAR ON NAVY")
    )

    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(plain, other, strict=True))


def test_the_preview_map_turns_latents_into_about_the_picture(pipeline: FluxPipeline):
    preview = json.loads((WEIGHTS_DIR / "preview.json").read_text())
    rows, ground = lay_out(Scene((Thing("red", "square", "large"),), "center", "black"), np.random.default_rng(0))
    picture = render(torch.from_numpy(rows)[None], torch.from_numpy(ground)[None])
    with torch.no_grad():
        latents = pipeline.vae.encode(picture * 2 - 1).latent_dist.mean
    latents = (latents - pipeline.vae.config.shift_factor) * pipeline.vae.config.scaling_factor

    rgb = latents[0].permute(1, 2, 0) @ torch.tensor(preview["factors"]) + torch.tensor(preview["bias"])

    small = torch.nn.functional.avg_pool2d(picture, 8)[0].permute(1, 2, 0)
    assert (rgb - small).square().mean().sqrt() < 0.12
    assert rgb[8, 8, 0] > rgb[8, 8, 1] + 0.3
