"""The doctor: what it finds, and that its exit code says whether Stoker can work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stoker.errors import ConfigurationError
from stoker.local import background
from stoker.local.doctor import examine
from stoker.local.engines import Engines
from stoker.local.stack import Options


def test_a_machine_with_all_that_is_needed_has_nothing_wrong(own_environ: dict[str, str], data_dir: Path) -> None:
    findings = {finding.name: finding for finding in examine(own_environ | {"STOKER_DATA_DIR": str(data_dir)})}

    assert not [finding for finding in findings.values() if finding.is_wrong]
    assert findings["postgres"].found.startswith("PostgreSQL 18.")
    assert findings["valkey"].found.startswith("Valkey 9.")
    assert findings["seaweedfs"].found.startswith("SeaweedFS 4.")
    assert findings["local stack"].found == "not running"


def test_what_is_missing_is_named_with_a_hint_and_an_exit_code(own_environ: dict[str, str]) -> None:
    doctor = subprocess.run(
        [sys.executable, "-m", "stoker", "doctor", "--json"],
        env=own_environ | {"STOKER_VALKEY_BIN": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    wrong = [finding for finding in json.loads(doctor.stdout) if finding["level"] == "wrong"]
    assert doctor.returncode == 1
    assert [finding["name"] for finding in wrong] == ["valkey"]
    assert "STOKER_VALKEY_BIN" in wrong[0]["hint"]


def test_engines_of_the_users_own_are_said_with_their_versions(own_environ: dict[str, str], engines: Engines) -> None:
    found = {finding.name: finding.found for finding in examine(own_environ | engines.environment())}

    assert found["postgres"].startswith("PostgreSQL 18.")
    assert "DATABASE_URL" in found["postgres"]
    assert "9." in found["valkey"]
    assert engines.s3.endpoint_url in found["seaweedfs"]
    assert engines.s3.secret_key not in str(found)


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_data_folder_that_cannot_be_used_is_a_finding_and_not_a_crash(
    own_environ: dict[str, str], tmp_path: Path, below: str
) -> None:
    (tmp_path / "file").touch()

    findings = examine(own_environ | {"STOKER_DATA_DIR": f"{tmp_path}/file{below}"})

    wrong = [finding for finding in findings if finding.is_wrong]
    assert [finding.name for finding in wrong] == ["data folder"]
    assert "STOKER_DATA_DIR" in wrong[0].hint


def test_no_stack_starts_on_a_data_folder_that_cannot_be_used(own_environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="cannot be used"):
        background.up(Options(data_dir=tmp_path / "file", environ=own_environ))
