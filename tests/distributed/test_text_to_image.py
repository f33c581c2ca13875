"""Text to pictures: the same pictures on any number of ranks, and ranks that stay together whatever happens to one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stoker.errors import ConfigurationError
from tests.support.tiny_pipelines import save_flux, save_sdxl
from worker_node.diffusion.text_to_image import TextToImageWorker
from worker_node.distributed import CallCancelled, DistributedRunner, RankEvent, RankFailed
from worker_node.models.shapes128 import WEIGHTS_DIR

pytestmark = pytest.mark.anyio

WORKER = "tests.distributed.stumbling:Stumbling"
REQUEST = {"prompt": "a large red circle above a small blue square", "seed": 7, "num_inference_steps": 3}
FEW = {"num_images": 3, "width": 64, "height": 64, "num_inference_steps": 2}


@pytest.fixture(scope="module", autouse=True)
def torch_as_it_was() -> Any:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def load(model: Path) -> TextToImageWorker:
    """A worker without a runner: rank 0 of 1, here."""
    worker = TextToImageWorker()
    worker.setup(model=str(model))
    return worker


@pytest.fixture(scope="module")
def alone() -> TextToImageWorker:
    return load(WEIGHTS_DIR)


@pytest.fixture(scope="module")
async def two(anyio_backend: str) -> AsyncIterator[DistributedRunner]:
    runner = DistributedRunner(WORKER, 2)
    await runner.start(model=str(WEIGHTS_DIR))
    yield runner
    await runner.stop()


@pytest.fixture(scope="module")
async def four(anyio_backend: str) -> AsyncIterator[DistributedRunner]:
    runner = DistributedRunner(WORKER, 4)
    await runner.start(model=str(WEIGHTS_DIR))
    yield runner
    await runner.stop()


def same(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return len(left) == len(right) and all(np.array_equal(*pair) for pair in zip(left, right, strict=True))


async def test_one_two_and_four_ranks_draw_the_same_pictures_bit_for_bit(
    alone: TextToImageWorker, two: DistributedRunner, four: DistributedRunner
) -> None:
    request = {**REQUEST, "num_images": 5}

    drawn = [alone(**request), await two.call(request), await four.call(request)]

    one_rank, two_ranks, four_ranks = (each["images"] for each in drawn)
    assert same(one_rank, two_ranks)
    assert same(one_rank, four_ranks)
    assert one_rank[0].shape == (128, 128, 3)
    assert not np.array_equal(one_rank[0], one_rank[1])
    assert drawn[1]["seeds"] == [7, 8, 9, 10, 11]


async def test_a_picture_depends_on_its_own_seed_and_not_on_how_many_were_asked_for(
    alone: TextToImageWorker, two: DistributedRunner
) -> None:
    several = alone(**REQUEST, num_images=2)["images"]

    single = (await two.call({**REQUEST, "seed": 8, "num_images": 1}))["images"]

    assert same(single, several[1:])


async def test_ranks_without_an_image_wait_for_the_others(alone: TextToImageWorker, four: DistributedRunner) -> None:
    drawn = await four.call({**REQUEST, "num_images": 1})

    assert same(drawn["images"], alone(**REQUEST)["images"])


async def test_each_rank_tells_every_step_and_shows_previews(two: DistributedRunner) -> None:
    events: list[RankEvent] = []

    await two.call({**REQUEST, "num_images": 3, "num_inference_steps": 10}, on_event=events.append)

    steps = {rank: [event.data for event in events if event.rank == rank] for rank in (0, 1)}
    assert [data["step"] for data in steps[0]] == list(range(1, 21))
    assert [(data["step"], data["total"]) for data in steps[1]] == [(step, 10) for step in range(1, 11)]
    assert all(data["eta_s"] >= 0 for data in steps[0])
    assert steps[0][-1]["eta_s"] == 0
    assert sum("preview" in data for data in steps[1]) == 5


async def test_a_preview_already_looks_like_the_picture(two: DistributedRunner) -> None:
    events: list[RankEvent] = []

    drawn = await two.call({**REQUEST, "num_images": 1, "num_inference_steps": 10}, on_event=events.append)

    picture = drawn["images"][0].astype(float)
    previews = [np.asarray(event.data["preview"], dtype=float) for event in events if "preview" in event.data]
    distances = [np.abs(preview - picture).mean() for preview in previews]
    blank = np.abs(picture.mean(axis=(0, 1)) - picture).mean()
    assert previews[0].shape == picture.shape
    assert distances[-1] < blank / 2


async def test_an_error_on_one_rank_is_a_clean_error_and_costs_no_restart(two: DistributedRunner) -> None:
    with pytest.raises(RankFailed, match="rank 1 raised MemoryError") as caught:
        await two.call({**REQUEST, "prompt": "stumble", "num_images": 4, "num_inference_steps": 50})

    after = await two.call({**REQUEST, "num_images": 1})
    assert caught.value.others == ()
    assert len(after["images"]) == 1
    assert two.status().restarts == 0


async def test_a_cancel_stops_all_ranks_at_a_step_and_keeps_them_warm(two: DistributedRunner) -> None:
    stopping: list[asyncio.Task[None]] = []

    def cancel(event: RankEvent) -> None:
        if not stopping:
            stopping.append(asyncio.get_running_loop().create_task(two.cancel()))

    with pytest.raises(CallCancelled):
        await two.call({**REQUEST, "num_images": 3, "num_inference_steps": 100}, on_event=cancel)
    await stopping[0]

    assert len((await two.call({**REQUEST, "num_images": 1}))["images"]) == 1
    assert two.status().restarts == 0


async def test_a_size_that_the_model_cannot_draw_is_refused_by_every_rank(two: DistributedRunner) -> None:
    with pytest.raises(RankFailed, match="width is 512: this model draws 128 pixels a side, and at most 256"):
        await two.call({**REQUEST, "width": 512})

    assert two.status().restarts == 0


@pytest.mark.parametrize("save", [save_flux, save_sdxl])
def test_models_of_both_families_are_served_by_the_same_code(save: Any, tmp_path: Path) -> None:
    worker = load(save(tmp_path / "model"))
    request = {"prompt": "a cat", "negative_prompt": "a dog", "seed": 3, "guidance_scale": 4.0, **FEW}

    drawn = worker(**request)["images"]
    alone = worker(**{**request, "seed": 5, "num_images": 1})["images"]
    without_negative = worker(**{**request, "negative_prompt": "", "num_images": 1})["images"]

    assert drawn[0].shape == (64, 64, 3)
    assert same(alone, drawn[2:])
    assert not same(without_negative, drawn[:1])
    assert worker.family.defaults.side == 64


def test_a_fitted_preview_map_finds_the_colours_of_a_model_that_brings_none(alone: TextToImageWorker) -> None:
    from worker_node.diffusion.previews import LatentPreview

    family = alone.family
    red = torch.zeros(1, 3, 64, 64)
    red[:, 0], red[:, 1:] = 1.0, -1.0
    with torch.no_grad():
        grid = family.normalised(family.vae.encode(red).latent_dist.mode())
    given, family.preview_map = family.preview_map, None
    try:
        fitted = np.asarray(LatentPreview(family).draw(grid[0]))
    finally:
        family.preview_map = given

    middle = fitted[fitted.shape[0] // 2, fitted.shape[1] // 2].astype(int)
    assert middle[0] > 150
    assert max(middle[1:]) < 100


@pytest.mark.parametrize(
    ("config", "says"), [(None, "is a None"), ('{"_class_name": "WanPipeline"}', "is a WanPipeline")]
)
def test_a_model_of_another_family_is_refused_with_what_could_be_served(
    tmp_path: Path, config: str | None, says: str
) -> None:
    if config is not None:
        (tmp_path / "model_index.json").write_text(config)

    with pytest.raises(ConfigurationError, match=says) as caught:
        load(tmp_path)

    assert "FluxPipeline" in caught.value.hint


def test_weights_that_could_run_code_are_refused(tmp_path: Path) -> None:
    pickled = save_sdxl(tmp_path / "pickled", safe_serialization=False)

    with pytest.raises(OSError, match="safetensors"):
        load(pickled)
