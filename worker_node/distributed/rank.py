"""The process of one rank: ``python -m worker_node.distributed.rank RANK``, started by a runner and by nobody else.

Binds its life to the parent's, loads the worker class, enters the process group, runs ``setup`` and then serves one
call after the other on its main thread. Policy (timeouts, restarts, what an error means for the others) is the
parent's.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import inspect
import logging
import os
import signal
import socket
import sys
import traceback
from typing import Any

from worker_node.distributed import environment, wire
from worker_node.distributed.collector import spare_imports
from worker_node.distributed.errors import CallCancelled, SerializationFailed
from worker_node.distributed.leaving import leave_now, quick_exit
from worker_node.distributed.link import Link, LinkHandler, Wiring
from worker_node.distributed.messages import Kind, Message
from worker_node.distributed.worker import DistributedWorker

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve as the rank that the command line names until told to stop."""
    rank, text = int(sys.argv[1]), os.environ.pop(environment.LINK)
    wiring = Wiring.from_text(text)
    die_with(wiring.parent_pid)
    faulthandler.enable()
    link = Link(rank, wiring)
    launch = link.receive()
    _take_over(launch.fields)
    _log_to(link)
    try:
        worker = _set_up(link, launch)
    except SystemExit as exc:
        leave_now(exc.code)
    except BaseException as exc:  # noqa: BLE001 - user code may raise anything, and all of it belongs to the parent
        link.report(Kind.SETUP_FAILED, _describe(exc))
        # The parent ends all ranks now. Leaving by ourselves would look like a crash.
        while link.receive().kind is Kind.JOIN:
            pass
        return
    link.report(Kind.READY, {"device": str(worker.device)})
    takes_streaming = _takes_streaming(type(worker))
    while _serve_next(worker, link, takes_streaming=takes_streaming):
        pass
    worker.shutdown(timeout=1.0)
    _leave_group()
    link.close()


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The parent may have ended before the line above; the kernel then says nothing.
    if os.getppid() != parent_pid:
        os._exit(1)


def _take_over(fields: dict[str, Any]) -> None:
    """Look for modules where the parent looks, and hide what was set for the interpreter's start."""
    here = fields["sys_path"]
    sys.path[:] = [*here, *(entry for entry in sys.path if entry not in here)]
    os.environ.pop("PYTHONPATH", None)
    if fields["pythonpath"] is not None:
        os.environ["PYTHONPATH"] = fields["pythonpath"]


def _log_to(link: Link) -> None:
    handler = LinkHandler(link)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("worker_node.distributed.rank").setLevel(logging.DEBUG)


def _set_up(link: Link, launch: Message) -> DistributedWorker:
    from worker_node.distributed.references import resolve

    fields, listener = launch.fields, None
    address, world_size = fields["master_addr"], fields["world_size"]
    if link.rank == 0:
        # Torch would listen on every interface, and its store asks nobody who they are.
        listener = socket.create_server((address, fields["master_port"] or 0))
    link.report(Kind.PORT, {"port": listener.getsockname()[1] if listener else None})
    with spare_imports():
        worker_cls = resolve(fields["worker"])
        # Late, so that a class that cannot be imported is reported without waiting for torch.
        from worker_node.distributed import group

    # Comes when the ranks that these replace are gone: until then no GPU may be touched.
    port = link.receive().fields["port"]
    vote = group.join(
        rank=link.rank,
        world_size=world_size,
        address=address,
        port=port,
        listener=listener,
        timeout_s=fields["timeout_s"],
    )
    worker = worker_cls(link.rank, world_size)
    worker.attach(link, vote, world_size)
    worker.initialize(**wire.decode(launch.value))
    return worker


def _serve_next(worker: DistributedWorker, link: Link, *, takes_streaming: bool) -> bool:
    """Run the next call and report how it ended; whatever user code raises, this rank stays. False: told to stop.

    Nothing of the call is held beyond it: its payload and result may be large, and the next may be far off.
    """
    from worker_node.distributed import group

    message = link.receive()
    if message.kind is not Kind.CALL:
        return False
    link.begin(message.call, wants_events=message.fields["wants_events"])
    kind, fields, value = Kind.DONE, {}, []
    try:
        payload = wire.decode(message.value)
        if takes_streaming:
            payload["streaming"] = message.fields["streaming"]
        result = worker.finish(worker(**payload))
        if link.rank == 0:
            value = link.encoded(result)
    except CallCancelled:
        kind = Kind.CANCELLED
    except SystemExit as exc:
        leave_now(exc.code)
    except BaseException as exc:  # noqa: BLE001 - user code may raise anything, and all of it belongs to the caller
        kind, fields = Kind.FAILED, _describe(exc)
    link.report(kind, {**fields, "steps": group.steps()}, value)
    return True


def _takes_streaming(worker_cls: type[DistributedWorker]) -> bool:
    """Tell whether the class has a place for it: one with neither ``streaming`` nor ``**kwargs`` is spared it."""
    parameters = inspect.signature(worker_cls.__call__).parameters.values()
    return any(each.name == "streaming" or each.kind is each.VAR_KEYWORD for each in parameters)


def _describe(exc: BaseException) -> dict[str, Any]:
    described: dict[str, Any] = {"type_name": type(exc).__qualname__}
    try:
        described["message"] = str(exc)
    except Exception as raised:  # noqa: BLE001 - an error that cannot be put into words must be told all the same
        described["message"] = f"(str() of this error raised {type(raised).__qualname__})"
    try:
        described["traceback"] = "".join(traceback.format_exception(exc))
    except Exception as raised:  # noqa: BLE001 - as above: formatting asks the error's own class
        described["traceback"] = f"(the traceback could not be written: {type(raised).__qualname__})"
    if isinstance(exc, SerializationFailed):
        described |= {"path": exc.path, "reason": exc.reason}
    return described


def _leave_group() -> None:
    import torch.distributed as dist

    # A peer that left first may have closed its connections; nobody waits for anything any more.
    with contextlib.suppress(RuntimeError):
        dist.destroy_process_group()


if __name__ == "__main__":
    with quick_exit():
        main()
