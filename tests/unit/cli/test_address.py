"""Where a command finds the API: option, environment, local stack, in this order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stoker.cli.address import Address, find_api, find_database
from stoker.errors import ConfigurationError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("STOKER_API_URL", "STOKER_API_KEY", "STOKER_DATA_DIR", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start_stack(folder: Path) -> None:
    state = folder / ".stoker" / "state.json"
    state.parent.mkdir()
    stack = {"api_url": "http://127.0.0.1:1111", "api_key": "sk_stack:s", "database_url": "postgresql://stack"}
    state.write_text(json.dumps(stack))


def test_the_local_stack_is_used_where_nothing_else_is_named(folder: Path):
    start_stack(folder)

    assert find_api(None, None) == Address("http://127.0.0.1:1111", "sk_stack:s")
    assert find_database() == "postgresql://stack"


def test_the_environment_goes_before_the_local_stack(folder: Path, monkeypatch: pytest.MonkeyPatch):
    start_stack(folder)
    monkeypatch.setenv("STOKER_API_URL", "https://stoker.example/")
    monkeypatch.setenv("STOKER_API_KEY", "sk_env:s")
    monkeypatch.setenv("DATABASE_URL", "postgresql://env")

    assert find_api(None, None) == Address("https://stoker.example", "sk_env:s")
    assert find_database() == "postgresql://env"


def test_an_option_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STOKER_API_URL", "https://stoker.example")
    monkeypatch.setenv("STOKER_API_KEY", "sk_env:s")

    assert find_api("http://other", "sk_option:s") == Address("http://other", "sk_option:s")


def test_the_stacks_key_is_never_sent_to_an_address_that_was_named(folder: Path):
    start_stack(folder)

    with pytest.raises(ConfigurationError, match=r"no key for https://elsewhere\.example"):
        find_api("https://elsewhere.example", None)


def test_a_missing_address_says_how_to_get_one():
    with pytest.raises(ConfigurationError) as missing:
        find_api(None, None)

    assert "stoker up" in missing.value.hint
