"""``python -m worker_node``: one node, as ``stoker node`` starts it.

Reads the settings, becomes the node of this data folder, starts the node's loop in a thread and listens for
doorbells on the main thread until SIGTERM. A second SIGTERM ends the grace.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from stoker import crash_points, log, metrics, ready
from stoker.errors import ConfigurationError, StokerError
from stoker.queue import make_celery
from stoker.settings import NodeSettings
from worker_node.consumer import make_consumer, stop_on_signals
from worker_node.engines import open_engines
from worker_node.gate import Gate
from worker_node.gpus import list_gpus
from worker_node.host import AppSpec
from worker_node.node import Node
from worker_node.registration import take_identity
from worker_node.side_loop import Answers, SideLoop

DRAIN_GRACE_S = 30.0
SWITCH_S = 0.0001
CANNOT_START = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a node until it is told to stop; the exit code."""
    options = _parse(arguments)
    try:
        settings = NodeSettings.load()
        if options.slots is not None:
            settings = settings.model_copy(update={"slots": options.slots})
        log.configure(settings.log_format, service="node")
        crash_points.arm(settings.crash_at)
        return _serve(options, settings)
    except StokerError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return CANNOT_START


def _serve(options: argparse.Namespace, settings: NodeSettings) -> int:
    identity = take_identity(settings.data_dir, options.node_id or settings.node_id)
    gpus = list_gpus()
    if gpus and settings.slots is not None:
        raise ConfigurationError(
            f"the slots of this node are its {len(gpus)} GPUs, and no other number can be set",
            hint="Leave --slots and STOKER_SLOTS out; CUDA_VISIBLE_DEVICES narrows the GPUs that a node uses.",
        )
    specs = _specs(options.app, options.world_size, identity.folder / "spool", settings.alone_s)
    # Celery's thread goes on working when it has passed a doorbell on: the loop would wait up to 5 ms for its turn.
    sys.setswitchinterval(SWITCH_S)
    side = SideLoop()
    engines = open_engines(settings, node_id=identity.node_id)
    node = Node(settings, identity, engines, gpus)
    metrics.serve(engines.metrics.registry, settings.metrics_host, settings.metrics_port)
    side.run(node.start(specs))
    gate = Gate(node.apps, node.can_start)
    node.on_change = gate.changed
    node.on_drain = lambda: os.kill(os.getpid(), signal.SIGTERM)
    consumer = make_consumer(
        make_celery(settings.redis_url), node_id=identity.node_id, gate=gate, answerer=Answers(side, node)
    )
    stopping: list[Future[None]] = []

    def on_stop() -> None:
        if not stopping:
            stopping.append(side.submit(node.stop(options.drain_grace_s)))
        else:
            side.loop.call_soon_threadsafe(node.hurry)

    stop_on_signals(on_stop)
    ready.announce({"node_id": identity.node_id, "apps": node.apps, "refused": node.refused, "pid": os.getpid()})
    consumer.start()
    if not stopping:
        on_stop()  # Celery has ended by itself: a remote shutdown, or an error that it has logged
    stopping[0].result()
    side.close()
    return int(consumer.exitcode or 0)


def _specs(apps: Sequence[str], world_size: int | None, spool: Path, alone_s: float) -> list[AppSpec]:
    return [AppSpec(app, world_size, spool / str(number), os.environ, alone_s) for number, app in enumerate(apps)]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="worker_node", description="Run one Stoker node.")
    parser.add_argument("--app", action="append", required=True, metavar="PACKAGE.MODULE:CLASS")
    parser.add_argument("--world-size", type=int, help="ranks of each app; default: what the app asks for")
    parser.add_argument("--slots", type=_count, help="without GPUs: how many ranks; default: enough for all apps")
    parser.add_argument("--node-id", help="stable over restarts; default: STOKER_NODE_ID, or kept in the data folder")
    parser.add_argument("--drain-grace-s", type=float, default=DRAIN_GRACE_S, help="for running jobs, at SIGTERM")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of slots, from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
