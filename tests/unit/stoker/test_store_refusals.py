"""Which errors of an object store are worth another try."""

from __future__ import annotations

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError, ReadTimeoutError

from stoker.store_refusals import is_refusal


def answer(status: int, code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


def of_an_upload(cause: ClientError) -> S3UploadFailedError:
    try:
        try:
            raise cause
        except ClientError as error:
            raise S3UploadFailedError(str(error))  # noqa: B904 - as boto3 does
    except S3UploadFailedError as failed:
        return failed


@pytest.mark.parametrize(
    "error",
    [
        answer(403, "AccessDenied"),
        answer(404, "NoSuchBucket"),
        answer(400, "InvalidArgument"),
        of_an_upload(answer(403, "AccessDenied")),
        HTTPClientError(error=ValueError("Invalid header value")),
    ],
)
def test_what_would_be_refused_again_is_a_refusal(error: Exception) -> None:
    assert is_refusal(error)


@pytest.mark.parametrize(
    "error",
    [
        answer(500, "InternalError"),
        answer(503, "SlowDown"),
        answer(429, "TooManyRequests"),
        answer(400, "RequestTimeout"),
        answer(403, "RequestTimeTooSkewed"),
        of_an_upload(answer(503, "SlowDown")),
        EndpointConnectionError(endpoint_url="http://store"),
        ReadTimeoutError(endpoint_url="http://store"),
        HTTPClientError(error=OSError("reset")),
    ],
)
def test_what_may_pass_is_none(error: Exception) -> None:
    assert not is_refusal(error)
