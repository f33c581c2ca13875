"""A rank's process ends quickly, and yet does all that user code may expect of an interpreter's exit."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from pathlib import Path

import pytest

from worker_node.distributed.collector import spare_imports

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
FRAME = """
from worker_node.distributed.leaving import quick_exit
{before}
with quick_exit():
    {body}
"""


async def run(body: str, before: str = "") -> tuple[int, str, str]:
    """Run a program that ends as a rank does; return its exit code and what it printed."""
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        FRAME.format(before=before, body=body),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await program.communicate()
    assert program.returncode is not None
    return program.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("pass", 0, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('no licence')", 1, "no licence"),
        ("raise ValueError('broken')", 1, "ValueError: broken"),
    ],
)
async def test_the_exit_code_and_the_words_are_those_of_an_ordinary_end(body: str, code: int, words: str):
    exit_code, _, said = await run(body)

    assert exit_code == code
    assert words in said
    assert bool(words) == bool(said)


async def test_handlers_run_once_in_their_order_after_the_last_thread():
    before = """
import atexit, threading
atexit.register(print, "early handler")
"""
    body = """
    atexit.register(print, "late handler")
    threading.Thread(target=print, args=("thread",)).start()
"""

    assert await run(body, before) == (0, "thread\nlate handler\nearly handler\n", "")


async def test_files_of_a_worker_are_written_though_nobody_closed_them(tmp_path: Path):
    exit_code, _, said = await run(f"open({str(tmp_path / 'log')!r}, 'w').write('the last line')")

    assert exit_code == 0, said
    assert (tmp_path / "log").read_text() == "the last line"


async def test_what_a_worker_holds_in_cycles_is_given_back():
    before = """
class Worker:
    def __init__(self):
        self.myself = self
    def __del__(self):
        print("given back")
"""

    assert await run("Worker()", before) == (0, "given back\n", "")


async def test_modules_are_not_taken_apart():
    before = """
class Witness:
    def __del__(self):
        print("taken apart")
witness = Witness()
"""

    assert await run("pass", before) == (0, "", "")


def test_what_is_imported_is_not_walked_by_the_collector():
    thresholds = gc.get_threshold()
    try:
        with spare_imports():
            imported: list[object] = []
        seen = any(each is imported for each in gc.get_objects())

        assert not seen
        assert gc.get_threshold() == thresholds
    finally:
        gc.unfreeze()


def test_a_module_that_sets_the_collector_has_its_way():
    thresholds = gc.get_threshold()
    try:
        with spare_imports():
            gc.set_threshold(12_345)

        assert gc.get_threshold()[0] == 12_345
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
