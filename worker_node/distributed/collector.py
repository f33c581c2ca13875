"""The garbage collector of a rank while it imports: at rest, and never to look at what was imported.

Torch alone is a quarter of a million objects that live as long as the process. Walking them over and over is a tenth of
its import, and one walk later on is a pause in a call.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def spare_imports() -> Iterator[None]:
    """Keep the collector from what the block makes, now and later; objects still go when nothing refers to them."""
    thresholds = gc.get_threshold()
    # Not gc.disable(): a module that calls that itself means it.
    gc.set_threshold(0)
    try:
        yield
    finally:
        if gc.get_threshold()[0] == 0:
            gc.set_threshold(*thresholds)
        gc.freeze()
