"""Says what a picture shows, from its pixels alone: how many things, and each one's colour, shape, size and place.

No network judges: the background is what the border shows, things are the connected rest, a colour is the nearest of
the palette, a shape the best overlap with a drawn one. ``evaluate`` and the tests call it.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from worker_node.models.shapes128.grammar import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIDES, Scene, Thing
from worker_node.models.shapes128.layout import CANVAS, THING_COLUMNS
from worker_node.models.shapes128.render import render

CONTRAST = 45.0
"""RGB distance from the background at which a pixel belongs to a thing."""
SPECK = 40
"""Connected pixels fewer than this are no thing."""
COLOUR_TOLERANCE = 75.0
LEAST_OVERLAP = 0.7
"""Intersection over union with the best drawn shape, below which a thing has no shape."""
GRID = 32
SMALL_BELOW, LARGE_FROM = 15.5, 21.5

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Seen:
    """One thing as it shows: ``None`` where it is like nothing in the grammar. Pixels from the top left."""

    colour: str | None
    shape: str | None
    size: str
    x: float
    y: float


@dataclass(frozen=True)
class Score:
    """Whether a picture shows its scene: for two things, each claim is about both."""

    count: bool
    colour: bool
    shape: bool
    place: bool
    size: bool
    background: bool

    @property
    def is_right(self) -> bool:
        """The published figure: as many things as asked, each one's colour and shape, and where they lie."""
        return self.count and self.colour and self.shape and self.place


def score(picture: NDArray[np.uint8], scene: Scene) -> Score:
    """Compare a picture, (128, 128, 3), with the scene that it should show."""
    seen, ground = read(picture)
    background = ground == scene.background
    if len(seen) != len(scene.things):
        return Score(False, False, False, False, False, background)
    orders = [seen] if len(seen) == 1 else [seen, seen[::-1]]
    claims = [_compare(order, scene, background) for order in orders]
    return max(claims, key=lambda s: (s.is_right, s.colour + s.shape + s.place + s.size))


def read(picture: NDArray[np.uint8]) -> tuple[list[Seen], str]:
    """Every thing in a picture, and the name of its background."""
    pixels = picture.astype(np.float64)
    border = np.concatenate([pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3), pixels[:, 0], pixels[:, -1]])
    ground = np.median(border, axis=0)
    masks = _connected(np.linalg.norm(pixels - ground, axis=2) > CONTRAST)
    return [_read_thing(pixels, mask) for mask in masks], _nearest(ground, BACKGROUNDS)[0]


def _compare(seen: list[Seen], scene: Scene, background: bool) -> Score:
    pairs: list[tuple[Seen, Thing]] = list(zip(seen, scene.things, strict=True))
    return Score(
        count=True,
        colour=all(s.colour == thing.colour for s, thing in pairs),
        shape=all(s.shape == thing.shape for s, thing in pairs),
        place=_place(seen) == scene.place,
        size=all(s.size == thing.size for s, thing in pairs),
        background=background,
    )


def _place(seen: list[Seen]) -> str:
    """The nearest position of one thing; of two, the side of the second on which the first lies."""
    first = np.array([seen[0].x, seen[0].y])
    if len(seen) == 1:
        return min(POSITIONS, key=lambda name: float(np.abs(first - POSITIONS[name]).max()))
    apart = first - [seen[1].x, seen[1].y]
    return max(SIDES, key=lambda name: float(apart @ SIDES[name]))


def _read_thing(pixels: NDArray[np.float64], mask: Mask) -> Seen:
    rows, columns = np.nonzero(mask)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    name, distance = _nearest(np.median(pixels[_inner(mask)], axis=0), COLOURS)
    box = _to_grid(mask[top:bottom, left:right])
    overlaps = {shape: _overlap(box, template) for shape, (template, _) in _templates().items()}
    shape = max(overlaps, key=lambda s: overlaps[s])
    is_shape = overlaps[shape] >= LEAST_OVERLAP and 0.75 < (bottom - top) / (right - left) < 1.33
    radius = float(np.sqrt(mask.sum() / _templates()[shape][1]))
    return Seen(
        colour=name if distance < COLOUR_TOLERANCE else None,
        shape=shape if is_shape else None,
        size="small" if radius < SMALL_BELOW else "large" if radius >= LARGE_FROM else "medium",
        x=float(left + right) / 2,
        y=float(top + bottom) / 2,
    )


def _nearest(rgb: NDArray[np.float64], palette: dict[str, tuple[int, int, int]]) -> tuple[str, float]:
    distances = {name: float(np.linalg.norm(rgb - np.array(colour))) for name, colour in palette.items()}
    name = min(distances, key=lambda n: distances[n])
    return name, distances[name]


def _inner(mask: Mask) -> Mask:
    """The mask without its blended edge, or all of it where nothing else is left."""
    inner = mask.copy()
    for axis in (0, 1):
        for step in (1, -1):
            inner &= np.roll(mask, step, axis)
    return inner if inner.any() else mask


def _to_grid(box: Mask) -> Mask:
    rows, columns = (((np.arange(GRID) + 0.5) * n / GRID).astype(int) for n in box.shape)
    grid: Mask = box[rows][:, columns]
    return grid


def _overlap(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / (a | b).sum())


@cache
def _templates() -> dict[str, tuple[Mask, float]]:
    """Each shape on the grid of its bounding box, and its area for a radius of one."""
    things = torch.zeros(len(SHAPES), 1, THING_COLUMNS)
    radius = 40.0
    for index in range(len(SHAPES)):
        things[index, 0] = torch.tensor([CANVAS / 2, CANVAS / 2, radius, index, 0, 1, 1, 1, 1])
    drawn = render(things, torch.zeros(len(SHAPES), 3))[:, 0].numpy() > 0.5
    return {shape: (_boxed(mask), float(mask.sum()) / radius**2) for shape, mask in zip(SHAPES, drawn, strict=True)}


def _boxed(mask: Mask) -> Mask:
    rows, columns = np.nonzero(mask)
    return _to_grid(mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])


def _connected(mask: Mask) -> list[Mask]:
    """The connected pieces of a mask that are more than specks, largest first."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(labels, 1)
        around = [padded[1 + i : 1 + i + CANVAS, 1 + j : 1 + j + CANVAS] for i in (-1, 0, 1) for j in (-1, 0, 1)]
        spread = np.where(mask, np.maximum.reduce(around), 0)
        if (spread == labels).all():
            break
        labels = spread
    names, counts = np.unique(labels[mask], return_counts=True)
    order = [int(i) for i in np.argsort(-counts) if counts[i] >= SPECK]
    return [labels == names[i] for i in order]
