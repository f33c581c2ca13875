"""The interface of fal.distributed as a table: names, parameters, defaults and kinds, and what we have beside it."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from worker_node.distributed import DistributedRunner, DistributedWorker, NotRunning

RUNNER = {
    # master_port is 29500 there: two runners on a host would collide.
    "__init__": "worker_cls=DistributedWorker, world_size=1, master_addr='127.0.0.1', master_port=None, "
    "worker_addr='127.0.0.1', worker_port=None, timeout=86400, keepalive_payload={}, keepalive_interval=None, "
    "cwd=None, set_device=None",
    "async start": "timeout=1800, **setup_kwargs",
    "async invoke": "payload={}, timeout=None",
    "asyncgen stream": "payload={}, timeout=None, streaming_timeout=None, as_text_events=False",
    "async stop": "timeout=10",
    "terminate": "timeout=10",
    "is_alive": "",
    "ensure_alive": "",
    "gather_errors": "",
    # Not async there, where it blocks a timer's thread.
    "async keepalive": "timeout=60.0",
    "maybe_start_keepalive": "",
    "maybe_reset_keepalive": "",
    "maybe_cancel_keepalive": "",
    "async __aenter__": "",
    "async __aexit__": "exc_type, exc, traceback",
}
WORKER = {
    "__init__": "rank=0, world_size=1",
    # Wider than there, so that type checkers accept whatever subclasses ask for.
    "setup": "*args, **kwargs",
    "__call__": "*args, **kwargs",
    "teardown": "",
    "initialize": "**kwargs",
    "shutdown": "timeout=None",
    "add_streaming_result": "result, image_format='jpeg', as_text_event=False",
    "add_streaming_error": "error",
    "rank_print": "message, debug=False",
    "submit": "coro",
    "run_in_worker": "func, *args, **kwargs",
}
OURS = {
    "__init__": {
        *("devices", "env", "on_log", "on_change", "grace_s", "max_waiting", "rebuild_attempts", "heartbeat_s"),
    },
}


def described(method: Any, *, beyond: set[str]) -> str:
    """Write a signature as the table does, without ``self`` and without what is ours."""
    words = []
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        if parameter.name in beyond:
            assert parameter.kind is parameter.KEYWORD_ONLY
            assert parameter.default is not parameter.empty
            continue
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = parameter.default
        shown = default.__name__ if inspect.isclass(default) else repr(default)
        if repr(default) == "mappingproxy({})":
            shown = "{}"
        words.append(star + parameter.name + ("" if default is parameter.empty else f"={shown}"))
    return ", ".join(words)


def kind_of(method: Any) -> str:
    if inspect.isasyncgenfunction(method):
        return "asyncgen"
    return "async" if inspect.iscoroutinefunction(method) else ""


@pytest.mark.parametrize(
    ("owner", "name", "expected"),
    [(DistributedRunner, *row) for row in RUNNER.items()] + [(DistributedWorker, *row) for row in WORKER.items()],
)
def test_signatures_are_those_that_code_written_for_fal_calls(owner: type, name: str, expected: str):
    kind, _, method = name.rpartition(" ")
    found = getattr(owner, method)
    ours = OURS.get(method, set()) if owner is DistributedRunner else set()

    assert kind_of(found) == kind
    assert described(found, beyond=ours) == expected


def test_a_worker_has_the_attributes_that_code_written_for_fal_reads():
    worker = DistributedWorker(rank=1, world_size=2)

    assert (worker.rank, worker.world_size, worker.running) == (1, 2, False)
    assert worker.device.type in {"cpu", "cuda"}
    assert isinstance(worker.loop, asyncio.AbstractEventLoop)
    worker.shutdown()


def test_a_runner_that_was_not_started_is_not_alive():
    runner = DistributedRunner(DistributedWorker, world_size=2, set_device=True)

    assert runner.world_size == 2
    assert not runner.is_alive()
    with pytest.raises(NotRunning):
        runner.ensure_alive()
