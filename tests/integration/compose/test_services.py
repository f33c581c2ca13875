"""Each of our services of docker-compose.yml, run as it stands there, without Docker: its command, its environment and
nothing else, its health check; on embedded engines whose addresses take the place of the service names.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from stoker import ready
from stoker.local.engines import Engines
from stoker.local.part import read_line
from stoker.local.ports import free_ports
from tests.integration.compose import compose_file
from tests.support.databases import fresh_database

SECRETS = ("POSTGRES_PASSWORD", "VALKEY_PASSWORD", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY")
HEALTHY_S = 30


class Compose:
    """The file's services on this machine."""

    def __init__(self, engines: Engines, database_url: str, folder: Path) -> None:
        secrets = {name: f"secret-{name}" for name in SECRETS}
        self.services: dict[str, Any] = compose_file.read(secrets)["services"]
        self.folder = folder
        self.port = str(free_ports(1)[0])
        # What is true in the file, and what it is here. Longest first: one may be part of another.
        self._places = {
            "postgresql://stoker:secret-POSTGRES_PASSWORD@postgres:5432/stoker": database_url,
            "redis://:secret-VALKEY_PASSWORD@valkey:6379/0": engines.redis_url,
            "http://seaweedfs:8333": engines.s3.endpoint_url,
            "http://127.0.0.1:8333": engines.s3.endpoint_url,
            "http://127.0.0.1:8000": f"http://127.0.0.1:{self.port}",
            "secret-S3_SECRET_ACCESS_KEY": engines.s3.secret_key,
            "secret-S3_ACCESS_KEY_ID": engines.s3.access_key,
            "/opt/stoker/health.py": str(compose_file.ROOT / "infra" / "health.py"),
            "/var/lib/stoker": str(folder / "data"),
        }

    def environment(self, name: str) -> dict[str, str]:
        given = {key: self._here(str(value)) for key, value in self.services[name]["environment"].items()}
        if name == "api":
            given |= {"STOKER_PORT": self.port, "STOKER_HOST": "127.0.0.1"}
        if "STOKER_METRICS_PORT" in given:
            given |= {"STOKER_METRICS_PORT": str(free_ports(1)[0]), "STOKER_METRICS_HOST": "127.0.0.1"}
        # All that an image adds is a path. HOME must not matter.
        return given | {"PATH": os.environ["PATH"]}

    def command(self, words: list[str]) -> list[str]:
        return [sys.executable if word == "python" else self._here(str(word)) for word in words]

    @contextmanager
    def running(self, name: str) -> Iterator[dict[str, Any]]:
        """The service from the moment it says that it is ready; it must end well on SIGTERM."""
        reader, writer = os.pipe()
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                self.command(self.services[name]["command"]),
                cwd=self.folder,
                env=self.environment(name) | {ready.VARIABLE: str(writer)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(writer,),
            )
        os.close(writer)
        try:
            line = read_line(reader, 120)
            assert line, (self.folder / f"{name}.log").read_text()[-3000:]
            yield json.loads(line)
            process.send_signal(signal.SIGTERM)
            # uvicorn shuts down in order, then passes the signal on to itself.
            assert process.wait(60) in (0, -signal.SIGTERM), (self.folder / f"{name}.log").read_text()[-3000:]
        finally:
            process.kill()
            process.wait()

    def health(self, name: str) -> subprocess.CompletedProcess[str]:
        """One run of the service's health check."""
        form, *words = self.services[name]["healthcheck"]["test"]
        assert form == "CMD"
        return subprocess.run(
            self.command(words),
            cwd=self.folder,
            env=self.environment(name),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def becomes_healthy(self, name: str) -> bool:
        """Ask again, as Docker does, for a while."""
        deadline = time.monotonic() + HEALTHY_S
        while (checked := self.health(name)).returncode and time.monotonic() < deadline:
            pass
        assert checked.returncode == 0, checked.stderr
        return True

    def _here(self, text: str) -> str:
        for there, here in self._places.items():
            text = text.replace(there, here)
        return text


@pytest.fixture
def compose(engines: Engines, tmp_path: Path) -> Iterator[Compose]:
    with fresh_database(engines) as database_url:
        yield Compose(engines, database_url, tmp_path)


def test_migrate_makes_the_schema_and_ends(engines: Engines, tmp_path: Path):
    with fresh_database(engines, migrated=False) as database_url:
        compose = Compose(engines, database_url, tmp_path)
        done = subprocess.run(
            compose.command(compose.services["migrate"]["command"]),
            cwd=tmp_path,
            env=compose.environment("migrate"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        with psycopg.connect(database_url) as connection:
            assert connection.execute("select count(*) from v_queue_depth").fetchone() == (0,)


@pytest.mark.parametrize("name", ["api", "control", "node"])
def test_a_service_starts_as_the_file_says_is_healthy_while_it_runs_and_ends_on_sigterm(name: str, compose: Compose):
    assert compose.health(name).returncode != 0

    with compose.running(name):
        assert compose.becomes_healthy(name)

    assert compose.health(name).returncode != 0
