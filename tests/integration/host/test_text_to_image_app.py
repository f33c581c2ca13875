"""The app stoker/text-to-image through its host, with the model that comes with Stoker."""

from __future__ import annotations

import pytest
from PIL import Image as Pil

from stoker.errors import InvalidInput
from stoker.events import EventKind
from tests.integration.host.conftest import Serve

pytestmark = pytest.mark.anyio

APP = "worker_node.apps.text_to_image:TextToImage"


async def test_text_becomes_pictures_and_a_grid_with_previews_on_the_way(serve: Serve) -> None:
    app = await serve(APP)
    request = {"prompt": "a blue circle", "num_images": 2, "num_inference_steps": 5, "output_format": "webp"}

    result = await app.call(**request, seed=40)
    with pytest.raises(InvalidInput):
        await app.call(**{**request, "width": 100})
    random = await app.call(**{**request, "num_images": 1, "num_inference_steps": 1})

    assert [(each.pointer, each.metadata) for each in result.files] == [
        ("/images/0", {"width": 128, "height": 128, "seed": 40}),
        ("/images/1", {"width": 128, "height": 128, "seed": 41}),
        ("/grid", {"width": 256, "height": 128}),
    ]
    assert [Pil.open(each.path).format for each in result.files] == ["WEBP"] * 3
    assert (result.result["seed"], result.result["prompt"]) == (40, "a blue circle")
    assert result.result["timings"]["inference"] > 0
    assert random.result["grid"] is None
    assert random.result["images"][0]["seed"] == random.result["seed"]
    kinds = {event.kind for event in app.events}
    assert kinds >= {EventKind.PROGRESS, EventKind.PREVIEW}  # libraries of the ranks may have logged something too
