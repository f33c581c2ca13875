"""Ids: UUIDv7, so that they sort by the time they were made."""

from __future__ import annotations

import os
import time
from uuid import UUID


def new_id() -> UUID:
    """A fresh UUIDv7 (RFC 9562, 5.7 and 6.2 method 3): milliseconds, 12 bits of their fraction, 62 random bits.

    Ids that one process makes sort as they were made, to a quarter of a microsecond.
    """
    millis, nanos = divmod(time.time_ns(), 1_000_000)
    fraction = nanos * 4096 // 1_000_000
    random = int.from_bytes(os.urandom(8), "big") >> 2
    return UUID(int=millis << 80 | 0x7 << 76 | fraction << 64 | 0x2 << 62 | random)
