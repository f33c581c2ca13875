"""The start of a pool: from the first word of its ranks until all are ready, or one cannot be.

Answers what ranks ask for on their way: what to run, and on which port to meet. Spawns and ends no process; ``pool``
does.
"""

from __future__ import annotations

import asyncio

from worker_node.distributed.errors import RunnerError, SetupFailed
from worker_node.distributed.hub import Hub
from worker_node.distributed.launch import Launch
from worker_node.distributed.messages import Kind, Message

# A rank that dies in setup makes collectives of others fail, whose errors may come first: the cause gets this long.
_CAUSE_S = 0.5


class Start:
    """One pool's. ``ready`` has no result, or the error that ended the start."""

    def __init__(self, launch: Launch, hub: Hub) -> None:
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.ready_ranks: set[int] = set()
        self._launch, self._hub = launch, hub
        self._port: int | None = None
        self._want_port: set[int] = set()
        self._may_join = False

    @property
    def missing(self) -> list[int]:
        """The ranks that are not ready."""
        return sorted(set(range(self._launch.world_size)) - self.ready_ranks)

    def let_join(self) -> None:
        """Let the ranks meet and go on to their devices."""
        self._may_join = True
        self._pass_on_port()

    def receive(self, message: Message) -> None:
        """Take in what a rank says before it is ready."""
        rank = message.rank
        if self.ready.done():
            return
        if message.kind is Kind.HELLO:
            self._hub.send(Message(Kind.LAUNCH, 0, 0, self._launch.fields(), self._launch.setup), [rank])
        elif message.kind is Kind.PORT:
            self._want_port.add(rank)
            self._port = self._port or message.fields["port"]
            self._pass_on_port()
        elif message.kind is Kind.READY:
            self.ready_ranks.add(rank)
            if not self.missing:
                self._hub.all_here()
                self.ready.set_result(None)
        elif message.kind is Kind.SETUP_FAILED:
            told = {name: message.fields[name] for name in ("type_name", "message", "traceback")}
            pause_s = _CAUSE_S if self._launch.world_size > 1 else 0
            self._loop.call_later(pause_s, self.give_up, SetupFailed(rank=rank, **told))

    def give_up(self, error: RunnerError) -> None:
        """End the start, unless it has ended."""
        if not self.ready.done():
            self.ready.set_exception(error)
            # Not everybody who ends a pool awaits its start.
            self.ready.exception()

    def _pass_on_port(self) -> None:
        if self._may_join and self._port is not None:
            self._hub.send(Message(Kind.JOIN, 0, 0, {"port": self._port}), self._want_port)
            self._want_port = set()
