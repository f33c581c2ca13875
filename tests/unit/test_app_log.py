"""What ranks say reaches standard error without anybody waiting for it."""

from __future__ import annotations

import logging
import os

from worker_node.apphost.lossy_log import MAX_WAITING, LossyHandler


def test_a_stream_that_nobody_reads_holds_up_nobody_who_logs_and_the_dropped_lines_are_counted() -> None:
    reader, writer = os.pipe()
    book = logging.getLogger("tests.lossy")
    book.propagate = False
    book.setLevel(logging.INFO)
    with os.fdopen(writer, "w") as stream, os.fdopen(reader) as read:
        book.addHandler(LossyHandler(stream, logging.Formatter("%(message)s")))
        for _ in range(3 * MAX_WAITING):
            book.info("x" * 1000)
        first = [read.readline() for _ in range(MAX_WAITING)]
        book.info("after")
        line = ""
        while not line.startswith("after"):
            line = read.readline()
        told = read.readline()

    assert set(first) == {"x" * 1000 + "\n"}
    assert "dropped" in told
