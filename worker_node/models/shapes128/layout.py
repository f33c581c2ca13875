"""Where a scene's things lie on the canvas, as numbers that ``render`` draws; a little at random, as a hand would.

Pure numpy: training lays out scenes in many processes before a device is touched.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from worker_node.models.shapes128.grammar import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIDES, SIZES, Scene

CANVAS = 128
REACH = 1.12
"""How far the longest shape (the star) reaches from its centre, in radii."""
COLUMNS = ("x", "y", "radius", "shape", "angle", "red", "green", "blue", "is_present")
THING_COLUMNS = len(COLUMNS)


def lay_out(scene: Scene, rng: Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two rows of ``COLUMNS`` (the second absent for a scene of one thing) and the background, colours in 0..1."""
    rows = np.zeros((2, THING_COLUMNS), np.float32)
    radii = [rng.uniform(*SIZES[thing.size]) for thing in scene.things]
    for row, thing, radius, centre in zip(rows, scene.things, radii, _centres(scene, radii, rng), strict=False):
        rgb = (np.array(COLOURS[thing.colour]) + rng.uniform(-6, 6, 3)).clip(0, 255) / 255
        row[:] = (*centre, radius, SHAPES.index(thing.shape), 0.0, *rgb, 1.0)
    ground = (np.array(BACKGROUNDS[scene.background]) + rng.uniform(-4, 4, 3)).clip(0, 255) / 255
    return rows, ground.astype(np.float32)


def _centres(scene: Scene, radii: list[float], rng: Generator) -> list[NDArray[np.float64]]:
    if len(scene.things) == 1:
        return [np.array(POSITIONS[scene.place]) + rng.uniform(-3, 3, 2)]
    axis = np.array(SIDES[scene.place], np.float64)
    apart = max(rng.uniform(54, 65), REACH * sum(radii) + 6)  # at least 6 pixels of background between the two
    middle = CANVAS / 2 + np.abs(axis) * rng.uniform(-1, 1, 2)
    across = np.abs(axis[::-1])
    return [middle + sign * axis * apart / 2 + across * rng.uniform(-7, 7) for sign in (1, -1)]
