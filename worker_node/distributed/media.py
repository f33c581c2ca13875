"""Tensors, arrays and images: each as a small header and one raw frame, bit for bit.

Torch, numpy and PIL are imported only where a value of theirs occurs, so a process that handles none pays for none.
Tensors arrive on the CPU and without a gradient. Images keep mode, size, pixels and palette, not their metadata.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from worker_node.distributed.shelf import SHARED_BYTES

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

    from worker_node.distributed.shelf import Shelf

Frame = bytes | bytearray | memoryview

_PIECE_BYTES = 8 * 2**20
"""A GPU's tensor is copied through page-locked memory of this size, which it fills many times faster than any other."""


def is_number(value: Any) -> bool:
    """Tell whether this is a numpy scalar."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic)


def to_number(value: Any) -> Any:
    """Turn a numpy scalar into Python's own number, string or date."""
    plain = value.item()
    # Long doubles have no Python counterpart and return themselves.
    return float(plain) if is_number(plain) else plain


def split(value: Any, shelf: Shelf | None = None) -> tuple[list[Any], Frame] | None:
    """Return header and buffer of a tensor, array or image; None where the value is none of them.

    What is large and comes from a device is staged on the ``shelf``, if there is one.

    Raises:
        TypeError: of a kind that cannot travel as plain bytes.
    """
    modules = sys.modules
    if (torch := modules.get("torch")) is not None and isinstance(value, torch.Tensor):
        return _split_tensor(value, shelf)
    if (numpy := modules.get("numpy")) is not None and isinstance(value, numpy.ndarray):
        return _split_array(value)
    if (image := modules.get("PIL.Image")) is not None and isinstance(value, image.Image):
        return _split_image(value)
    return None


def join(header: list[Any], frame: Frame) -> Any:
    """Rebuild what ``split`` took apart; the result owns writable memory."""
    kind, *fields = header
    if kind == "tensor":
        return _join_tensor(fields, frame)
    if kind == "array":
        return _join_array(fields, frame)
    if kind == "image":
        return _join_image(fields, frame)
    raise ValueError(f"unknown kind of buffer {kind!r}")


def _writable(frame: Frame) -> Frame:
    """Return memory that the value may own: a received frame is nobody else's, so it need not be copied."""
    return frame if isinstance(frame, memoryview) and not frame.readonly else bytearray(frame)


def _split_tensor(tensor: torch.Tensor, shelf: Shelf | None) -> tuple[list[Any], Frame]:
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise TypeError(f"a tensor of layout {tensor.layout} or quantized type has no form on the wire: make it dense")
    plain = _in_order(tensor.detach())
    header = ["tensor", str(plain.dtype).removeprefix("torch."), list(plain.shape)]
    if plain.numel() == 0:
        return header, b""
    # Every dtype, numpy's or not, is viewed as bytes.
    raw = plain.reshape(-1).view(torch.uint8)
    if shelf is not None and raw.is_cuda and raw.nbytes >= SHARED_BYTES:
        # Without memory to lock or to stage in it goes the plain way.
        with contextlib.suppress(OSError, RuntimeError):
            return header, shelf.write(_pieces(raw), raw.nbytes)
    return header, raw.cpu().numpy().data


def _in_order(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    if tensor.is_cuda:
        # A GPU is much faster at it, if it has the memory.
        with contextlib.suppress(torch.cuda.OutOfMemoryError):
            return tensor.resolve_conj().resolve_neg().contiguous()
    return tensor.cpu().resolve_conj().resolve_neg().contiguous()


def _pieces(raw: torch.Tensor) -> Iterator[memoryview]:
    """Copy a GPU's bytes, one piece after another through the same memory."""
    import torch

    locked = torch.empty(_PIECE_BYTES, dtype=torch.uint8, pin_memory=True)
    for start in range(0, raw.numel(), _PIECE_BYTES):
        piece = raw[start : start + _PIECE_BYTES]
        yield locked[: piece.numel()].copy_(piece).numpy().data


def _join_tensor(fields: list[Any], frame: Frame) -> torch.Tensor:
    import torch

    name, shape = fields
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name} is not a dtype of torch")
    if not len(frame):
        return torch.empty(shape, dtype=dtype)
    raw = torch.frombuffer(_writable(frame), dtype=torch.uint8)
    # A frame may begin anywhere in memory; kernels want their numbers aligned.
    return (raw.clone() if raw.data_ptr() % dtype.itemsize else raw).view(dtype).reshape(shape)


def _split_array(array: np.ndarray[Any, Any]) -> tuple[list[Any], Frame]:
    import numpy as np

    if array.dtype.hasobject:
        raise TypeError("an array of Python objects has no form on the wire")
    descr = np.lib.format.dtype_to_descr(array.dtype)
    plain = np.ascontiguousarray(array)
    return ["array", descr, list(array.shape)], plain.reshape(-1).view(np.uint8).data if plain.nbytes else b""


def _join_array(fields: list[Any], frame: Frame) -> np.ndarray[Any, Any]:
    import numpy as np

    descr, shape = fields
    dtype = np.lib.format.descr_to_dtype(descr)
    if dtype.hasobject:
        raise ValueError("an array of Python objects has no form on the wire")
    array = np.frombuffer(_writable(frame), dtype=np.uint8).view(dtype).reshape(shape)
    return array if array.flags.aligned else array.copy()


def _split_image(image: Image.Image) -> tuple[list[Any], Frame]:
    palette = image.getpalette("RGBA") if image.mode in ("P", "PA") else None
    transparency = image.info.get("transparency")
    extra = transparency if isinstance(transparency, int | bytes) else None
    return ["image", image.mode, image.width, image.height, bytes(palette or b""), extra], image.tobytes()


def _join_image(fields: list[Any], frame: Frame) -> Image.Image:
    from PIL import Image

    mode, width, height, palette, transparency = fields
    image = Image.frombytes(mode, (width, height), frame) if len(frame) else Image.new(mode, (width, height))
    if palette:
        image.putpalette(palette, "RGBA")
    if transparency is not None:
        image.info["transparency"] = transparency
    return image
