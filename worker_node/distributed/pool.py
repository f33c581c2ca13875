"""A pool: one generation of ranks, from their spawn to their end.

Starts all ranks or none, passes on what they say, and says when one ends. Does not restart: after a failure the
runner throws a pool away and makes the next.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import os
import subprocess
from collections.abc import Sequence
from typing import Protocol

from worker_node.distributed.cancel_flag import CancelFlag
from worker_node.distributed.environment import rank_environment
from worker_node.distributed.errors import NotRunning, RankDied, RunnerError, SetupFailed, SpawnFailed, StartTimeout
from worker_node.distributed.events import RankLog
from worker_node.distributed.hub import Hub
from worker_node.distributed.launch import Launch
from worker_node.distributed.media import Frame
from worker_node.distributed.messages import Kind, Message
from worker_node.distributed.processes import RankProcess

# A rank that dies in setup makes collectives of others fail, whose errors may come first: the cause gets this long.
_CAUSE_S = 0.5


class Listener(Protocol):
    """What hears a pool: the runner, and tests."""

    def on_message(self, message: Message) -> None:
        """Take a message that belongs to a call."""

    def on_log(self, log: RankLog) -> None:
        """Take a log line."""

    def on_death(self, error: RankDied) -> None:
        """Take the end of a rank that was ready."""


class Pool:
    """The ranks of one runner."""

    def __init__(self, launch: Launch, listener: Listener, spawner: concurrent.futures.Executor) -> None:
        loop = asyncio.get_running_loop()
        self.processes: list[RankProcess] = []
        self.ready_ranks: set[int] = set()
        self._launch, self._listener, self._spawner = launch, listener, spawner
        self._loop = loop
        self._flag = CancelFlag.create()
        try:
            self._hub = Hub(self._on_message)
        except BaseException:
            self._flag.close()
            raise
        self._ready: asyncio.Future[None] = loop.create_future()
        self._port: int | None = None
        self._want_port: set[int] = set()
        self._ending = False
        self._dead: RankDied | None = None

    @property
    def dropped(self) -> int:
        """How many messages were not this pool's."""
        return self._hub.dropped

    async def start(self, timeout_s: float) -> None:
        """Spawn the ranks and wait until each is ready.

        Raises:
            SetupFailed: the first rank that failed, with its traceback.
            RankDied: a rank ended before it was ready.
            StartTimeout: they took too long.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._spawn()
                await self._ready
                self._raise_death()
        except TimeoutError as exc:
            missing = sorted(set(range(self._launch.world_size)) - self.ready_ranks)
            await self.destroy()
            raise StartTimeout(timeout_s=timeout_s, missing=missing) from exc
        except BaseException:
            await self.destroy()
            raise

    def send_call(self, call: int, value: Sequence[Frame], *, streaming: bool, wants_events: bool) -> None:
        """Hand a call to every rank."""
        fields = {"streaming": streaming, "wants_events": wants_events}
        for rank in range(self._launch.world_size):
            self._hub.send(Message(Kind.CALL, rank, call, fields, value))

    def cancel(self, call: int) -> None:
        """Set the flag that the ranks' ``raise_if_cancelled`` reads."""
        self._flag.cancel(call)

    def throttle(self, paused: bool) -> None:
        """Stop reading what ranks send, or go on: they block once the sockets are full."""
        self._hub.throttle(paused)

    async def stop(self, timeout_s: float) -> None:
        """Let the ranks run ``teardown`` and exit; kill those that take longer."""
        self._ending = True
        if self._ready.done():
            for process in self.processes:
                self._hub.send(Message(Kind.STOP, process.rank))
            await asyncio.wait([process.ended for process in self.processes], timeout=timeout_s)
        await self.destroy()

    def kill(self) -> None:
        """Send SIGKILL to every rank, and to what they started."""
        self._ending = True
        for process in self.processes:
            process.kill()
        self._give_up(NotRunning("the runner was stopped while it started"))

    async def destroy(self) -> None:
        """Kill what is left, wait until the processes are gone and give everything back."""
        self.kill()
        for process in self.processes:
            await asyncio.shield(process.ended)
        self._close()

    def destroy_now(self, timeout_s: float) -> None:
        """Do what ``destroy`` does, for callers that cannot await."""
        self.kill()
        for process in self.processes:
            process.reap_now(timeout_s)
        self._close()

    def _close(self) -> None:
        self._hub.close()
        self._flag.close()

    async def _spawn(self) -> None:
        said = {"address": self._hub.folder, "token": self._hub.token.hex(), "flag_fd": self._flag.fd}
        link = json.dumps({**said, "parent_pid": os.getpid()})
        launch = self._launch

        def spawn_all() -> None:
            for rank in range(launch.world_size):
                if self._ending:
                    return
                env = rank_environment(
                    os.environ, launch.env, rank=rank, world_size=launch.world_size, devices=launch.devices, link=link
                )
                popen = RankProcess.spawn(rank, env=env, cwd=launch.cwd, flag_fd=self._flag.fd)
                self._loop.call_soon_threadsafe(adopt, rank, popen)

        def adopt(rank: int, popen: subprocess.Popen[bytes]) -> None:
            try:
                process = RankProcess(rank, popen, self._on_line)
            except OSError as exc:  # no descriptor is left to watch it with
                popen.kill()
                popen.wait()
                self._give_up(SpawnFailed(f"rank {rank} cannot be watched: {exc}"))
                return
            process.ended.add_done_callback(lambda ended: self._on_end(process, ended.result()))
            self.processes.append(process)

        # Shielded: a process that is being spawned must be adopted, or nobody would end it.
        spawning = self._loop.run_in_executor(self._spawner, spawn_all)
        try:
            await asyncio.shield(spawning)
        except asyncio.CancelledError:
            self._ending = True
            await spawning
            raise

    def _raise_death(self) -> None:
        """Raise where a rank ended between its own readiness and the last one's."""
        if self._dead is not None:
            raise self._dead

    def _on_message(self, message: Message) -> None:
        if message.kind is Kind.LOG:
            self._listener.on_log(RankLog(message.rank, message.fields["level"], message.fields["message"]))
        elif message.call:
            self._listener.on_message(message)
        elif not self._ready.done():
            self._on_start_message(message)

    def _on_start_message(self, message: Message) -> None:
        rank = message.rank
        if message.kind is Kind.HELLO:
            self._hub.send(Message(Kind.LAUNCH, rank, 0, self._launch.fields(), self._launch.setup))
        elif message.kind is Kind.PORT:
            self._pass_on_port(rank, message.fields["port"])
        elif message.kind is Kind.READY:
            self.ready_ranks.add(rank)
            if len(self.ready_ranks) == self._launch.world_size:
                # Every rank is connected: with the address gone nobody else can come, and nothing is left behind.
                self._hub.hide()
                self._ready.set_result(None)
        elif message.kind is Kind.SETUP_FAILED:
            told = {name: message.fields[name] for name in ("type_name", "message", "traceback")}
            self._loop.call_later(_CAUSE_S, self._give_up, SetupFailed(rank=rank, **told))

    def _pass_on_port(self, rank: int, port: int | None) -> None:
        if rank == 0:
            self._port = port
        else:
            self._want_port.add(rank)
        if self._port is not None:
            while self._want_port:
                self._hub.send(Message(Kind.JOIN, self._want_port.pop(), 0, {"port": self._port}))

    def _on_line(self, rank: int, stream: str, text: str) -> None:
        self._listener.on_log(RankLog(rank, logging.WARNING if stream == "stderr" else logging.INFO, text))

    def _on_end(self, process: RankProcess, exit_code: int) -> None:
        if self._ending:
            return
        self._hub.drain()
        error = RankDied(rank=process.rank, exit_code=exit_code, last_output=process.last_output)
        self._dead = self._dead or error
        if self._ready.done():
            self._listener.on_death(error)
        else:
            self._give_up(error)

    def _give_up(self, error: RunnerError) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
            # Not everybody who ends a pool awaits its start.
            self._ready.exception()
