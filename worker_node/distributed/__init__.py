"""Warm multi-GPU workers behind one awaitable call: fal.distributed's interface on your own machine.

A library with a life of its own: it imports nothing else of this project. See README.md beside this file.
"""

from worker_node.distributed.errors import (
    AlreadyRunning,
    CallCancelled,
    CallTimeout,
    InvalidImageFormat,
    InvalidWorker,
    NotRunning,
    PoolBroken,
    RankDied,
    RankError,
    RankFailed,
    RunnerError,
    SerializationFailed,
    SetupFailed,
    SpawnFailed,
    StartTimeout,
    TooManyWaiting,
)
from worker_node.distributed.events import RankEvent, RankLog, RankState, RankStatus, RunnerState, RunnerStatus
from worker_node.distributed.runner import DistributedRunner
from worker_node.distributed.worker import DistributedWorker

__all__ = [
    "AlreadyRunning",
    "CallCancelled",
    "CallTimeout",
    "DistributedRunner",
    "DistributedWorker",
    "InvalidImageFormat",
    "InvalidWorker",
    "NotRunning",
    "PoolBroken",
    "RankDied",
    "RankError",
    "RankEvent",
    "RankFailed",
    "RankLog",
    "RankState",
    "RankStatus",
    "RunnerError",
    "RunnerState",
    "RunnerStatus",
    "SerializationFailed",
    "SetupFailed",
    "SpawnFailed",
    "StartTimeout",
    "TooManyWaiting",
]
