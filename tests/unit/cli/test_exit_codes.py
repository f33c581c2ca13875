"""How the command line ends: its exit codes, and an error and a hint on standard error."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stoker.cli import fault
from stoker.errors import (
    AppError,
    ConfigurationError,
    NotFound,
    StokerError,
    StorageUnavailable,
    Unauthenticated,
    Unavailable,
)

FOREIGN = ("STOKER_", "DATABASE_URL", "REDIS_URL", "S3_")


def stoker(*arguments: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in ``folder`` without what this process's environment would tell it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return subprocess.run(
        [sys.executable, "-m", "stoker", *arguments],
        cwd=folder,
        env={**clean, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("x"), fault.USAGE),
        (Unauthenticated("x"), fault.USAGE),
        (ConfigurationError("x"), fault.USAGE),
        (Unavailable("x"), fault.UNREACHABLE),
        (StorageUnavailable("x"), fault.UNREACHABLE),
        (AppError("x"), fault.FAILED),
        (StokerError("x"), fault.FAILED),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: StokerError, code: int):
    assert fault.exit_code(error) == code


def test_an_api_that_is_not_there_ends_with_3_and_a_hint(tmp_path: Path, closed_port: int):
    ended = stoker("status", "x", "--api-url", f"http://127.0.0.1:{closed_port}", "--api-key", "a:b", folder=tmp_path)

    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.splitlines()[0].startswith(f"error: no API answers at http://127.0.0.1:{closed_port}")
    assert ended.stderr.splitlines()[1].startswith("hint: ")


def test_events_of_an_api_that_is_not_there_end_at_once_too(tmp_path: Path, closed_port: int):
    ended = stoker("events", "x", "--api-url", f"http://127.0.0.1:{closed_port}", "--api-key", "a:b", folder=tmp_path)

    assert ended.returncode == 3


def test_a_database_that_is_not_there_ends_with_3_and_a_hint(tmp_path: Path, closed_port: int):
    ended = stoker("keys", "list", folder=tmp_path, DATABASE_URL=f"postgresql://a:b@127.0.0.1:{closed_port}/x")

    assert (ended.returncode, ended.stdout) == (3, "")
    assert "hint: Check DATABASE_URL" in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("sumbit",),
        ("submit",),
        ("submit", "a/b", "-i", "nonsense", "--api-url", "http://x", "--api-key", "a:b"),
        ("status", "x"),
        ("keys", "create"),
        ("migrate",),
        ("jobs", "--state", "lost"),
    ],
)
def test_a_wrong_command_ends_with_2_and_a_hint(arguments: tuple[str, ...], tmp_path: Path):
    ended = stoker(*arguments, folder=tmp_path)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: ")
    assert "\nhint: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_help_names_every_command(tmp_path: Path):
    shown = stoker("--help", folder=tmp_path)

    verbs = "demo up down doctor api control node migrate submit status events result cancel jobs apps"
    verbs += " nodes keys tenants queues"
    assert shown.returncode == 0
    assert all(f"  {verb} " in shown.stdout for verb in verbs.split())
