"""The 25 defects of fal.distributed, in the order in which they were found: each has a test beside this file."""

from __future__ import annotations

import re
from pathlib import Path

DEFECTS = {
    1: "events still queued when __call__ returns are lost to their stream and delivered to the next one",
    2: "events added during invoke() pile up and come out in a later stream",
    3: "an exception on another rank than 0 is printed, and the caller gets rank 0's success",
    4: "an exception on rank 0 comes back as the value {'error': ...}, without a type",
    5: "a rank that raises before a collective leaves the others in it, and every later call hangs",
    6: "a rank that dies while a stream runs lets the caller hang",
    7: "a payload that looks like a file ends rank 0",
    8: "a result that cannot be serialised ends rank 0: a lock, a numpy scalar or a time in a text event",
    9: "nothing is restarted: after any death the pool is unusable",
    10: "the parent polls every 0.1 s, which every call and every event waits for",
    11: "a timeout, a cancel or a stream that is left stops nothing, and the next call waits for the rest",
    12: "the error of a failing setup does not reach the caller of start()",
    13: "one fixed port: two runners on a host collide",
    14: "CUDA and NCCL only, and always device number rank",
    15: "pickles over an unauthenticated TCP port that any local user can write to; strays end the caller's call",
    16: "as_text_event of the worker has to match as_text_events of the caller by hand",
    17: "text events are data lines only: no id, no event, no heartbeat, errors look like data",
    18: "keepalive uses another thread and loop, keeps the interpreter alive, and is not started again after an error",
    19: "waiting calls are served in any order, without a bound, and cannot be seen",
    20: "intermediate images become JPEG whatever was asked, which alpha cannot; images in tuples are not formatted",
    21: "a command to a rank that is dead vanishes in silence",
    22: "an image is encoded with loss, decoded and encoded with loss again",
    23: "the pickler of multiprocessing is replaced in the whole process",
    24: "mutable default arguments; gather_errors() is empty the second time",
    25: "when rank 0 dies the others write tracebacks in a hot loop: megabytes a second, until somebody kills them",
}


def test_every_defect_has_a_test_that_bears_its_number():
    tested = [
        int(number)
        for file in Path(__file__).parent.glob("test_*.py")
        for number in re.findall(r"^(?:async )?def test_defect_(\d\d)_", file.read_text(), re.MULTILINE)
    ]

    assert sorted(DEFECTS) == list(range(1, 26))
    assert set(tested) == set(DEFECTS)
