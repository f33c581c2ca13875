"""What the command line says when something is wrong, and with which exit code it ends.

``error: ...`` says what happened, ``hint: ...`` what to do next, both on standard error. A bug keeps its traceback: it
does not come here. ``stoker.cli.main`` calls it.
"""

from __future__ import annotations

import sys

from typer import TyperException

from stoker.errors import ConfigurationError, StokerError, Unavailable

HINTS = {  # where the API's own hint speaks of HTTP
    "unauthenticated": "Set STOKER_API_KEY or give --api-key; 'stoker keys list' shows the keys that there are.",
    "unknown_app": "'stoker apps' lists what can be asked for; a node that serves the app makes it known.",
    "invalid_input": "Each line names a place. A number or other JSON is written name:=4, a text name=text.",
}
OK, FAILED, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130


def report(error: StokerError | TyperException) -> int:
    """Say what is wrong and return the exit code."""
    if isinstance(error, TyperException):
        say(error.format_message().strip(), "'stoker --help' lists the commands, 'stoker COMMAND --help' its options.")
        return USAGE
    say(str(error), HINTS.get(error.code, error.hint))
    for entry in getattr(error, "errors", []):
        place = ".".join(str(part) for part in entry.get("loc", ()))
        sys.stderr.write(f"  {place or '(input)'}: {entry.get('msg', '')}\n")
    for note in getattr(error, "__notes__", []):
        sys.stderr.write(f"{note}\n")
    return exit_code(error)


def exit_code(error: StokerError) -> int:
    """The exit code that belongs to ``error``."""
    if isinstance(error, Unavailable):
        return UNREACHABLE
    if isinstance(error, ConfigurationError) or 400 <= error.status < 500:
        return USAGE
    return FAILED


def say(message: str, hint: str) -> None:
    """Write the two lines."""
    sys.stderr.write(f"error: {message}\nhint: {hint}\n")
