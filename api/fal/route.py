"""How routes of fal's wire read and answer: strict JSON in, errors in fal's form out."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.bodies import JsonRoute
from api.fal import errors
from api.fal.errors import FalError
from api.problems import from_http, refusal
from stoker.errors import NotFound, StokerError, UnknownApp
from stoker.manifest import Manifest

REQUEST_ID = "x-fal-request-id"
STREAM = "stream"
"""The end of a path whose results are streamed."""
SHOWN = ["X-Fal-Request-Id", "X-Fal-Error-Type", "X-Fal-Request-Timeout-Type", "X-Stoker-Ignored", "ETag"]
"""What a page of another origin may read."""
NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")


class FalRoute(JsonRoute):
    """A route whose errors are in fal's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except StokerError as error:
                return as_response(errors.of_request(error))
            except RequestValidationError as error:
                return as_response(errors.of_places(error.errors()))
            except HTTPException as error:
                return refusal(from_http(error, request), request.scope, error.headers)

        return answer


def as_response(error: FalError) -> JSONResponse:
    """``error``, sent."""
    return JSONResponse(error.body, error.status, error.headers)


def streamed(manifest: Manifest, path: str) -> str:
    """The endpoint whose results are to be streamed: the one of that path, else the one before its end."""
    before, _, end = path.rpartition("/")
    has_own = f"/{path}" in {endpoint.path for endpoint in manifest.endpoints}
    return before if end == STREAM and not has_own else path


async def _app(owner: str, alias: str) -> str:
    if NAME.fullmatch(owner) is None or NAME.fullmatch(alias) is None:
        raise UnknownApp("there is no such app")
    return f"{owner}/{alias}"


async def _job_id(request_id: str) -> UUID:
    try:
        return UUID(request_id)
    except ValueError as error:
        raise NotFound(f"there is no request {request_id[:80]!r}") from error


AppName = Annotated[str, Depends(_app)]
"""``owner/alias``, as a route's parameter."""
JobId = Annotated[UUID, Depends(_job_id)]
"""What fal calls the request's id is the job's."""
