"""Where an object store is, and whether it stores.

No part of the product's storage (that is ``stoker.storage``): the launchers and the doctor ask it whether an S3
endpoint can be used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PROBE_KEY = ".stoker-probe"


@dataclass(frozen=True)
class S3Address:
    """What a client needs to use one bucket."""

    endpoint_url: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str
    region: str


def stores(address: S3Address) -> bool:
    """Whether the bucket takes an object and gives it back. The bucket is made if the store has none of that name."""
    client = connect(address)
    try:
        try:
            client.put_object(Bucket=address.bucket, Key=PROBE_KEY, Body=b"stoker")
        except client.exceptions.NoSuchBucket:
            client.create_bucket(Bucket=address.bucket)
            client.put_object(Bucket=address.bucket, Key=PROBE_KEY, Body=b"stoker")
        return client.get_object(Bucket=address.bucket, Key=PROBE_KEY)["Body"].read() == b"stoker"
    except (BotoCoreError, ClientError):
        return False
    finally:
        client.close()


def connect(address: S3Address) -> S3Client:
    """A client that works with every S3 we know of; short-tempered, as a probe should be."""
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=2,
        read_timeout=10,
        retries={"total_max_attempts": 1},
        proxies={},
    )
    return boto3.client(
        "s3",
        endpoint_url=address.endpoint_url,
        aws_access_key_id=address.access_key,
        aws_secret_access_key=address.secret_key,
        region_name=address.region,
        config=config,
    )
