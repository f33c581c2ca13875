"""The soak's values: all of them travel, and two that differ are not taken for the same."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from tests.soak.values import same, some_value
from worker_node.distributed import wire


@pytest.mark.parametrize("seed", range(400))
def test_every_value_is_the_same_after_the_wire_and_for_the_same_seed(seed: int):
    value = some_value(random.Random(seed), 2000)

    assert same(wire.decode([bytes(frame) for frame in wire.encode(value)]), value)
    assert same(some_value(random.Random(seed), 2000), value)


def test_values_that_differ_in_type_shape_or_one_bit_are_not_the_same():
    zero, minus = torch.zeros(2), -torch.zeros(2)

    assert not same(zero, minus)
    assert not same(zero, zero.double())
    assert not same(zero, zero.reshape(2, 1))
    assert not same(np.zeros(2), np.zeros(3))
    assert not same({"a": (1,)}, {"a": [1]})
