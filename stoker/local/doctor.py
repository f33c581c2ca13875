"""What this machine has of what Stoker needs, and what to do about the rest.

It changes nothing and starts nothing that stays. ``stoker doctor`` shows it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from stoker.errors import ConfigurationError, EngineError
from stoker.local import external, place
from stoker.local.binaries import KINDS, find
from stoker.local.engines import REPLACED_BY
from stoker.local.ports import free_ports

NEEDED_PYTHON = (3, 11)
NEEDED_DISK_GB = 2
SHOWN_TORCH = "import torch; print(torch.__version__, torch.cuda.device_count(), torch.version.cuda or '')"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``wrong`` keeps Stoker from working, ``note`` does not."""

    name: str
    found: str
    level: Literal["ok", "note", "wrong"] = "ok"
    hint: str = ""

    @property
    def is_wrong(self) -> bool:
        return self.level == "wrong"

    @property
    def mark(self) -> str:
        return {"ok": "ok", "note": "--", "wrong": "!!"}[self.level]

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def examine(environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """Look at everything."""
    data_dir = place.default_data_dir(environ)
    return [
        _python(),
        _kernel(),
        *_engines(environ),
        *_torch(environ),
        _gpus(environ),
        _data(data_dir),
        _disk(data_dir),
        _ports(),
        _stack(data_dir),
    ]


def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < NEEDED_PYTHON:
        return Finding("python", found, "wrong", "Stoker needs Python 3.11 or newer.")
    return Finding("python", found)


def _kernel() -> Finding:
    release = platform.release()
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return Finding("kernel", f"{platform.system()} {release}", "wrong", "The local stack needs Linux 5.3 or newer.")
    return Finding("kernel", f"Linux {release}")


def _engines(environ: Mapping[str, str]) -> Iterator[Finding]:
    for kind in KINDS:
        variable = REPLACED_BY[kind.role]
        try:
            if environ.get(variable):
                yield Finding(kind.role, f"{_replaced(kind.role, environ)} (your own, from {variable})")
            else:
                binary = find(kind, environ)
                yield Finding(kind.role, f"{kind.title} {binary.version} from {binary.source}: {binary.path}")
        except EngineError as error:
            yield Finding(kind.role, str(error), "wrong", error.hint)


def _replaced(role: str, environ: Mapping[str, str]) -> str:
    match role:
        case "postgres":
            return f"PostgreSQL {external.check_postgres(external.libpq_url(environ['DATABASE_URL']))}"
        case "valkey":
            return f"Redis or Valkey {external.check_redis(environ['REDIS_URL'])}"
        case _:
            address = external.s3_address(environ)
            external.check_s3(address)
            return f"S3 at {address.endpoint_url}, bucket {address.bucket}"


def _torch(environ: Mapping[str, str]) -> Iterator[Finding]:
    for name in ("torch", "diffusers"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(
                name, "not installed", "note", "Only nodes need it: pip install -c constraints.txt -e '.[node]'"
            )
            continue
        if name == "torch":
            # In a process of its own: this package must work, and stay light, where torch is broken or missing.
            shown = _output([sys.executable, "-c", SHOWN_TORCH], environ)
            if shown is None:
                yield Finding(name, f"{version} cannot be imported", "wrong", "Try: python -c 'import torch'")
                continue
            built, gpus, cuda = (*shown.split(" "), "")[:3]
            version = f"{built}, {'CUDA ' + cuda if cuda else 'CPU'} build, sees {gpus} GPUs"
        yield Finding(name, version)


def _gpus(environ: Mapping[str, str]) -> Finding:
    listed = _output(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"], environ)
    if not listed:
        return Finding("gpus", "none: ranks run on the CPU (gloo)", "note")
    return Finding("gpus", "; ".join(listed.splitlines()))


def _data(data_dir: Path) -> Finding:
    existing = _existing(data_dir)
    # A lock of another user's is refused although the folder may be written.
    used = [existing, *(path for path in (data_dir / "lock",) if _exists(path))]
    if not existing.is_dir() or not all(os.access(path, os.W_OK | os.R_OK) for path in used):
        return Finding("data folder", f"{data_dir} cannot be used", "wrong", place.UNUSABLE_HINT)
    try:
        place.holder(data_dir)
    except ConfigurationError as error:
        return Finding("data folder", str(error), "wrong", error.hint)
    if os.geteuid() == 0 and not place.is_open(existing):
        return Finding(
            "data folder",
            f"{data_dir}; PostgreSQL's part in a folder under the temporary one",
            "note",
            "The user nobody, as whom root's PostgreSQL runs, cannot reach it. STOKER_DATA_DIR may name another.",
        )
    return Finding("data folder", str(data_dir))


def _existing(path: Path) -> Path:
    """What there is of ``path`` already."""
    return next(each for each in (path, *path.parents) if _exists(each))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder above may not be entered
        return False


def _disk(data_dir: Path) -> Finding:
    free_gb = shutil.disk_usage(_existing(data_dir)).free / 1e9
    if free_gb < NEEDED_DISK_GB:
        return Finding("disk", f"{free_gb:.1f} GB free", "wrong", f"Stoker needs {NEEDED_DISK_GB} GB; make room.")
    return Finding("disk", f"{free_gb:.0f} GB free")


def _ports() -> Finding:
    try:
        free_ports(12)
    except (IndexError, OSError) as exc:
        return Finding("ports", f"cannot be bound: {exc}", "wrong", "The stack needs free ports on 127.0.0.1.")
    return Finding("ports", "free ones on 127.0.0.1")


def _stack(data_dir: Path) -> Finding:
    try:
        head = place.holder(data_dir)
    except ConfigurationError:  # the data folder's finding says it
        return Finding("local stack", "not known: the data folder cannot be used", "note")
    return Finding("local stack", "not running" if head is None else f"runs, process {head}")


def _output(command: list[str], environ: Mapping[str, str]) -> str | None:
    """What ``command`` writes; None where it is missing or fails."""
    try:
        done = subprocess.run(
            command, env=dict(environ), capture_output=True, text=True, timeout=60, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
