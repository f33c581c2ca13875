"""Trains shapes-128 from nothing: ``python -m worker_node.models.shapes128.train --out DIR`` on one GPU.

Draws its own data; trains the VAE, then both text encoders and the transformer together; writes the pipeline folder in
half precision. The seed fixes data and order; GPU arithmetic in bf16 is not bit-equal from run to run.
"""

import argparse
import functools
import json
import logging
import math
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # its usual name
from transformers import logging as transformers_logging

from worker_node.models.shapes128 import fit
from worker_node.models.shapes128.bank import Bank, build_bank
from worker_node.models.shapes128.evaluate import GUIDANCE, STEPS
from worker_node.models.shapes128.networks import (
    TextToLatent,
    assemble,
    build_text_to_latent,
    build_vae,
    pack,
    parameter_count,
    tie_letter_case,
)
from worker_node.models.shapes128.render import render

log = logging.getLogger(__name__)

ENCODE_BATCH = 1000


def main() -> None:
    """Train, write, and say how good it is."""
    options = _options()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    transformers_logging.set_verbosity_error()
    device = torch.device(options.device)
    torch.backends.cuda.enable_cudnn_sdp(False)  # its backward pass has ended in illegal memory accesses
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(options.seed)
    began = time.monotonic()

    vae, model = build_vae().to(device, memory_format=torch.channels_last), build_text_to_latent()
    model.modules.to(device)
    log.info("%d parameters", parameter_count(vae, model.modules))
    bank = build_bank(options.scenes, options.seed, (model.tokenize_t5, model.tokenize_clip), device)
    log.info("%d scenes after %.0f s", len(bank.things), time.monotonic() - began)

    train_vae(vae, bank, options)
    latents = encode_bank(vae, bank)
    log.info("VAE and latents after %.0f s", time.monotonic() - began)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "preview.json").write_text(json.dumps(fit_preview(bank, latents)))
    (options.out / "defaults.json").write_text(json.dumps({"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}))

    train_flow(vae, model, bank, latents, options)
    log.info("trained and written after %.0f s", time.monotonic() - began)


def train_vae(vae: AutoencoderKL, bank: Bank, options: argparse.Namespace) -> None:
    """Leave the averaged weights in ``vae``, and in its config what brings its latents to mean 0 and deviation 1."""
    through = functools.partial(fit.through, vae)
    forward = torch.compile(through) if options.compile else through

    def loss() -> Tensor:
        with torch.autocast(bank.things.device.type, torch.bfloat16):
            return fit.vae_loss(forward, bank, options.vae_batch)

    fit.adopt(vae, fit.fit(vae, loss, options.vae_steps, rate=1.5e-3, decay=0.999))
    with torch.no_grad():
        pictures = fit.draw_pictures(bank, 256)
        decoded = vae.decode(vae.encode(pictures).latent_dist.mean).sample.clamp(-1, 1)
    log.info("VAE: %.1f dB", -10 * math.log10(F.mse_loss(decoded, pictures).item() / 4))


@torch.no_grad()
def encode_bank(vae: AutoencoderKL, bank: Bank) -> Tensor:
    """Encode every scene: packed, normalised, in half precision."""
    rows = []
    for start in range(0, len(bank.things), ENCODE_BATCH):
        pictures = render(bank.things[start : start + ENCODE_BATCH], bank.grounds[start : start + ENCODE_BATCH])
        with torch.autocast(pictures.device.type, torch.bfloat16):
            encoded = vae.encode((pictures * 2 - 1).contiguous(memory_format=torch.channels_last))
        rows.append(encoded.latent_dist.mean.half())
    sample = torch.cat(rows[:20]).float()
    vae.register_to_config(scaling_factor=1 / sample.std().item(), shift_factor=sample.mean().item())
    return torch.cat([pack((row.float() - sample.mean()) / sample.std()).half() for row in rows])


@torch.no_grad()
def fit_preview(bank: Bank, latents: Tensor, count: int = 2000) -> dict[str, object]:
    """The least-squares map from a normalised latent's channels to its 8x8 pixels' mean colour, for cheap previews."""
    pictures = F.avg_pool2d(render(bank.things[:count], bank.grounds[:count]), 8)
    side, channels = pictures.shape[-1], latents.shape[-1] // 4
    tokens = latents[:count].float().reshape(-1, side // 2, side // 2, channels, 2, 2)
    inputs = tokens.permute(0, 1, 4, 2, 5, 3).reshape(-1, channels)
    inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1)
    outputs = pictures.permute(0, 2, 3, 1).reshape(-1, 3)
    solution = torch.linalg.lstsq(inputs.cpu(), outputs.cpu()).solution
    error = (inputs.cpu() @ solution - outputs.cpu()).square().mean().sqrt().item()
    log.info("preview map: root mean square error %.3f of 1", error)
    return {
        "about": "rgb (0..1) = latent @ factors + bias, for unpacked latents as the scheduler steps them (normalised)",
        "factors": [[round(v, 5) for v in row] for row in solution[:-1].tolist()],
        "bias": [round(v, 5) for v in solution[-1].tolist()],
        "rms_error": round(error, 4),
    }


def train_flow(
    vae: AutoencoderKL, model: TextToLatent, bank: Bank, latents: Tensor, options: argparse.Namespace
) -> None:
    """Leave the averaged weights in ``model`` and the pipeline folder in ``options.out``."""
    device = latents.device
    blank = Bank(bank.things, bank.grounds, model.tokenize_t5([""]).to(device), model.tokenize_clip([""]).to(device))
    predict = torch.compile(model.transformer) if options.compile else model.transformer

    def loss() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return fit.flow_loss(model, predict, latents, bank, blank, options.flow_batch)

    fit.adopt(model.modules, fit.fit(model.modules, loss, options.flow_steps, rate=1.2e-3, decay=0.9995))
    tie_letter_case(model)
    assemble(vae, model, options.shift).to(dtype=torch.float16).save_pretrained(options.out)
    for encoder in ("text_encoder", "text_encoder_2"):
        load_in_single_precision(options.out / encoder / "config.json")


def load_in_single_precision(config: Path) -> None:
    """Have transformers load an encoder as diffusers loads the rest when no type is asked for."""
    settings = json.loads(config.read_text()) | {"dtype": "float32"}
    config.write_text(json.dumps(settings, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the pipeline folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=400_000)
    parser.add_argument("--vae-steps", type=int, default=4000)
    parser.add_argument("--vae-batch", type=int, default=128)
    parser.add_argument("--flow-steps", type=int, default=12_000)
    parser.add_argument("--flow-batch", type=int, default=512)
    parser.add_argument("--shift", type=float, default=1.5, help="how much of sampling goes to high noise")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
