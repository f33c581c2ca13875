"""A stack that stays when the command that started it returns: ``stoker up --detach`` and ``stoker down``.

Run as ``python -m stoker.local.background OPTIONS`` it is that stack's head. What it starts is ``stoker.local.stack``'s
affair.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from stoker import ready
from stoker.errors import EngineError, StokerError
from stoker.local import place
from stoker.local.part import read_line
from stoker.local.process import has_ended
from stoker.local.stack import STATE_FILE, Options, Stack, run

READY_S = 300.0
DOWN_S = 60.0


def up(options: Options) -> Stack:
    """Start the stack in the background and return once it is ready.

    Raises:
        EngineError: it does not start, or one runs on this data folder already.
    """
    if place.holder(options.data_dir) is not None:
        raise EngineError(
            f"a stack runs on {options.data_dir} already",
            hint=f"'stoker down' ends it; {STATE_FILE} there says where it is.",
        )
    given = {name: value for name, value in vars(options).items() if name != "environ"} | {
        "data_dir": str(options.data_dir.absolute())
    }
    log = options.data_dir / "log" / "up.log"
    with place.usable(options.data_dir):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
    reader, writer = os.pipe()
    try:
        with log.open("ab") as output:
            head = subprocess.Popen(
                [sys.executable, "-m", "stoker.local.background", json.dumps(given)],
                env={**options.environ, ready.VARIABLE: str(writer)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=(writer,),
            )
    finally:
        os.close(writer)
    try:
        line = read_line(reader, READY_S)
    except BaseException:
        head.terminate()
        raise
    if not line:
        head.terminate()
        raise EngineError("the stack did not start", hint=f"Its output is in {log}.")
    facts = json.loads(line)
    if "error" in facts:
        raise EngineError(facts["error"], hint=facts["hint"])
    return Stack(**facts["stack"])


def down(data_dir: Path) -> bool:
    """End the stack that runs on ``data_dir``; whether there was one.

    Raises:
        EngineError: it does not end.
    """
    head = place.holder(data_dir)
    if head is None:
        return False
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(head)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            if not has_ended(pidfd, DOWN_S):
                raise EngineError(f"the stack did not end within {DOWN_S:.0f} s", hint=f"Look at {data_dir / 'log'}.")
        finally:
            os.close(pidfd)
    return True


def main() -> None:
    """Be the head of a stack."""
    given = json.loads(sys.argv[1])
    fd = os.environ.pop(ready.VARIABLE)
    options = Options(**given | {"data_dir": Path(given["data_dir"]), "apps": tuple(given["apps"])})
    with os.fdopen(int(fd), "w") as pipe:

        def say(facts: dict[str, object]) -> None:
            pipe.write(json.dumps(facts) + "\n")
            pipe.close()

        try:
            run(options, lambda running: say({"stack": running.stack.to_json()}))
        except StokerError as error:
            if not pipe.closed:
                say({"error": str(error), "hint": error.hint})
            sys.exit(f"error: {error}\nhint: {error.hint}")


if __name__ == "__main__":
    main()
