"""A crew: the processes of one pool, from their spawn to their end.

Spawns all of them or as many as it can, watches each, and ends them with what they started. What they are told, and
what their end means, is the business of ``pool``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import subprocess
from collections.abc import Callable, Sequence

from worker_node.distributed.channel import Channel
from worker_node.distributed.environment import rank_environment
from worker_node.distributed.errors import SpawnFailed
from worker_node.distributed.guardian import Guardian
from worker_node.distributed.launch import Launch
from worker_node.distributed.link import Wiring
from worker_node.distributed.processes import RankProcess


class Crew:
    """One pool's processes. ``on_line`` hears what they print, ``on_end`` each end that was not asked for, and
    ``on_failure`` that one cannot be watched.
    """

    def __init__(
        self,
        launch: Launch,
        channels: Sequence[Channel],
        wirings: Sequence[Wiring],
        *,
        on_line: Callable[[int, str, str], None],
        on_end: Callable[[RankProcess, int], None],
        on_failure: Callable[[SpawnFailed], None],
    ) -> None:
        self.processes: list[RankProcess] = []
        self._launch, self._channels, self._wirings = launch, channels, wirings
        self._on_line, self._on_end, self._on_failure = on_line, on_end, on_failure
        self._loop = asyncio.get_running_loop()
        self._guardian: Guardian | None = None
        self._spawning: concurrent.futures.Future[None] | None = None
        self._ending = False

    async def spawn(self, spawner: concurrent.futures.Executor) -> None:
        """Start the processes, once."""
        if self._spawning is None:
            self._spawning = spawner.submit(self._spawn_all)
        await asyncio.shield(asyncio.wrap_future(self._spawning))

    def expect_end(self) -> None:
        """From now on an end is no news."""
        self._ending = True

    def kill(self) -> None:
        """Send SIGKILL to each, and to what they started."""
        self.expect_end()
        for process in self.processes:
            process.kill()

    async def gone(self) -> None:
        """Wait until all that were killed are gone, and those that are being spawned."""
        if self._spawning is not None:
            # What it has open must not be closed under it, and a process that comes now is killed when it is adopted.
            with contextlib.suppress(Exception):
                await asyncio.shield(asyncio.wrap_future(self._spawning))
        for process in self.processes:
            await asyncio.shield(process.ended)

    def gone_now(self, timeout_s: float) -> None:
        """Do what ``gone`` does, for callers that cannot await."""
        if self._spawning is not None:
            concurrent.futures.wait({self._spawning}, timeout_s)
        for process in self.processes:
            process.reap_now(timeout_s)

    def close(self) -> None:
        """Let the guardian go: there is nobody left to end."""
        if self._guardian is not None:
            self._guardian.close()

    def _spawn_all(self) -> None:
        launch = self._launch
        self._guardian = Guardian()
        for rank, (channel, wiring) in enumerate(zip(self._channels, self._wirings, strict=True)):
            if self._ending:
                return
            env = rank_environment(
                os.environ,
                launch.env,
                rank=rank,
                world_size=launch.world_size,
                devices=launch.devices,
                link=wiring.to_text(),
            )
            try:
                popen = RankProcess.spawn(rank, env=env, cwd=launch.cwd, pass_fds=wiring.fds)
            finally:
                channel.handed_over()
            if self._loop.is_closed():
                popen.kill()
                return
            self._loop.call_soon_threadsafe(self._adopt, rank, popen)

    def _adopt(self, rank: int, popen: subprocess.Popen[bytes]) -> None:
        try:
            process = RankProcess(rank, popen, self._channels[rank].lifeline.fd, self._on_line)
        except OSError as exc:  # no descriptor is left to watch it with
            popen.kill()
            popen.wait()
            self._on_failure(SpawnFailed(f"rank {rank} cannot be watched: {exc}"))
            return
        self.processes.append(process)
        process.ending.add_done_callback(lambda ending: self._ended(process, ending.result()))
        if self._ending:
            process.kill()
        elif self._guardian is not None:
            self._guardian.watch(process.pid)

    def _ended(self, process: RankProcess, exit_code: int) -> None:
        if not self._ending:
            self._on_end(process, exit_code)
