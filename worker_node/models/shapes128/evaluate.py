"""Draws held-out prompts with the shipped weights and scores them: ``python -m worker_node.models.shapes128.evaluate``.

Every picture has its own seed and is drawn alone, as a request would be. ``scoring`` judges; nothing here is trained.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxPipeline
from diffusers.utils import logging as diffusers_logging
from numpy.typing import NDArray
from transformers import logging as transformers_logging

from worker_node.models.shapes128 import WEIGHTS_DIR
from worker_node.models.shapes128.grammar import Scene, draw_scene, write_prompt
from worker_node.models.shapes128.layout import CANVAS
from worker_node.models.shapes128.scoring import Score, score
from worker_node.models.shapes128.tokenizers import TEXT_LENGTH

STEPS = 16
GUIDANCE = 2.0
SEED = 2026

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Trial:
    """A held-out prompt, what it means, and the seed of its picture."""

    prompt: str
    scene: Scene
    seed: int


def held_out_trials(count: int, things: int, seed: int = SEED) -> list[Trial]:
    """The same prompts for the same arguments; a longer list begins with the shorter one."""
    rng = np.random.default_rng([seed, things])
    scenes = [draw_scene(rng, things, held_out=True) for _ in range(count)]
    words = np.random.default_rng([seed, things, 1])
    return [Trial(write_prompt(scene, words), scene, seed + index) for index, scene in enumerate(scenes)]


def load(weights: Path = WEIGHTS_DIR, device: str = "cpu") -> FluxPipeline:
    """The pipeline in single precision, quiet."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    pipeline = FluxPipeline.from_pretrained(weights, dtype=torch.float32, local_files_only=True).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: FluxPipeline, trials: list[Trial], steps: int = STEPS, guidance: float = GUIDANCE) -> list[Picture]:
    """Draw each trial's picture from its own seed, all in one batch."""
    drawn = pipeline(
        prompt=[trial.prompt for trial in trials],
        negative_prompt=[""] * len(trials),
        true_cfg_scale=guidance,
        num_inference_steps=steps,
        height=CANVAS,
        width=CANVAS,
        max_sequence_length=TEXT_LENGTH,
        generator=[torch.Generator("cpu").manual_seed(trial.seed) for trial in trials],
        output_type="np",
    ).images
    return [(picture * 255).round().astype(np.uint8) for picture in drawn]


def evaluate(
    pipeline: FluxPipeline, prompts: int, batch: int = 1, on_score: Callable[[Trial, Score], None] | None = None
) -> dict[str, float]:
    """Score ``prompts`` held-out prompts, half with one thing and half with two: shares from 0 to 1, and seconds."""
    figures: dict[str, float] = {}
    spent_s = 0.0
    draw(pipeline, held_out_trials(1, 1))  # first calls are slower than any after
    for things, name in ((1, "one"), (2, "two")):
        trials = held_out_trials(prompts // 2, things)
        scores: list[Score] = []
        for start in range(0, len(trials), batch):
            began = time.perf_counter()
            pictures = draw(pipeline, trials[start : start + batch])
            spent_s += time.perf_counter() - began
            scores += [score(p, trial.scene) for p, trial in zip(pictures, trials[start:], strict=False)]
        for trial, result in zip(trials, scores, strict=True):
            if on_score is not None:
                on_score(trial, result)
        claims = [asdict(result) | {"right": result.is_right} for result in scores]
        figures |= {f"{name}_{claim}": sum(c[claim] for c in claims) / len(claims) for claim in claims[0]}
    return figures | {"prompts": 2 * (prompts // 2), "seconds_an_image": spent_s / (2 * (prompts // 2))}


def main() -> None:
    """Print the figures, and every prompt that was drawn wrong."""
    parser = argparse.ArgumentParser(description="Score shapes-128 on held-out prompts.")
    parser.add_argument("--prompts", type=int, default=200, help="half with one thing, half with two")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_DIR)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="more help only on cores that nothing else uses")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)

    def tell(trial: Trial, result: Score) -> None:
        if not result.is_right:
            wrong = [claim for claim, holds in asdict(result).items() if not holds]
            sys.stdout.write(f"wrong {', '.join(wrong)}: {trial.prompt!r} (seed {trial.seed})\n")

    figures = evaluate(load(options.weights, options.device), options.prompts, options.batch, tell)
    for name, value in figures.items():
        sys.stdout.write(f"{name:20} {value:.3f}\n")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
