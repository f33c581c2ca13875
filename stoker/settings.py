"""Settings: what each process reads from its environment.

Read only at entry points (API, control loop, node, migrations, command line) by ``X.load()``, handed down from there.
Engines have their usual names (DATABASE_URL, REDIS_URL, S3_*), everything else begins with ``STOKER_``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from stoker.crash_points import CrashAt
from stoker.errors import ConfigurationError

Days = Annotated[float | None, Field(gt=0, le=36_600)]
"""How long something is kept at most; None is for ever."""
Names = Annotated[frozenset[str], NoDecode]
"""A comma separated list."""


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Where objects are stored. ``public_endpoint_url`` is the one that callers can reach: presigned links name it."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    bucket: str
    region: str
    public_endpoint_url: str

    def __repr__(self) -> str:
        return f"S3Settings({self.endpoint_url!r}, bucket={self.bucket!r})"


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="STOKER_", populate_by_name=True, extra="ignore", frozen=True, env_ignore_empty=True
    )

    log_format: Literal["auto", "json", "text"] = "auto"
    testing: bool = False
    crash_at: Annotated[CrashAt | None, NoDecode] = Field(default=None, description="Where to die, in tests.")

    @field_validator("crash_at", mode="before")
    @classmethod
    def _only_in_tests(cls, value: object, info: ValidationInfo) -> object:
        if value is not None and not info.data.get("testing"):
            raise ValueError("only for tests, which set STOKER_TESTING=1")
        return CrashAt.parse(value) if isinstance(value, str) else value

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises:
            ConfigurationError: a setting is missing or wrong; the message names each by its environment variable.
        """
        try:
            return cls()
        except ValidationError as error:
            wrong = "; ".join(f"{_variable(cls, entry['loc'])}: {entry['msg']}" for entry in error.errors())
            raise ConfigurationError(
                f"settings cannot be used: {wrong}",
                hint="'stoker up' starts the engines and sets these variables; docs/operating.md lists them all.",
            ) from error


class EngineSettings(_Settings):
    """The three engines."""

    database_url: str = Field(validation_alias="DATABASE_URL", repr=False)
    redis_url: str = Field(validation_alias="REDIS_URL", repr=False)
    progress_redis_url: str | None = Field(
        default=None, repr=False, description="A Redis of its own for progress and previews. Default: REDIS_URL."
    )
    s3_endpoint_url: str = Field(validation_alias="S3_ENDPOINT_URL")
    s3_access_key_id: str = Field(validation_alias="S3_ACCESS_KEY_ID", repr=False)
    s3_secret_access_key: str = Field(validation_alias="S3_SECRET_ACCESS_KEY", repr=False)
    s3_bucket: str = Field(default="outputs", validation_alias="S3_BUCKET")
    s3_region: str = Field(default="us-east-1", validation_alias="S3_REGION")
    s3_public_endpoint_url: str | None = Field(default=None, validation_alias="S3_PUBLIC_ENDPOINT_URL")
    public_url: str | None = Field(default=None, description="Where callers reach the API: the base of every link.")
    look_s: float = Field(default=2.0, gt=0, description="How often Postgres is asked what Redis may not have said.")

    @property
    def s3(self) -> S3Settings:
        return S3Settings(
            endpoint_url=self.s3_endpoint_url,
            access_key_id=self.s3_access_key_id,
            secret_access_key=self.s3_secret_access_key,
            bucket=self.s3_bucket,
            region=self.s3_region,
            public_endpoint_url=self.s3_public_endpoint_url or self.s3_endpoint_url,
        )


WEBHOOK_ALLOWED_HOSTS: frozenset[str] = Field(
    default=frozenset(), description="Hosts that webhooks may reach although they are private or without TLS."
)
"""The control loop asks before it calls one, the API before it accepts a job that names one."""


WEBHOOK_PAUSES_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0)
"""Ten tries in about sixteen hours: a receiver may be away for a night."""
WEBHOOK_TIMEOUT_S = 15.0


