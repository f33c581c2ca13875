"""Random values that travel, and whether two of them are the same bit for bit."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from PIL import Image

_TENSORS = [
    torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.complex64, torch.bool, torch.uint8, torch.int8,
    torch.int16, torch.int32, torch.int64, torch.float8_e4m3fn,
]  # fmt: skip
_ARRAYS = ["?", "u1", "<i2", ">i2", "<u4", "<i8", "<f2", "<f4", ">f8", "<c8", "S5", "<U3", "<M8[s]"]
_IMAGES = {"1": 0.125, "L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4, "I;16": 2, "F": 4}
_WORDS = ["red", "grün", "青い", "", "a longer word with spaces", "\x00", "🙂"]


def some_value(rng: random.Random, size_bytes: int) -> Any:
    """Make a value of at most about this size."""
    return rng.choice([small_dict, tensor, array, image, blob])(rng, size_bytes)


def event_value(rng: random.Random, size_bytes: int | None) -> Any:
    """Make what an event carries: anything, a dict where it shall be small, or a number where JSON must hold it."""
    if size_bytes is None:
        return rng.getrandbits(50)
    return some_value(rng, size_bytes) if size_bytes else small_dict(rng)


def small_dict(rng: random.Random, _: int = 0) -> dict[str, Any]:
    """Make a dict as JSON could hold, with a few things that it could not."""
    leaves = [None, True, rng.random(), rng.getrandbits(63), -rng.getrandbits(80), rng.choice(_WORDS)]
    leaves += [(1, (2,)), {"deep": [rng.random()]}, rng.randbytes(rng.randrange(40)), float("inf")]
    return {f"{rng.choice(_WORDS)}{index}": rng.choice(leaves) for index in range(rng.randrange(8))}


def blob(rng: random.Random, size_bytes: int) -> bytes:
    """Make bytes."""
    return rng.randbytes(rng.randrange(size_bytes + 1))


def tensor(rng: random.Random, size_bytes: int) -> torch.Tensor:
    """Make a tensor of random dtype, shape and bits, not always contiguous."""
    dtype = rng.choice(_TENSORS)
    shape = _shape(rng, size_bytes // dtype.itemsize)
    raw = torch.frombuffer(bytearray(rng.randbytes(int(np.prod(shape)) * dtype.itemsize) or b"\0"), dtype=torch.uint8)
    if dtype is torch.bool:
        raw = raw & 1
    made = raw[: int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
    return made.T if made.ndim == 2 and rng.random() < 0.3 else made


def array(rng: random.Random, size_bytes: int) -> np.ndarray[Any, Any]:
    """Make an array of random dtype, shape and bits, not always contiguous."""
    dtype = np.dtype(rng.choice(_ARRAYS))
    shape = _shape(rng, size_bytes // dtype.itemsize)
    raw = np.frombuffer(bytearray(rng.randbytes(int(np.prod(shape)) * dtype.itemsize)), np.uint8)
    if dtype.kind in "?SU":  # not every pattern of bits is a bool or a character
        raw = raw & 1
    made = raw.view(dtype).reshape(shape)
    return made[::-2] if made.ndim and rng.random() < 0.3 else made


def image(rng: random.Random, size_bytes: int) -> Image.Image:
    """Make a picture of random mode, size and pixels."""
    mode = rng.choice(list(_IMAGES))
    pixels = max(1, int(size_bytes / max(1, _IMAGES[mode])))
    width = rng.randint(1, max(1, int(pixels**0.5)))
    height = rng.randint(1, max(1, pixels // width))
    row_bytes = (width + 7) // 8 if mode == "1" else int(width * _IMAGES[mode])
    return Image.frombytes(mode, (width, height), rng.randbytes(row_bytes * height))


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same, bit for bit."""
    if type(one) is not type(other):
        return isinstance(one, Image.Image) and isinstance(other, Image.Image) and _same_image(one, other)
    if isinstance(one, torch.Tensor):
        return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(_bits(one), _bits(other))
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape) == (other.dtype, other.shape) and one.tobytes() == other.tobytes()
    if isinstance(one, Image.Image):
        return _same_image(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _same_image(one: Image.Image, other: Image.Image) -> bool:
    return (one.mode, one.size, one.tobytes()) == (other.mode, other.size, other.tobytes())


def _bits(value: torch.Tensor) -> torch.Tensor:
    return value.contiguous().reshape(-1).view(torch.uint8)


def _shape(rng: random.Random, items: int) -> list[int]:
    shape = []
    for _ in range(rng.randint(0, 3)):
        side = rng.randint(0 if rng.random() < 0.05 else 1, max(1, items))
        shape.append(side)
        items //= max(1, side)
    return shape
