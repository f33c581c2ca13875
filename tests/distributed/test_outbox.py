"""The outbox of a rank: batches, and what becomes of outputs, progress and log lines when nobody takes them."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from worker_node.distributed.batch import Item, Line, Lost, Sort, unpacked
from worker_node.distributed.messages import Kind, Message
from worker_node.distributed.outbox import Outbox
from worker_node.distributed.window import LOG_BYTES, OUTPUT_BYTES, PROGRESS_BYTES, ReceiveWindow, SendWindow

CALL = 7


class Parent:
    """Gets the batches of an outbox and takes them out of the window when a test says so."""

    def __init__(self) -> None:
        self.window = ReceiveWindow()
        self.batches: queue.SimpleQueue[list[Item | Line | Lost]] = queue.SimpleQueue()
        self.outbox = Outbox(SendWindow(self.window.fd), self._receive)
        self.outbox.enter(CALL)

    def _receive(self, fields: dict[str, Any], buffers: Any) -> None:
        batch = list(unpacked(Message(Kind.BATCH, 0, CALL, fields, list(buffers))))
        self.window.received(sum(item.cost_bytes for item in batch))
        self.batches.put(batch)

    def next_batch(self) -> list[Item | Line | Lost]:
        """Wait for a batch."""
        return self.batches.get(timeout=60)

    def take(self, batch: list[Item | Line | Lost]) -> None:
        """Say that nothing of it is in the way any more."""
        for item in batch:
            self.window.taken(item.cost_bytes)


@pytest.fixture
def parent() -> Iterator[Parent]:
    parent = Parent()
    yield parent
    parent.outbox.close(lambda: None)
    parent.window.close()


def item(sort: Sort, text: bytes, *buffers: bytes) -> Item:
    return Item(sort, [text, *buffers])


def test_the_first_goes_at_once_and_what_follows_arrives_without_another_word(parent: Parent):
    sent = [item(Sort.OUTPUT, str(number).encode()) for number in range(50)]

    for each in sent:
        parent.outbox.output(each, CALL)

    assert parent.next_batch()[0] == sent[0]
    arrived = []
    while len(arrived) < 49:
        arrived += parent.next_batch()
    assert arrived == sent[1:]


def test_an_output_waits_until_there_is_room(parent: Parent):
    large = item(Sort.OUTPUT, b"large", bytes(OUTPUT_BYTES - 1000))
    parent.outbox.output(large, CALL)
    waiting = threading.Thread(target=parent.outbox.output, args=(large, CALL), daemon=True)
    first = parent.next_batch()

    waiting.start()
    parent.outbox.line(Line(logging.INFO, "still here"))
    between = parent.next_batch()
    is_waiting = waiting.is_alive()
    parent.take(first)

    assert between == [Line(logging.INFO, "still here")]
    assert is_waiting
    assert parent.next_batch() == [large]
    waiting.join()


def test_an_output_larger_than_the_window_goes_when_nothing_else_is_under_way(parent: Parent):
    parent.outbox.output(item(Sort.OUTPUT, b"huge", bytes(2 * OUTPUT_BYTES)), CALL)

    assert parent.next_batch()[0].value[0] == b"huge"


def test_progress_that_has_no_room_is_replaced_by_the_newest_and_that_one_arrives_when_there_is_room(parent: Parent):
    parent.outbox.progress(item(Sort.PROGRESS, b"old", bytes(PROGRESS_BYTES)), CALL)
    old = parent.next_batch()

    for number in range(100):
        parent.outbox.progress(item(Sort.PROGRESS, b"step", str(number).encode()), CALL)
    parent.take(old)

    assert parent.next_batch() == [item(Sort.PROGRESS, b"step", b"99")]
    assert parent.batches.empty()


def test_kept_progress_goes_before_the_next_output_and_before_the_end(parent: Parent):
    parent.outbox.progress(item(Sort.PROGRESS, b"old", bytes(PROGRESS_BYTES)), CALL)
    parent.next_batch()

    parent.outbox.progress(item(Sort.PROGRESS, b"1"), CALL)
    parent.outbox.output(item(Sort.OUTPUT, b"2"), CALL)
    parent.outbox.progress(item(Sort.PROGRESS, b"3"), CALL)
    arrived = []

    def end() -> None:
        while len(arrived) < 3:
            arrived.extend(parent.next_batch())

    parent.outbox.leave(end)

    assert [each.value[0] for each in arrived] == [b"1", b"2", b"3"]


def test_progress_that_is_kept_does_not_change_with_the_memory_that_it_came_from(parent: Parent):
    parent.outbox.progress(item(Sort.PROGRESS, b"old", bytes(PROGRESS_BYTES)), CALL)
    old, memory = parent.next_batch(), bytearray(b"then")

    parent.outbox.progress(Item(Sort.PROGRESS, [b"picture", memoryview(memory)]), CALL)
    memory[:] = b"now!"
    parent.take(old)

    assert parent.next_batch()[0].value == [b"picture", b"then"]


def test_log_lines_without_room_are_dropped_and_counted(parent: Parent):
    parent.outbox.line(Line(logging.INFO, "x" * (LOG_BYTES // 4)))
    first = parent.next_batch()

    for _ in range(7):
        parent.outbox.line(Line(logging.INFO, "lost"))
    parent.take(first)

    assert parent.next_batch() == [Lost(7)]
