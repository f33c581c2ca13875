"""Which errors of user code say that a machine failed, in the words in which they come."""

from __future__ import annotations

import pytest

from stoker.errors import AppError, CollectiveFailed, GpuFailed, OutOfMemory, WorkerCrashed
from worker_node.apphost.crashes import crash_of, leaves_ranks_useless
from worker_node.apphost.failures import describe, from_runner, revive
from worker_node.distributed.errors import RankDied, RankFailed

WATCHDOG = (
    "[rank1]:[E] ProcessGroupNCCL.cpp:629] [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=4)",
    "terminate called after throwing an instance of 'c10::DistBackendError'",
)


def raised(type_name: str, message: str, rank: int = 0) -> RankFailed:
    return RankFailed(rank=rank, type_name=type_name, message=message, traceback="its traceback")


@pytest.mark.parametrize(
    ("type_name", "text", "kind"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total", OutOfMemory),
        ("AcceleratorError", "CUDA error: out of memory", OutOfMemory),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", OutOfMemory),
        ("RuntimeError", "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory", OutOfMemory),
        ("MemoryError", "", OutOfMemory),
        ("_ArrayMemoryError", "Unable to allocate 8.00 EiB", OutOfMemory),
        ("AcceleratorError", "CUDA error: an illegal memory access was encountered\nCUDA kernel errors", GpuFailed),
        ("AcceleratorError", "CUDA error: device-side assert triggered", GpuFailed),
        ("RuntimeError", "CUDA error: uncorrectable ECC error encountered", GpuFailed),
        ("DistBackendError", "NCCL error in: x.cpp, CUDA error: unspecified launch failure", GpuFailed),
        ("DistBackendError", "NCCL error in: NCCLUtils.cpp:77, remote process exited", CollectiveFailed),
        ("RuntimeError", "[/gloo/transport/tcp/pair.cc:547] Connection closed by peer", CollectiveFailed),
        ("AcceleratorError", "CUDA error: invalid argument", None),
        ("RuntimeError", "The size of tensor a (3) must match the size of tensor b (4)", None),
        ("ValueError", "CUDA error: an illegal memory access was encountered", None),
    ],
)
def test_an_error_is_known_by_its_type_and_text(type_name: str, text: str, kind: type[AppError] | None) -> None:
    assert crash_of(type_name, text) is kind


def test_a_rank_that_the_watchdog_of_nccl_aborted_lost_the_others() -> None:
    error = from_runner(RankDied(rank=1, exit_code=-6, last_output=WATCHDOG))

    assert isinstance(error, CollectiveFailed)
    assert WATCHDOG[0] in error.traceback


@pytest.mark.parametrize("exit_code", [-9, -11, 1])
def test_a_rank_that_died_otherwise_has_crashed_whatever_it_printed(exit_code: int) -> None:
    assert type(from_runner(RankDied(rank=1, exit_code=exit_code, last_output=WATCHDOG))) is WorkerCrashed


def test_the_cause_is_told_and_not_what_it_brought_about_on_other_ranks() -> None:
    first = raised("DistBackendError", "NCCL error: remote process exited")
    first.others = (raised("AcceleratorError", "CUDA error: misaligned address", rank=1),)

    assert isinstance(from_runner(first), GpuFailed)


@pytest.mark.parametrize(
    ("error", "useless"),
    [
        (raised("OutOfMemoryError", "CUDA out of memory"), False),
        (raised("AcceleratorError", "CUDA error: device-side assert triggered"), True),
        (raised("DistBackendError", "NCCL error"), True),
        (raised("KeyError", "CUDA"), False),
    ],
)
def test_ranks_without_a_gpu_or_without_each_other_are_useless(error: RankFailed, useless: bool) -> None:
    assert leaves_ranks_useless(error) is useless


def test_a_crash_crosses_to_the_supervisor_with_all_that_it_says() -> None:
    again = revive(describe(raised("OutOfMemoryError", "CUDA out of memory")))

    assert type(again) is OutOfMemory
    assert (again.crash, again.retryable) == (True, True)
    assert (again.type_name, again.traceback) == ("OutOfMemoryError", "its traceback")
    assert type(revive(describe(MemoryError("too large")))) is OutOfMemory
