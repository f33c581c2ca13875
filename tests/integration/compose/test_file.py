"""What docker-compose.yml promises: no default secrets, loopback alone, no rights that are not needed."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.compose import compose_file

OURS = ("migrate", "api", "control", "node")
ENGINES = ("postgres", "valkey", "seaweedfs")
SECRETS = {"POSTGRES_PASSWORD", "VALKEY_PASSWORD", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = compose_file.read({name: f"secret-{name}" for name in SECRETS})["services"]
    return found


def test_the_services_are_three_engines_and_our_four_parts(services: dict[str, Any]):
    assert set(services) == {*ENGINES, *OURS}


def test_every_secret_is_required_and_none_has_a_default():
    assert compose_file.required() == SECRETS
    for name in SECRETS:
        with pytest.raises(KeyError, match=name):
            compose_file.read(dict.fromkeys(SECRETS - {name}, "x"))


def test_no_password_stands_in_the_file(services: dict[str, Any]):
    given = {
        f"{service}.{name}": str(value)
        for service, described in services.items()
        for name, value in described.get("environment", {}).items()
        if re.search(r"PASSWORD|SECRET|ACCESS_KEY|DATABASE_URL|REDIS_URL", name)
    }

    assert given
    assert [name for name, value in given.items() if "secret-" not in value] == []


def test_every_published_port_is_on_loopback(services: dict[str, Any]):
    ports = [port for described in services.values() for port in described.get("ports", [])]

    assert len(ports) == 2
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", OURS)
def test_our_processes_have_no_rights_that_they_do_not_need(name: str, services: dict[str, Any]):
    described = services[name]
    dockerfile = (compose_file.ROOT / described["build"]["dockerfile"]).read_text()

    assert described["read_only"] is True
    assert described["cap_drop"] == ["ALL"]
    assert "cap_add" not in described
    assert "no-new-privileges:true" in described["security_opt"]
    assert re.findall(r"^USER (\w+)$", dockerfile, re.MULTILINE)[-1] not in ("root", "0")


@pytest.mark.parametrize("name", ENGINES)
def test_engines_drop_their_capabilities_too(name: str, services: dict[str, Any]):
    assert services[name]["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in services[name]["security_opt"]


def test_every_service_that_stays_has_a_health_check(services: dict[str, Any]):
    assert [name for name in services if name != "migrate" and "healthcheck" not in services[name]] == []


def test_nothing_of_ours_starts_before_the_schema_is_there(services: dict[str, Any]):
    for name in ("api", "control", "node"):
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_the_node_reserves_gpus(services: dict[str, Any]):
    devices = services["node"]["deploy"]["resources"]["reservations"]["devices"]

    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]


def test_the_object_store_tells_nobody_of_its_existence(services: dict[str, Any]):
    assert "-master.telemetry=false" in services["seaweedfs"]["command"]


def test_the_script_makes_just_the_secrets_that_are_required(tmp_path: Path):
    script, file = compose_file.ROOT / "infra" / "env.sh", tmp_path / ".env"

    made = subprocess.run(["sh", script, file], capture_output=True, text=True, check=True)
    again = subprocess.run(["sh", script, file], capture_output=True, text=True, check=False)

    values = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert set(values) == SECRETS
    assert len(set(values.values())) == len(SECRETS)
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in values.values())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not any(value in made.stderr for value in values.values())
    assert again.returncode == 1
    assert "hint: " in again.stderr
    assert dict(line.split("=", 1) for line in file.read_text().splitlines()) == values


@pytest.mark.parametrize("name", OURS)
def test_an_image_holds_what_its_command_imports(name: str, services: dict[str, Any]):
    described = services[name]
    dockerfile = (compose_file.ROOT / described["build"]["dockerfile"]).read_text()
    ignore = (compose_file.ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY ([^-].*) \S+$", dockerfile, re.MULTILINE)
    sources = [source for line in copied for source in line.split()]

    assert described["command"][:2] == ["python", "-m"]
    assert described["command"][2].partition(".")[0] in sources
    assert [source for source in sources if not (compose_file.ROOT / source).exists()] == []
    assert [source for source in sources if f"!{source}" not in ignore] == []
