"""The floor of a start: so many bare interpreters, side by side, that import torch and enter one process group.

On GPUs over NCCL, with the connections made at once; else over gloo. No collective is run: our runner runs none either.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time

from benchmarks.peers.process import PeerFailed, environment

BARE = """
import sys, time
import torch
import torch.distributed as dist
rank, world_size, port = map(int, sys.argv[1:])
meet = {"init_method": f"tcp://127.0.0.1:{port}", "rank": rank, "world_size": world_size}
if torch.cuda.is_available():
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device, **meet)
else:
    dist.init_process_group("gloo", **meet)
print(time.monotonic(), flush=True)
sys.stdin.read()
"""

HARDWARE = """
import torch
gpus = torch.cuda.device_count()
print(torch.__version__, gpus, torch.cuda.get_device_name() if gpus else "")
"""


def start_s(world_size: int) -> float:
    """Return the seconds from before the first is started until the slowest is in the group."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", BARE, str(rank), str(world_size), str(port)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    env=environment(),
                )
            )
            for rank in range(world_size)
        ]
        lines = [process.stdout.readline() if process.stdout else "" for process in processes]
        for process in processes:
            process.kill()
    if not all(lines):
        raise PeerFailed(f"bare torch did not start at world size {world_size}")
    return max(map(float, lines)) - began


def hardware() -> dict[str, str]:
    """Say what torch there is, and which GPUs; this also has the system read torch's files once before it counts."""
    told = subprocess.run(
        [sys.executable, "-c", HARDWARE], capture_output=True, text=True, check=True, env=environment()
    )
    version, gpus, name = told.stdout.rstrip("\n").split(" ", 2)
    return {"torch": version, "gpus": gpus, "gpu": name}