class ApiSettings(EngineSettings):
    """The API."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535, description="0 takes a free port.")
    max_body_bytes: int = Field(default=5_000_000, gt=0, description="Of any request but an upload.")
    max_upload_bytes: int = Field(default=5_000_000_000, gt=0, description="Of one uploaded file.")
    ping_s: float = Field(default=15.0, gt=0, description="A quiet stream sends a comment this often.")
    cors_origins: Names = Field(default=frozenset(), description="Browser origins that may call the API.")
    tls_certificate: Path | None = Field(default=None, description="Serve https with it, and with tls_key.")
    tls_key: Path | None = None
    metrics_age_s: float = Field(
        default=10.0, ge=0, description="Open jobs are counted for /metrics this often at most."
    )
    webhook_allowed_hosts: Names = WEBHOOK_ALLOWED_HOSTS

    _split = field_validator("cors_origins", "webhook_allowed_hosts", mode="before")(lambda value: _split_names(value))


class ShownSettings(EngineSettings):
    """What serves no HTTP of its own but its metrics."""

    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65535, description="Where /metrics is served; 0 is nowhere.")


class ControlSettings(ShownSettings):
    """The control loop."""

    reap_s: float = Field(default=0.5, gt=0)
    webhook_allowed_hosts: Names = WEBHOOK_ALLOWED_HOSTS
    webhook_pauses_s: Annotated[tuple[Annotated[float, Field(gt=0)], ...], NoDecode] = Field(
        default=WEBHOOK_PAUSES_S, description="Seconds between the tries of a webhook, one number a pause."
    )
    webhook_timeout_s: float = Field(default=WEBHOOK_TIMEOUT_S, gt=0, description="Until a receiver must answer.")
    keep_jobs_days: Days = Field(default=None, description="Final jobs older than this are deleted.")
    keep_payloads_days: Days = Field(default=None, description="Inputs and results, from their job's end on.")
    keep_outputs_days: Days = Field(default=None, description="Outputs, from their job's end on.")
    keep_events_days: Days = Field(default=None, description="Events but the last, from their job's end on.")
    keep_deliveries_days: Days = Field(default=None, description="What webhooks were answered, likewise.")
    keep_files_days: Days = Field(default=None, description="Uploaded files, from their upload on.")
    keep_audit_days: Days = Field(default=None, description="Acts of admins.")
    keep_unstored_s: float = Field(
        default=3600.0, gt=0, description="How long the result is there of a job that is not to be stored."
    )

    _split = field_validator("webhook_allowed_hosts", mode="before")(lambda value: _split_names(value))

    @field_validator("webhook_pauses_s", mode="before")
    @classmethod
    def _each(cls, value: object) -> object:
        return value.split(",") if isinstance(value, str) else value


class NodeSettings(ShownSettings):
    """A node."""

    data_dir: Path = Path(".stoker")
    node_id: str | None = Field(default=None, description="Stable over restarts. Default: kept in the data folder.")
    lease_s: float = Field(default=15.0, gt=0)
    heartbeat_s: float = Field(default=3.0, gt=0)
    slots: int | None = Field(default=None, ge=1, description="Without GPUs: how many ranks. Default: enough for all.")
    yield_after_s: float = Field(
        default=30.0, ge=0, description="How long a job may wait for slots that another app keeps busy."
    )
    most_waiting: int = Field(
        default=200, ge=1, description="How many jobs of an app may wait for their children before only children begin."
    )
    ahead_below_s: float = Field(
        default=0.05, ge=0, description="After jobs that run for less the next but one is claimed ahead; 0: never."
    )
    alone_s: float = Field(
        default=5.0, ge=0, description="How long a waiting job whose app's process died under several is served alone."
    )
    fetch_allowed_hosts: Names = Field(
        default=frozenset(), description="Hosts that an input's links may name although they are private."
    )

    _split = field_validator("fetch_allowed_hosts", mode="before")(lambda value: _split_names(value))


def _split_names(value: object) -> object:
    return frozenset(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


def _variable(settings: type[_Settings], place: tuple[int | str, ...]) -> str:
    name = str(place[0]) if place else ""
    return f"STOKER_{name.upper()}" if name in settings.model_fields else name
