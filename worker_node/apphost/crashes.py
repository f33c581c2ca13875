"""Crashes: which exceptions of user code say that memory ran out, a GPU failed or ranks lost each other.

Torch is not imported: an exception comes from its rank as the name of its type and its text, and a rank that aborted
has left its last words. ``failures`` asks, and ``ranks``, which replaces ranks that cannot work any more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from stoker.errors import AppError, CollectiveFailed, GpuFailed, OutOfMemory
from worker_node.distributed.errors import RankDied, RankFailed, RemoteError, RunnerError

ABORTED = -6
"""The exit code of a process that ended itself, as NCCL's watchdog and C++ exceptions do."""

# What follows "CUDA error:" and leaves the process unable to use the GPU, whatever it does next. Others, such as an
# invalid argument, belong to the one operation.
_DEVICE_IS_LOST = (
    "an illegal memory access",
    "an illegal instruction",
    "misaligned address",
    "operation not supported on global/shared address space",
    "invalid program counter",
    "unspecified launch failure",
    "device-side assert triggered",
    "hardware stack error",
    "uncorrectable ECC error",
    "uncorrectable NVLink error",
    "the launch timed out and was terminated",
    "unknown error",
    "context is destroyed",
    "initialization error",
    "no CUDA-capable device is detected",
    r"(all )?CUDA-capable device\(s\) is/are busy or unavailable",
)
_TYPES: dict[type[AppError], frozenset[str]] = {
    OutOfMemory: frozenset({"OutOfMemoryError", "MemoryError", "_ArrayMemoryError"}),
    CollectiveFailed: frozenset({"DistBackendError", "DistNetworkError"}),
}
_TEXTS: dict[type[AppError], re.Pattern[str]] = {
    GpuFailed: re.compile(
        rf"CUDA error: ({'|'.join(_DEVICE_IS_LOST)})|CUBLAS_STATUS_EXECUTION_FAILED|CUDNN_STATUS_EXECUTION_FAILED"
    ),
    OutOfMemory: re.compile(
        r"CUDA (error: )?out of memory|_STATUS_ALLOC_FAILED|Failed to CUDA [cm]alloc"
        r"|DefaultCPUAllocator: (can't allocate|not enough) memory"
    ),
    CollectiveFailed: re.compile(
        r"NCCL error|nccl(UnhandledCuda|System|Internal|Remote)Error|NCCL communicator was aborted"
        r"|Watchdog caught collective operation timeout|gloo/transport/"
    ),
}
_SPEAKING = frozenset({"RuntimeError", "AcceleratorError", "CudaError", *frozenset().union(*_TYPES.values())})
"""The types whose text is looked at: a ValueError that quotes CUDA is the app's own."""
_REPLACE = (GpuFailed, CollectiveFailed)


def crash_of(type_name: str, text: str) -> type[AppError] | None:
    """What an exception of this type and text was, the cause before what it brings about; None: the app's own."""
    if type_name not in _SPEAKING:
        return None
    for kind, pattern in _TEXTS.items():
        if pattern.search(text):
            return kind
    return next((kind for kind, names in _TYPES.items() if type_name in names), None)


def crash_on_ranks(error: RunnerError) -> type[AppError] | None:
    """The same of what the runner raised: a rank's exception, or what a rank that aborted said last."""
    found = [kind for kind in map(_crash_on_rank, _on_all_ranks(error)) if kind is not None]
    return min(found, key=list(_TEXTS).index) if found else None


def leaves_ranks_useless(error: RunnerError) -> bool:
    """Whether the ranks, alive as they may be, would fail the next call as well."""
    return crash_on_ranks(error) in _REPLACE


def _on_all_ranks(error: RunnerError) -> Sequence[RunnerError]:
    return (error, *error.others) if isinstance(error, RankFailed) else (error,)


def _crash_on_rank(error: RunnerError) -> type[AppError] | None:
    if isinstance(error, RemoteError):
        return crash_of(error.type_name, error.message)
    if isinstance(error, RankDied) and error.exit_code == ABORTED:
        return crash_of("RuntimeError", "\n".join(error.last_output))
    return None
