"""Back-off: how long to wait before something that failed is tried again. Pure."""

from __future__ import annotations

LONGEST_PAUSE_S = 30.0


def pause_before(failures_in_a_row: int) -> float:
    """Seconds before another try: none after the first failure, then 1, 2, 4 ... up to half a minute."""
    return 0.0 if failures_in_a_row <= 1 else min(2.0 ** (failures_in_a_row - 2), LONGEST_PAUSE_S)
