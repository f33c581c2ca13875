"""Turn into another program that dies with the process that started it.

Run as a script, by path and with ``python -I -S``, so that it costs milliseconds and imports nothing of ours. It does
not stay: it replaces itself by the program. ``stoker.local.process`` calls it.

    launch.py SIGNAL PARENT_PID UID|- PROGRAM [ARGUMENT ...]
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Drop rights, ask the kernel for SIGNAL when the parent dies, and become PROGRAM."""
    stop_signal, parent, user, *argv = sys.argv[1:]
    if user != "-":
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    # After setuid, which would clear it; it survives exec.
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(stop_signal), 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent):  # it died before the line above: no signal will come
        sys.exit(1)
    try:
        os.execv(argv[0], argv)  # noqa: S606 (to become it is the point)
    except OSError as exc:
        sys.exit(f"{argv[0]}: {exc.strerror}")


if __name__ == "__main__":
    main()
