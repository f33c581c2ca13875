"""The peers' own environment: made once, from the package registry, and never mixed with the project's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.peers.process import ROOT

FOLDER = ROOT / ".stoker" / "benchmarks" / "queue"
WANTED = (
    "celery[redis]",
    "sqlalchemy",
    "psycopg[binary]",
    "taskiq",
    "taskiq-redis",
    "dramatiq[redis]",
    "procrastinate",
)
SHARED = re.compile(r"(celery|kombu|redis|hiredis|sqlalchemy|psycopg|psycopg-binary)==\S+", re.IGNORECASE)
"""Where Stoker and a peer use the same library, they use the same version of it."""
NAMED = ("celery", "sqlalchemy", "taskiq", "taskiq-redis", "dramatiq", "procrastinate", "redis", "psycopg")


class PeersMissing(Exception):
    """The peers could not be installed."""


def python() -> str:
    """Return the interpreter of the peers' environment; make it where it is missing or was made for other versions.

    Raises:
        PeersMissing: with the last words of who failed.
    """
    shared = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if SHARED.fullmatch(line)]
    made_for = "\n".join([sys.version, *WANTED, "hiredis", *shared])
    # Written last: an environment without it was not finished.
    stamp = FOLDER / "made-for.txt"
    executable = FOLDER / "bin" / "python"
    if stamp.is_file() and stamp.read_text() == made_for:
        return str(executable)
    print("installing the peers into an environment of their own, once", file=sys.stderr, flush=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    try:
        venv.create(FOLDER, with_pip=True)
    except subprocess.CalledProcessError as exc:  # Debian's interpreter without python3-venv
        raise PeersMissing(f"no environment could be made: {exc}") from exc
    constraints = FOLDER / "constraints.txt"
    constraints.write_text("\n".join(shared) + "\n")
    command: list[str | Path] = [executable, "-m", "pip", "install", "--quiet", "-c", constraints, *WANTED, "hiredis"]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    if pip.returncode != 0:
        raise PeersMissing(next(reversed(pip.stderr.strip().splitlines()), "pip said nothing"))
    stamp.write_text(made_for)
    return str(executable)


def versions(executable: str) -> dict[str, str]:
    """Return which versions are measured."""
    asked = f"import json, importlib.metadata as m; print(json.dumps({{n: m.version(n) for n in {NAMED!r}}}))"
    told = subprocess.run([executable, "-c", asked], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(told.stdout)
    return found
