"""shapes-128 draws what it was never shown: held-out prompts, scored from pixels by the published rules."""

import pytest
import torch

from worker_node.models.shapes128.evaluate import evaluate, load

PROMPTS = 24


@pytest.fixture
def one_thread():
    """Threads that wait for each other on busy cores make this test many times slower than one thread is."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_held_out_prompts_are_drawn_right():
    figures = evaluate(load(), PROMPTS, batch=4)

    assert figures["prompts"] == PROMPTS
    assert figures["one_right"] >= 0.95
    assert figures["two_right"] >= 0.85
