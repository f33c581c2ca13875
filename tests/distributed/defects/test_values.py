"""What travels between the caller and the ranks, and who may send it."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worker_node.distributed import DistributedRunner, DistributedWorker, RankEvent, RankFailed, SerializationFailed

pytestmark = pytest.mark.anyio

Pids = Callable[[DistributedRunner], list[int]]


@pytest.mark.parametrize(
    "file",
    [
        {"content_type": "image/png", "url": "https://example.com/cat.png"},
        {"content_type": "image/png", "url": "data:image/png;base64,no base64"},
        {"content_type": "image/png", "data": None, "width": 1, "height": 1},
        {"content_type": "application/tensor", "shape": [1], "dtype": "float32", "data": b"\x80\x04."},
        {"content_type": "application/numpy", "data": b"\x93NUMPY"},
    ],
    ids=["far", "torn", "empty", "tensor", "array"],
)
async def test_defect_07_a_payload_that_looks_like_a_file_reaches_the_worker_and_comes_back_unchanged(
    single: DistributedRunner, pids: Pids, file: dict[str, Any]
):
    before = pids(single)

    assert (await single.invoke({"do": "echo", "value": [file]}))["value"] == [file]
    assert pids(single) == before


async def test_defect_08_a_result_that_cannot_travel_is_an_error_with_its_path_and_costs_no_restart(
    pair: DistributedRunner, pids: Pids
):
    before = pids(pair)

    with pytest.raises(SerializationFailed, match=r"state\[0\].lock") as failed:
        await pair.invoke({"do": "make", "what": "lock"})

    assert failed.value.path == "state[0].lock"
    assert await pair.invoke({"do": "all_reduce"}) == 2.0
    assert pids(pair) == before


async def test_defect_08_an_event_that_cannot_travel_is_an_error_of_its_call_and_costs_no_restart(
    single: DistributedRunner, pids: Pids
):
    before = pids(single)

    with pytest.raises(RuntimeError, match="lock has no form on the wire"):
        async for _ in single.stream({"do": "emit_lock"}):
            pass

    assert await single.invoke({"do": "all_reduce"}) == 1.0
    assert pids(single) == before


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("scalar", {"loss": 0.5, "step": 3}),
        ("time", "2026-01-02T03:04:05.000006+00:00"),
        ("path", "/weights/last.safetensors"),
    ],
)
async def test_defect_08_numpy_scalars_and_times_have_a_form_in_text_events(
    single: DistributedRunner, pids: Pids, what: str, expected: Any
):
    before = pids(single)

    texts = [text async for text in single.stream({"do": "emit_made", "what": what}, as_text_events=True)]

    assert json.loads(texts[0].splitlines()[2].removeprefix(b"data: ")) == {"made": expected}
    assert pids(single) == before


async def test_defect_15_ranks_listen_to_nobody_but_each_other(pair: DistributedRunner):
    seen: list[RankEvent] = []

    await pair.call({"do": "emit_listening"}, on_event=seen.append)

    # Torch's own rendezvous on rank 0, and gloo's connections between the ranks; nothing on any other interface.
    found = {event.rank: event.data for event in seen}
    assert found[0]["store"] in found[0]["at"]
    assert {address for data in found.values() for address, _ in data["at"]} == {"127.0.0.1"}


async def test_defect_15_the_sockets_of_warm_ranks_have_no_name_that_a_stranger_could_connect_to(
    single: DistributedRunner, pair: DistributedRunner, folder: Path
):
    assert single.is_alive()
    assert pair.is_alive()
    assert os.listdir(folder) == []  # noqa: PTH208 - the lint for async code forbids iterdir here


async def test_defect_15_frames_that_are_no_messages_of_the_pool_are_counted_and_end_no_call(single: DistributedRunner):
    before = single.status().dropped

    assert await single.invoke({"do": "send_strays"}) == "whole"
    assert single.status().dropped == before + 5


def test_defect_24_no_default_argument_can_be_changed_by_a_call():
    defaults = [
        parameter.default
        for owner in (DistributedRunner, DistributedWorker)
        for method in vars(owner).values()
        if inspect.isfunction(method)
        for parameter in inspect.signature(method).parameters.values()
    ]

    assert defaults != []
    assert [default for default in defaults if isinstance(default, list | dict | set)] == []


async def test_defect_24_errors_can_be_gathered_more_than_once(single: DistributedRunner):
    with pytest.raises(RankFailed) as failed:
        await single.invoke({"do": "fail", "ranks": [0]})

    single.gather_errors().clear()

    assert single.gather_errors() == [failed.value]
