"""Draws laid-out scenes as anti-aliased pictures, in batches, on whatever device their numbers are on.

Every shape is a signed distance in pixels; what lies within half a pixel of its edge is blended. It is the source of
all training pictures and of the ground truth that ``scoring`` is checked against.
"""

import math

import torch
from torch import Tensor

from worker_node.models.shapes128.grammar import SHAPES
from worker_node.models.shapes128.layout import CANVAS

RING_HOLE = 0.5
CROSS_ARM = 0.34
STAR_NOTCH = 0.45


def render(things: Tensor, grounds: Tensor) -> Tensor:
    """Draw ``things`` (B, K, columns of ``layout``), later ones on top, over ``grounds`` (B, 3): (B, 3, H, W) in 0..1.

    ``grounds`` may also be (B, 2, 3): the colours at the top and at the bottom, blended between.
    """
    device = things.device
    steps = (torch.arange(CANVAS, device=device, dtype=torch.float32) + 0.5) / CANVAS
    if grounds.ndim == 2:
        grounds = grounds[:, None].expand(-1, 2, -1)
    ramp = torch.lerp(grounds[:, 0, :, None], grounds[:, 1, :, None], steps)
    pictures = ramp[..., None].expand(-1, -1, -1, CANVAS)
    for thing in things.unbind(1):
        cover = (0.5 - _distances(thing)).clamp(0, 1) * thing[:, -1, None, None]
        pictures = torch.lerp(pictures, thing[:, 5:8, None, None].expand_as(pictures), cover[:, None])
    return pictures


def _distances(thing: Tensor) -> Tensor:
    """Signed distance of every pixel to the edge of its picture's thing: (B, columns) to (B, H, W), inside negative."""
    pixel = torch.arange(CANVAS, device=thing.device, dtype=torch.float32) + 0.5
    dx = pixel[None, None, :] - thing[:, 0, None, None]
    dy = thing[:, 1, None, None] - pixel[None, :, None]
    angle, r = thing[:, 4, None, None], thing[:, 2, None, None]
    x = dx * angle.cos() + dy * angle.sin()
    y = dy * angle.cos() - dx * angle.sin()
    across, up, far = x.abs(), y.abs(), torch.hypot(x, y)
    by_shape = {
        "circle": far - r,
        "square": torch.maximum(across, up) - 0.9 * r,
        "triangle": _triangle(across, y, 1.12 * r),
        "star": _star(x, y, far, 1.12 * r),
        "cross": torch.minimum(
            torch.maximum(across - r, up - CROSS_ARM * r), torch.maximum(across - CROSS_ARM * r, up - r)
        ),
        "ring": (far - (1 + RING_HOLE) / 2 * r).abs() - (1 - RING_HOLE) / 2 * r,
    }
    which = thing[:, 3, None, None]
    distance = by_shape[SHAPES[0]]
    for index, shape in enumerate(SHAPES[1:], start=1):
        distance = torch.where(which == index, by_shape[shape], distance)
    return distance


def _triangle(across: Tensor, y: Tensor, corner: Tensor) -> Tensor:
    """Equilateral, pointing up, with its bounding box (not its centroid) centred."""
    y = y + corner / 4
    return torch.maximum(-y, math.sqrt(3) / 2 * across + y / 2) - corner / 2


def _star(x: Tensor, y: Tensor, far: Tensor, corner: Tensor) -> Tensor:
    """Five points, one up: the plane is folded onto half a point, whose edge is one line."""
    fold = ((torch.atan2(x, y) + math.pi / 5) % (2 * math.pi / 5) - math.pi / 5).abs()
    notch_x, notch_y = STAR_NOTCH * math.cos(math.pi / 5), STAR_NOTCH * math.sin(math.pi / 5)
    length = math.hypot(1 - notch_x, notch_y)
    return ((far * fold.cos() - corner) * notch_y + far * fold.sin() * (1 - notch_x)) / length
