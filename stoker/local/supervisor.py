"""Keeps parts running: one that ends although nobody asked is started again, with a growing pause.

An engine is not: without it nothing works, so its end is reported and the stack goes down. One thread, woken by the
kernel when a process ends. ``stoker.local.stack`` calls it.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from stoker.errors import StokerError
from stoker.local.part import GRACE_S, Part
from stoker.local.process import Process

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
STABLE_S = 30.0  # after so long a life the next pause is short again


class Supervisor:
    """Watches ``parts`` and, by pid, ``engines``. ``on_change`` is called when a part has a new process."""

    def __init__(
        self,
        parts: Mapping[str, tuple[Part, Process]],
        engines: Mapping[str, int],
        on_change: Callable[[], None],
    ) -> None:
        self.processes = {role: process for role, (_, process) in parts.items()}
        self._parts = {role: part for role, (part, _) in parts.items()}
        self.lost_engine: str | None = None
        self.ended = threading.Event()  # nothing is left to wait for: an engine is lost, or the stack was left
        self._engines = {os.pidfd_open(pid): role for role, pid in engines.items()}
        self._on_change = on_change
        self._pauses: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._started_at = dict.fromkeys(parts, time.monotonic())
        self._wake_reader, self._wake_writer = os.pipe()
        self._thread = threading.Thread(target=self._watch, name="stoker-supervisor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching, then stop the parts, all at the same time."""
        os.close(self._wake_writer)
        self._thread.join()
        os.close(self._wake_reader)
        for pidfd in self._engines:
            os.close(pidfd)
        stop_all(self.processes.values())

    def _watch(self) -> None:
        while True:
            ended = self._next_end()
            if ended is None:
                return
            for role in ended:
                self._plan(role)
            for role in [role for role, at in self._due.items() if at <= time.monotonic()]:
                self._restart(role)

    def _next_end(self) -> list[str] | None:
        """The parts whose process has ended, when one does or a restart is due; None when watching is over."""
        running = {process.fileno(): role for role, process in self.processes.items() if role not in self._due}
        poller = select.poll()
        for fd in (self._wake_reader, *running, *self._engines):
            poller.register(fd, select.POLLIN)
        timeout_s = min((at - time.monotonic() for at in self._due.values()), default=None)
        ready = [fd for fd, _ in poller.poll(None if timeout_s is None else max(timeout_s, 0) * 1000)]
        if self._wake_reader in ready:
            return None
        for fd in ready:
            if fd in self._engines:
                self.lost_engine = self._engines[fd]
                self.ended.set()
                return None
        return [running[fd] for fd in ready]

    def _plan(self, role: str) -> None:
        process = self.processes[role]
        process.wait(0)
        if time.monotonic() - self._started_at[role] > STABLE_S:
            self._pauses.pop(role, None)
        pause_s = self._next_pause_s(role)
        self._due[role] = time.monotonic() + pause_s
        log.warning("%s ended with code %s; it is started again in %.1f s", role, process.exit_code, pause_s)

    def _next_pause_s(self, role: str) -> float:
        pause_s = self._pauses.get(role, FIRST_PAUSE_S)
        self._pauses[role] = min(pause_s * 2, LONGEST_PAUSE_S)
        return pause_s

    def _restart(self, role: str) -> None:
        self._started_at[role] = time.monotonic()
        try:
            self.processes[role] = self._parts[role].start_again()
        except (OSError, RuntimeError, StokerError) as error:  # the machine lacks something, perhaps for a moment
            log.warning("%s could not be started: %s; it is tried again", role, error)
            self._due[role] = time.monotonic() + self._next_pause_s(role)
            return
        del self._due[role]
        try:
            self._on_change()
        except OSError:
            log.exception("the new process of %s was not written down", role)


def stop_all(processes: Iterable[Process]) -> None:
    """Stop them, all at the same time."""
    stops = [threading.Thread(target=process.stop, kwargs={"grace_s": GRACE_S}) for process in processes]
    for stop in stops:
        stop.start()
    for stop in stops:
        stop.join()
