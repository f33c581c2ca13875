"""One training loop and the two losses it is used with, the VAE's and the flow's.

``train`` calls it, and says for how long and on what.
"""

import logging
import math
import time
from collections.abc import Callable

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from worker_node.models.shapes128.bank import Bank, wild_rows
from worker_node.models.shapes128.networks import TextToLatent, positions
from worker_node.models.shapes128.render import render

log = logging.getLogger(__name__)

KL_WEIGHT = 5e-5
"""Keeps latents smooth, so that what the flow gets slightly wrong still decodes to a clean edge."""
WILD_SHARE = 0.35
CAPTION_DROPOUT = 0.1
WARM_UP_STEPS = 200


def fit(modules: nn.Module, loss_of: Callable[[], Tensor], steps: int, rate: float, decay: float) -> list[Tensor]:
    """Minimise ``loss_of`` over the modules' parameters with AdamW, warm-up and cosine.

    Returns the exponential average of the parameters, in their order; the modules keep their last step's.
    """
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=parameters[0].is_cuda
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _pace(step, steps))
    average = [p.detach().clone() for p in parameters]
    every = max(1, steps // 25)
    losses: list[Tensor] = []
    since = time.monotonic()
    for step in range(1, steps + 1):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - min(decay, step / (step + 10)))
        losses.append(loss.detach())
        if step % every == 0:
            mean = torch.stack(losses).mean().item()
            log.info("step %d of %d: loss %.5f, %.1f steps/s", step, steps, mean, every / (time.monotonic() - since))
            losses, since = [], time.monotonic()
    return average


@torch.no_grad()
def adopt(modules: nn.Module, average: list[Tensor]) -> None:
    """Put averaged parameters into the modules."""
    for parameter, mean in zip((p for p in modules.parameters() if p.requires_grad), average, strict=True):
        parameter.copy_(mean)


def vae_loss(forward: Callable[[Tensor], tuple[Tensor, Tensor]], bank: Bank, batch: int) -> Tensor:
    """Reconstruction of drawn scenes and of wild pictures: values, edges, and a little KL."""
    pictures = draw_pictures(bank, batch)
    decoded, divergence = forward(pictures)
    error = decoded.float() - pictures
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.square().mean() + 0.3 * error.abs().mean() + 0.3 * edges + KL_WEIGHT * divergence


def draw_pictures(bank: Bank, batch: int) -> Tensor:
    """A random batch in -1..1, part of it wild."""
    device = bank.things.device
    wild = int(batch * WILD_SHARE)
    rows = torch.randint(len(bank.things), (batch - wild,), device=device)
    generator = torch.Generator(device).manual_seed(int(torch.randint(2**31, (1,)).item()))
    scenes = render(bank.things[rows], bank.grounds[rows])
    pictures = torch.cat([scenes, render(*wild_rows(wild, generator))])
    return (pictures * 2 - 1).contiguous(memory_format=torch.channels_last)


def through(vae: AutoencoderKL, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Encode, sample and decode; the KL divergence is the mean over latent numbers."""
    posterior = vae.encode(pictures).latent_dist
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    sample = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
    return vae.decode(sample).sample, divergence


def flow_loss(
    model: TextToLatent, predict: Callable[..., tuple[Tensor]], latents: Tensor, bank: Bank, blank: Bank, batch: int
) -> Tensor:
    """Flow matching on packed latents: what leads from a clean picture to noise, given the caption."""
    device = latents.device
    rows = torch.randint(len(latents), (batch,), device=device)
    is_blank = (torch.rand(batch, 1, device=device) < CAPTION_DROPOUT).expand(-1, blank.t5_ids.shape[1])
    t5_ids = torch.where(is_blank, blank.t5_ids, bank.t5_ids[rows])
    clip_ids = torch.where(is_blank, blank.clip_ids, bank.clip_ids[rows])
    clean = latents[rows].float()
    noise = torch.randn_like(clean)
    time_ = torch.sigmoid(0.3 + 1.1 * torch.randn(batch, device=device))
    mix = time_[:, None, None]
    picture_ids, text_ids = positions(device)
    (velocity,) = predict(
        hidden_states=(1 - mix) * clean + mix * noise,
        encoder_hidden_states=model.t5(t5_ids).last_hidden_state,
        pooled_projections=model.clip(clip_ids).pooler_output,
        timestep=time_,
        img_ids=picture_ids,
        txt_ids=text_ids,
        return_dict=False,
    )
    return F.mse_loss(velocity.float(), noise - clean)


def _pace(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))
