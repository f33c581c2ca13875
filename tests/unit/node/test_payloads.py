"""What users' code gives back, on its way to results, to the bus and to object keys."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.events import EventKind
from stoker.jobs import Output
from worker_node.distributed.environment import visible_devices
from worker_node.gpus import Gpu, visible
from worker_node.host import HostEvent
from worker_node.inputs import safe_name
from worker_node.outputs import link
from worker_node.reporter import Waiting
from worker_node.slots import Slots


@given(st.text())
def test_a_file_name_becomes_one_plain_part_of_a_path(name: str) -> None:
    plain = safe_name(name)

    assert 1 <= len(plain) <= 100
    assert not set(plain) & set("/\\\x00 ")
    assert plain not in (".", "..")


def test_a_file_name_keeps_its_suffix() -> None:
    assert safe_name("../../etc/my picture.png").endswith("my_picture.png")


def progress(rank: int, step: int) -> HostEvent:
    return HostEvent(EventKind.PROGRESS, rank, {"step": step})


def test_progress_keeps_its_order_while_it_fits() -> None:
    waiting = Waiting(limit=10)
    for step in range(5):
        waiting.add(progress(0, step))
        waiting.add(progress(1, step))

    assert [(event.rank, event.data["step"]) for event in waiting.take()] == [(r, s) for s in range(5) for r in (0, 1)]
    assert waiting.take() == []


def test_too_much_progress_leaves_the_newest_of_each_rank() -> None:
    waiting = Waiting(limit=10)
    for step in range(1000):
        waiting.add(progress(step % 2, step))

    kept = waiting.take()
    assert len(kept) <= 10
    newest = {event.rank: event.data["step"] for event in kept}
    assert newest == {0: 998, 1: 999}


def test_of_previews_the_newest_of_each_rank_is_sent_and_after_the_progress() -> None:
    waiting = Waiting()
    for step in range(3):
        waiting.add(HostEvent(EventKind.PREVIEW, 0, {"step": step}))
    waiting.add(progress(0, 3))

    assert [(event.kind, event.data["step"]) for event in waiting.take()] == [("progress", 3), ("preview", 2)]


def test_a_link_is_put_where_the_pointer_says() -> None:
    document = {"images": [{"url": ""}, {"url": "", "width": 8}], "a/b": {"url": ""}}
    for pointer in ("/images/1", "/a~1b"):
        link(
            document,
            Output(
                id=uuid4(),
                name="a b.png",
                pointer=pointer,
                key="k",
                content_type="image/png",
                size_bytes=3,
                sha256="",
                token="t",
            ),
        )

    there = {"url": "/outputs/t/a%20b.png", "content_type": "image/png", "file_name": "a b.png", "file_size": 3}
    assert document == {"images": [{"url": ""}, {**there, "width": 8}], "a/b": there}


GPUS = [Gpu(index, "H200", 1, f"GPU-{index}{index}-abc") for index in range(4)]


@pytest.mark.parametrize(
    ("listed", "left"),
    [("1,3", [1, 3]), ("3, 1", [3, 1]), ("", []), ("-1", []), ("2,9,1", [2]), ("GPU-22,GPU-00-abc", [2, 0]), ("x", [])],
)
def test_cuda_visible_devices_narrows_what_a_node_uses(listed: str, left: list[int]) -> None:
    assert [gpu.index for gpu in visible(GPUS, {"CUDA_VISIBLE_DEVICES": listed})] == left
    assert visible(GPUS, {}) == GPUS


def test_a_part_of_a_gpu_is_a_device() -> None:
    assert [gpu.uuid for gpu in visible(GPUS, {"CUDA_VISIBLE_DEVICES": "MIG-1f"})] == ["MIG-1f"]


@pytest.mark.parametrize("listed", ["2,3", "3,2", "GPU-33,GPU-22", "1,2,3"])
def test_ranks_of_a_narrowed_node_are_given_gpus_of_that_node(listed: str) -> None:
    seen = visible(GPUS, {"CUDA_VISIBLE_DEVICES": listed})
    slots = Slots(len(seen), 0)
    slots.add("a", 2, keeps=True)

    placed = slots.steps(0).place["a"]

    assert visible_devices(placed, listed).split(",") == listed.split(",")[:2]
