"""Refusals of an object store: which of boto3's errors would come again, however often the same is asked.

Pure. ``stoker.storage`` asks.
"""

from __future__ import annotations

from boto3.exceptions import S3UploadFailedError
from botocore import exceptions as boto_errors

BRIEF_REFUSALS = frozenset({"RequestTimeout", "RequestTimeTooSkewed", "Throttling", "OperationAborted"})
"""Codes of answers below 500 that say nothing about what was asked."""


def is_refusal(error: BaseException) -> bool:
    """Whether the same request would fail again: it was refused, or cannot even be written down."""
    match error:
        case S3UploadFailedError():
            return error.__context__ is not None and is_refusal(error.__context__)
        case boto_errors.ClientError():
            code, status = error.response["Error"].get("Code"), error.response["ResponseMetadata"]["HTTPStatusCode"]
            return 400 <= status < 500 and status not in (408, 409, 429) and code not in BRIEF_REFUSALS
        case boto_errors.HTTPClientError():
            return isinstance(error.kwargs.get("error"), ValueError)  # a header that HTTP cannot carry
        case boto_errors.ParamValidationError() | boto_errors.NoCredentialsError():
            return True
    return False
