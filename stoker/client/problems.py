"""From what went wrong on the wire to exceptions of ``stoker.errors``. Called by the client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from stoker import errors
from stoker.errors import InvalidInput, StokerError, Unavailable

BY_CODE: dict[str, type[StokerError]] = {
    kind.code: kind
    for kind in (
        errors.InvalidRequest,
        errors.PayloadTooLarge,
        errors.IdempotencyConflict,
        errors.InvalidFile,
        errors.Unauthenticated,
        errors.Forbidden,
        errors.NotFound,
        errors.UnknownApp,
        errors.Gone,
        errors.PayloadRemoved,
        errors.OutputsRemoved,
        errors.Conflict,
        errors.QueueFull,
        errors.Unavailable,
        errors.StorageUnavailable,
        errors.StorageRefused,
    )
}


class Unreachable(Unavailable):
    """No API answers at the address."""

    code, title = "unreachable", "The API cannot be reached"
    hint = "Is it running? 'stoker up --detach' starts a local stack; STOKER_API_URL or --api-url names another."


@contextmanager
def reaching(base_url: str) -> Iterator[None]:
    """Turn what the network throws into Unreachable."""
    try:
        yield
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        raise Unreachable(f"no API answers at {base_url}: {error or type(error).__name__}") from error


def check(response: httpx2.Response) -> None:
    """Raise the exception that a problem document describes; an answer that is none passes.

    Raises:
        StokerError: the class that belongs to the document's ``code``.
    """
    if response.is_success:
        return
    raise from_document(response.status_code, _document(response))


def from_document(status: int, document: dict[str, Any]) -> StokerError:
    """The exception that ``document`` describes."""
    code = str(document.get("code", ""))
    message = str(document.get("detail") or document.get("title") or f"the API answered {status}")
    hint = document.get("hint")
    if code == InvalidInput.code:
        error: StokerError = InvalidInput(message, errors=document.get("errors") or [], hint=hint)
    elif code in BY_CODE:
        error = BY_CODE[code](message, hint=hint)
    else:
        kind = (
            errors.InvalidRequest if 400 <= status < 500 else Unavailable if status in (502, 503, 504) else StokerError
        )
        error = kind(message, hint=hint)
    if request_id := document.get("request_id"):
        error.add_note(f"request id {request_id}")
    return error


def _document(response: httpx2.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
