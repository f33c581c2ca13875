"""A process whose wall clock is wrong by CLOCK_OFF_S seconds: put this folder on its PYTHONPATH.

What measures lengths of time is as it was, as on a machine whose clock was set wrong before it started.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from typing import Any

OFF_S = float(os.environ.get("CLOCK_OFF_S", "0"))

_right, _right_ns, _true = time.time, time.time_ns, dt.datetime


class _LikeTheTrueOne(type(_true)):  # type: ignore[misc]
    """What was made by the C type itself counts as one, too."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _true)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _true)


class _Wrong(_true, metaclass=_LikeTheTrueOne):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        return _true.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        return _true.fromtimestamp(time.time(), dt.UTC).replace(tzinfo=None)


if OFF_S:
    _Wrong.__module__, _Wrong.__name__, _Wrong.__qualname__ = "datetime", "datetime", "datetime"
    time.time = lambda: _right() + OFF_S
    time.time_ns = lambda: _right_ns() + int(OFF_S * 1e9)
    dt.datetime = _Wrong  # type: ignore[misc]
