"""fal's own environment: made once, from the package registry, and never mixed with the project's."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.peers.process import ROOT, environment

FOLDER = ROOT / ".stoker" / "benchmarks" / "fal"
WANTED = ("fal>=1.83.0", "torch", "pyzmq", "cloudpickle", "numpy", "pillow")
# Both sides compute and talk with the same of these; whatever else fal wants is its own affair.
SHARED = re.compile(r"(torch|pyzmq|numpy|pillow)==\S+")


class FalMissing(Exception):
    """fal could not be installed."""


def python() -> str:
    """Return the interpreter of fal's environment; make it where it is missing or was made for other versions.

    Raises:
        FalMissing: with the last words of who failed.
    """
    shared = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if SHARED.fullmatch(line)]
    made_for = "\n".join([sys.version, *WANTED, *shared])
    # Written last: an environment without it was not finished.
    stamp = FOLDER / "made-for.txt"
    executable = FOLDER / "bin" / "python"
    if stamp.is_file() and stamp.read_text() == made_for:
        return str(executable)
    print("installing fal into an environment of its own, once", file=sys.stderr, flush=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    try:
        venv.create(FOLDER, with_pip=True)
    except (
        subprocess.CalledProcessError
    ) as exc:  # an interpreter without ensurepip, as Debian's is without python3-venv
        raise FalMissing(f"no environment could be made: {exc}") from exc
    constraints = FOLDER / "constraints.txt"
    constraints.write_text("\n".join(shared) + "\n")
    pip = subprocess.run(
        [executable, "-m", "pip", "install", "--quiet", "-c", constraints, *WANTED],
        capture_output=True,
        text=True,
        check=False,
    )
    if pip.returncode != 0:
        raise FalMissing(last_line(pip.stderr))
    stamp.write_text(made_for)
    return str(executable)


def version(executable: str, site: Path | None) -> str:
    """Return fal's version."""
    asked = "import importlib.metadata; print(importlib.metadata.version('fal'))"
    env = environment(executable, [site] if site else [])
    told = subprocess.run([executable, "-c", asked], capture_output=True, text=True, check=False, env=env)
    if told.returncode != 0:
        raise FalMissing(f"{site or FOLDER}: {last_line(told.stderr)}")
    return told.stdout.strip()


def last_line(text: str) -> str:
    """Return what a tool said last."""
    return next(reversed(text.strip().splitlines()), "it said nothing")
