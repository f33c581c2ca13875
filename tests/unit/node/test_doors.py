"""What Celery's thread sees of apps that change on another."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from worker_node.doors import Doors


class Executor:
    """Stands for an app's executor: it may be looked at on its own thread alone."""

    def __init__(self) -> None:
        self.says: bool | Exception = True
        self._thread = threading.get_ident()

    @property
    def is_open(self) -> bool:
        assert threading.get_ident() == self._thread, "looked at while it changes"
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def test_another_thread_reads_what_was_true_at_the_last_change_and_looks_at_nothing_itself():
    executor, heard = Executor(), deque[str]()
    doors = doors_of(executor, heard)

    seen = [read_elsewhere(doors)]
    for says in (True, False, KeyError("a"), True):
        executor.says = says
        seen.append(read_elsewhere(doors))
        doors.changed("a")
        seen.append(read_elsewhere(doors))

    assert seen == [False, False, True, True, False, False, False, False, True]
    assert list(heard) == ["a"] * 4


def doors_of(executor: Executor, heard: deque[str]) -> Doors:
    executors: Any = {"a": executor}
    return Doors(executors, heard.append)


def read_elsewhere(doors: Doors) -> bool:
    read: list[bool] = []
    thread = threading.Thread(target=lambda: read.append(doors.is_open("a")))
    thread.start()
    thread.join()
    return read[0]
