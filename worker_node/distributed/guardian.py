"""The guardian: ends what ranks have started when the parent is killed.

The kernel ends the ranks themselves with their parent. What they started stays in their process groups, and nobody
would be left to end it: a shell that does nothing but wait for the parent's end of a pipe to close does. What has left
its group (setsid) escapes.
"""

from __future__ import annotations

import contextlib
import subprocess

_SCRIPT = 'groups=; while read -r pid; do groups="$groups -$pid"; done; [ -z "$groups" ] || kill -s KILL -- $groups'


class Guardian:
    """Watches over one pool of ranks."""

    def __init__(self) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # What ends the parent's session or group is to leave this alone.
            start_new_session=True,
            bufsize=0,
        )

    def watch(self, pid: int) -> None:
        """Take charge of the process group that ``pid`` leads."""
        with contextlib.suppress(OSError, ValueError):
            if self._shell.stdin is not None:
                self._shell.stdin.write(b"%d\n" % pid)

    def close(self) -> None:
        """Go without doing anything: the ranks have been ended."""
        if self._shell.returncode is None:
            self._shell.kill()
            self._shell.wait()
        if self._shell.stdin is not None:
            self._shell.stdin.close()
