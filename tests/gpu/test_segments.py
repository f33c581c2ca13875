"""Tensors of a GPU on their way through shared memory."""

from __future__ import annotations

import os

import pytest
import torch

from worker_node.distributed import wire
from worker_node.distributed.segments import Segments
from worker_node.distributed.shelf import SHARED_BYTES, Shelf


@pytest.mark.parametrize("size", [SHARED_BYTES, 3 * SHARED_BYTES + 5])
def test_a_tensor_of_a_gpu_goes_straight_into_shared_memory(size: int) -> None:
    ours, channel = Segments.pair()
    theirs = Segments.inherited(os.dup(channel.fileno()))
    value = torch.arange(size, device="cuda").to(torch.uint8)
    turned = torch.rand(1024, 4096, device="cuda").T

    frames, given = ours.give(wire.encode([value, turned], Shelf()))

    assert given == [1, 2]
    back = wire.decode(theirs.take(frames, given))
    assert torch.equal(back[0], value.cpu())
    assert torch.equal(back[1], turned.cpu())
