"""Engines of the user's own, named in the environment: are they there, and new enough?

It starts nothing. ``stoker.local.engines`` and the doctor call it.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
import redis

from stoker.errors import EngineError
from stoker.local.binaries import POSTGRES, dotted, version_tuple
from stoker.local.s3 import S3Address, stores

REDIS_MINIMUM = (6, 2)  # XAUTOCLAIM, stream trimming by id


def libpq_url(url: str) -> str:
    """``url`` without the driver that SQLAlchemy's users write into it."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def check_postgres(url: str) -> str:
    """The version of the server at ``url``."""
    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            number = connection.info.server_version
    except psycopg.Error as exc:
        raise EngineError(
            f"DATABASE_URL names a PostgreSQL that cannot be used: {str(exc).strip()}",
            hint="Correct DATABASE_URL (postgresql://user:password@host:port/database), or unset it to use ours.",
        ) from exc
    version = (number // 10000, number % 10000)
    if version < POSTGRES.minimum:
        raise EngineError(
            f"DATABASE_URL names PostgreSQL {dotted(version)}; Stoker needs {dotted(POSTGRES.minimum)} or newer",
            hint="Use a newer server, or unset DATABASE_URL to use the embedded one.",
        )
    return dotted(version)


def check_redis(url: str) -> str:
    """The version of the server at ``url``: Valkey's own where it is one."""
    client = redis.Redis.from_url(url, socket_connect_timeout=10, socket_timeout=10)
    try:
        info = client.info("server")
    except (redis.RedisError, ValueError) as exc:
        raise EngineError(
            f"REDIS_URL names a Redis that cannot be used: {exc}",
            hint="Correct REDIS_URL (redis://:password@host:port/0), or unset it to use the embedded one.",
        ) from exc
    finally:
        client.close()
    compatible = str(info["redis_version"])
    if version_tuple(compatible) < REDIS_MINIMUM:
        raise EngineError(
            f"REDIS_URL names Redis {compatible}; Stoker needs {dotted(REDIS_MINIMUM)} or newer",
            hint="Use a newer server, or unset REDIS_URL to use the embedded one.",
        )
    return str(info.get("valkey_version", compatible))


def s3_address(environ: Mapping[str, str]) -> S3Address:
    """The object store that S3_ENDPOINT_URL and its companions name."""
    missing = [name for name in ("S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY") if not environ.get(name)]
    if missing:
        raise EngineError(
            f"S3_ENDPOINT_URL is set, {' and '.join(missing)} not",
            hint="Set S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY and S3_BUCKET, or unset S3_ENDPOINT_URL to use ours.",
        )
    return S3Address(
        endpoint_url=environ["S3_ENDPOINT_URL"],
        access_key=environ["S3_ACCESS_KEY_ID"],
        secret_key=environ["S3_SECRET_ACCESS_KEY"],
        bucket=environ.get("S3_BUCKET", "outputs"),
        region=environ.get("S3_REGION", "us-east-1"),
    )


def check_s3(address: S3Address) -> None:
    """Store an object and read it back."""
    if not stores(address):
        raise EngineError(
            f"the bucket {address.bucket!r} at {address.endpoint_url} does not take and give an object",
            hint="Check S3_ENDPOINT_URL, its two keys and S3_BUCKET, or unset S3_ENDPOINT_URL to use ours.",
        )
