"""Where local data lie, and who may use them now.

A data folder belongs to one running stack at a time (a kernel lock, gone with its holder). PostgreSQL refuses to run as
root, so for root it runs as the user ``nobody``, who must be able to reach its folder. Called by the launchers and the
stack.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from stoker.errors import ConfigurationError, EngineError

NOBODY = 65534
UNUSABLE_HINT = "Was it made by another user? Then chown it, or set STOKER_DATA_DIR to a folder that you may write."


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """STOKER_DATA_DIR, else ``.stoker`` in the current folder."""
    return Path(environ.get("STOKER_DATA_DIR") or ".stoker").expanduser().absolute()


@contextmanager
def usable(data_dir: Path) -> Iterator[None]:
    """Say what the system refuses to do in ``data_dir``.

    Raises:
        ConfigurationError: it cannot be used.
    """
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"the data folder {data_dir} cannot be used: {error.filename or data_dir}: {error.strerror or error}",
            hint=UNUSABLE_HINT,
        ) from error


@contextmanager
def hold(data_dir: Path) -> Iterator[None]:
    """Keep ``data_dir`` for ourselves.

    Raises:
        EngineError: another running process holds it.
        ConfigurationError: it cannot be written.
    """
    with usable(data_dir):
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise EngineError(
            f"another Stoker runs on {data_dir}",
            hint="End it with 'stoker down', or set STOKER_DATA_DIR to another folder.",
        ) from exc
    else:
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        yield
    finally:
        os.close(lock)


def holder(data_dir: Path) -> int | None:
    """The process that holds ``data_dir`` now, if any.

    Raises:
        ConfigurationError: it cannot be looked into.
    """
    with usable(data_dir):
        try:
            with (data_dir / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return int((data_dir / "lock").read_bytes() or b"0") or None
        return None


def postgres_home(data_dir: Path) -> tuple[Path, int | None]:
    """The folder for PostgreSQL's data, and the user that it must run as (None: ourselves).

    ``data_dir/postgres``; where that cannot be reached by ``nobody``, it is a link to a folder under the temporary one.
    """
    home = data_dir / "postgres"
    if os.geteuid() != 0:
        home.mkdir(mode=0o700, exist_ok=True)
        return home, None
    if not is_open(data_dir):
        if home.is_dir() and not home.is_symlink():
            raise EngineError(
                f"PostgreSQL runs as the user nobody, who can no longer reach {home}",
                hint=f"Make {data_dir} and the folders above it passable (chmod o+x), or set STOKER_DATA_DIR.",
            )
        if not home.is_dir():  # none yet, or the temporary folder was emptied
            home.unlink(missing_ok=True)
            home.symlink_to(_open_temporary_folder())
        home = home.resolve()
    home.mkdir(exist_ok=True)
    home.chmod(0o711)
    data = home / "data"
    # What an ordinary user began, root goes on with as that user: PostgreSQL wants to own its data.
    return home, (data.stat().st_uid if data.exists() else NOBODY)


def discard(data_dir: Path) -> None:
    """Remove ``data_dir`` with all it holds, PostgreSQL's folder elsewhere too. Nobody may hold it."""
    home = data_dir / "postgres"
    if home.is_symlink():
        shutil.rmtree(home.resolve(), ignore_errors=True)
    shutil.rmtree(data_dir)


def is_open(path: Path) -> bool:
    """Whether every user may pass through ``path`` and all folders above it."""
    path = path.resolve()
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def _open_temporary_folder() -> Path:
    for parent in (Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/tmp")):  # noqa: S108 (mkdtemp below)
        if parent.is_dir() and is_open(parent):
            folder = Path(tempfile.mkdtemp(prefix="stoker-postgres-", dir=parent))
            folder.chmod(0o711)
            return folder
    raise EngineError(
        "PostgreSQL cannot run as root, and no folder can be reached by the user nobody",
        hint="Run as an ordinary user, or set STOKER_DATA_DIR to a folder such as /var/lib/stoker.",
    )


def passwords(data_dir: Path) -> dict[str, str]:
    """The engines' generated passwords, made at the first call and kept in ``data_dir``."""
    file = data_dir / "passwords.json"
    if not file.exists():
        names = ("postgres", "valkey", "s3_access_key", "s3_secret_key")
        write_private(file, {name: secrets.token_hex(20) for name in names})
    kept: dict[str, str] = json.loads(file.read_text())
    return kept


def write_private(file: Path, content: object) -> None:
    """Write JSON that only we may read, whole or not at all."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        json.dump(content, out, indent=2)
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
