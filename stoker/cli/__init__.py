"""The command line.

Each verb is a few lines over ``stoker.client``, ``stoker.local`` or another part that it starts as a process. What they
need is imported when the verb runs: the base install submits jobs with neither an engine's driver nor torch.
``main`` is the ``stoker`` script.
"""

from __future__ import annotations

import sys

from typer import TyperException

from stoker.cli import fault
from stoker.cli.program import program
from stoker.errors import StokerError

__all__ = ["main"]


def main() -> None:
    """Run the command of ``sys.argv`` and exit: 0 done, 1 job failed, 2 usage, 3 cannot reach, 130 interrupted."""
    try:
        # Outside of standalone mode Typer returns the code of an Exit and lets errors through, to be said our way.
        code = program(prog_name="stoker", standalone_mode=False)
    except (StokerError, TyperException) as error:
        sys.exit(fault.report(error))
    sys.exit(code if isinstance(code, int) else fault.OK)
