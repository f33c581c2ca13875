"""A part for tests: it says that it is ready and waits to be ended. Run by ``python -m tests.support.announcer``."""

from __future__ import annotations

import signal

from stoker import ready

if __name__ == "__main__":
    ready.announce({"answer": 42})
    signal.pause()
