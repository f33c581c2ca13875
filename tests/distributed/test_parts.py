"""The parts that need no process: text events, environments, back-off, steps, signatures."""

from __future__ import annotations

import base64
import inspect
import io
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from worker_node.distributed import DistributedWorker, RunnerError, errors
from worker_node.distributed.calls import Call, in_step
from worker_node.distributed.environment import rank_environment, visible_devices
from worker_node.distributed.lifeline import Lifeline, exit_code_of
from worker_node.distributed.messages import Kind, Message
from worker_node.distributed.text_events import text_event
from worker_node.distributed.warmth import pause_before


def data_of(event: bytes) -> Any:
    return json.loads(event.decode().splitlines()[2].removeprefix("data: "))


@pytest.mark.parametrize("asked", ["jpeg", "JPG", "png", "webp"])
@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I", "I;16", "F"]
)
def test_an_image_of_any_mode_has_a_form_in_any_format(mode: str, asked: str):
    found = data_of(text_event(1, "progress", Image.new(mode, (4, 3)), image_format=asked))

    assert Image.open(io.BytesIO(base64.b64decode(found["url"].partition(",")[2]))).size == (4, 3)


def test_a_format_that_is_not_served_is_refused_with_those_that_are():
    with pytest.raises(errors.InvalidImageFormat, match="'gif'") as refused:
        text_event(1, "progress", Image.new("L", (4, 3)), image_format="gif")

    assert "webp" in refused.value.hint


def test_a_text_event_is_one_line_of_json_that_browsers_parse():
    event = text_event(3, "result", {"loss": float("nan"), "text": "a\nb", "path": Path("/x"), "pair": (1, 2), 5: None})

    assert event.startswith(b"id: 3\nevent: result\ndata: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 4
    assert data_of(event) == {"loss": None, "text": "a\nb", "path": "/x", "pair": [1, 2], "5": None}


def test_a_tensor_in_a_text_event_says_how_to_read_its_bytes():
    found = data_of(text_event(1, "progress", torch.ones(2, dtype=torch.float32)))

    assert (found["dtype"], found["shape"]) == ("float32", [2])
    assert base64.b64decode(found["url"].partition(",")[2]) == b"\0\0\x80\x3f" * 2


@pytest.mark.parametrize(
    ("devices", "visible", "expected"),
    [
        ([2, 0], None, "2,0"),
        ([1], "4,7", "7"),
        ([0, 1], "GPU-a, GPU-b", "GPU-a,GPU-b"),
        (["GPU-x"], "0", "GPU-x"),
        ([], "0,1", ""),
    ],
)
def test_chosen_devices_are_counted_among_those_this_process_sees(
    devices: list[int | str], visible: str | None, expected: str
):
    assert visible_devices(devices, visible) == expected


def test_a_ranks_environment_leaves_the_callers_choices_alone():
    env = rank_environment(
        {"GLOO_SOCKET_IFNAME": "eth0", "CUDA_VISIBLE_DEVICES": "3"},
        {"A": "1"},
        rank=1,
        world_size=2,
        devices=None,
        link="",
    )

    assert (env["GLOO_SOCKET_IFNAME"], env["CUDA_VISIBLE_DEVICES"], env["A"]) == ("eth0", "3", "1")
    assert (env["RANK"], env["LOCAL_RANK"], env["WORLD_SIZE"]) == ("1", "1", "2")


def test_rebuilds_pause_longer_after_each_misfortune_up_to_a_bound():
    pauses = [pause_before(misfortunes) for misfortunes in range(1, 12)]

    assert pauses[:4] == [0.0, 0.25, 0.5, 1.0]
    assert pauses[-1] == 30.0


def test_ranks_are_in_step_when_they_counted_alike_in_each_group_that_they_share():
    assert in_step([{"0": 3, "even": 1}, {"0": 3}, {"0": 3, "even": 1}])
    assert not in_step([{"0": 3}, {"0": 2}])
    assert not in_step([{"0": 3, "even": 1}, {"0": 3}, {"0": 3, "even": 2}])


def test_every_error_has_a_code_of_its_own_and_a_hint():
    found = [error for error in vars(errors).values() if inspect.isclass(error) and issubclass(error, RunnerError)]
    leaves = [error for error in found if "code" in vars(error) and error is not RunnerError]

    assert len({error.code for error in leaves}) == len(leaves)
    assert all(error.hint for error in leaves)
    assert all(issubclass(error, RuntimeError) for error in found)


def test_a_worker_works_as_a_plain_object_without_a_runner():
    class Plain(DistributedWorker):
        def __call__(self, number: int) -> int:
            self.raise_if_cancelled()
            self.add_streaming_result(number)
            return number + self.rank

    worker = Plain()

    assert worker(2) == 2
    assert (worker.rank, worker.world_size, worker.device.type) == (0, 1, "cpu")


def test_the_end_of_a_process_is_known_with_its_code_before_it_is_gone():
    line = Lifeline()
    child = subprocess.Popen([sys.executable, "-c", "import os; os._exit(7)"], pass_fds=[line.rank_fd])
    line.handed_over()

    select.select([line.fd], [], [])

    assert exit_code_of(child.pid) == 7
    child.wait()
    line.close()


def test_a_lifeline_that_was_let_go_by_a_living_process_is_no_end():
    assert exit_code_of(os.getpid()) is None


@pytest.mark.anyio
async def test_a_death_is_the_cause_of_the_errors_that_it_makes_on_other_ranks():
    call = Call(1, 2, on_outcome=lambda call: None)
    torn = {"type_name": "RuntimeError", "message": "connection closed by peer", "traceback": "", "steps": {"0": 1}}

    call.receive(Message(Kind.FAILED, 0, 1, torn))
    call.rank_died(errors.RankDied(rank=1, exit_code=-9))

    assert isinstance(call.outcome.exception(), errors.RankDied)
    assert call.settled.result() is False
