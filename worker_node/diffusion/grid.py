"""Grid: several pictures as one, so that a look is enough. PIL alone: it runs in the app's process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def make_grid(pictures: Sequence[Image]) -> Image:
    """Pictures of one size, row by row, as square as their number allows."""
    from PIL import Image as Pil

    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    width, height = pictures[0].size
    grid = Pil.new("RGB", (columns * width, rows * height), "white")
    for index, picture in enumerate(pictures):
        grid.paste(picture, (index % columns * width, index // columns * height))
    return grid
