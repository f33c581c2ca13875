"""Settings from the environment, and logs that keep secrets."""

from __future__ import annotations

import pytest

from stoker.errors import ConfigurationError
from stoker.log import redact
from stoker.settings import ApiSettings, NodeSettings

ENGINES = {
    "DATABASE_URL": "postgresql://stoker:hush@db/stoker",
    "REDIS_URL": "redis://:hush@redis:6379/0",
    "S3_ENDPOINT_URL": "http://s3:8333",
    "S3_ACCESS_KEY_ID": "key",
    "S3_SECRET_ACCESS_KEY": "hush",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*ENGINES, "S3_BUCKET", "S3_PUBLIC_ENDPOINT_URL", "STOKER_PORT", "STOKER_LEASE_S"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_engines_have_their_usual_names_and_the_rest_begins_with_stoker(environment: pytest.MonkeyPatch) -> None:
    for name, value in {**ENGINES, "STOKER_PORT": "9", "STOKER_CORS_ORIGINS": "https://a, https://b"}.items():
        environment.setenv(name, value)

    settings = ApiSettings.load()

    assert (settings.port, settings.s3.bucket, settings.s3.endpoint_url) == (9, "outputs", "http://s3:8333")
    assert settings.s3.public_endpoint_url == "http://s3:8333"
    assert settings.cors_origins == {"https://a", "https://b"}
    assert NodeSettings.load().lease_s == 15


def test_missing_settings_are_named_by_their_variables(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("STOKER_PORT", "many")

    with pytest.raises(ConfigurationError) as raised:
        ApiSettings.load()

    for name in (*ENGINES, "STOKER_PORT"):
        assert name in str(raised.value)
    assert "stoker up" in raised.value.hint


def test_a_setting_does_not_show_its_secrets(environment: pytest.MonkeyPatch) -> None:
    for name, value in ENGINES.items():
        environment.setenv(name, value)

    settings = ApiSettings.load()

    assert "hush" not in f"{settings!r} {settings.s3!r}"


def test_a_log_line_does_not_show_secrets() -> None:
    line = redact(
        None,
        "info",
        {
            "event": "connected to postgresql://stoker:hush@db/stoker",
            "authorization": "Key sk_1:hush",
            "api_key": "hush",
            "url": "redis://:hush@redis:6379/0",
            "job_id": "1",
        },
    )

    assert "hush" not in str(line)
    assert line["job_id"] == "1"
    assert line["event"] == "connected to postgresql://stoker:***@db/stoker"
