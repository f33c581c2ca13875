"""Tokens on fal's wire: what a page gets in place of a key, for a while and for some apps.

``POST /rest/tokens/`` gives one to the holder of a key; ``fal_jwt_token`` in the query of a run, a stream or a status
stream is one. It opens nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from api import auth
from api.auth import Submitter
from api.connections import Here
from api.fal.route import AppName, FalRoute
from stoker import key_tokens
from stoker.keys import Caller

LONGEST_S = 3600
PARAMETER = "fal_jwt_token"
NAME = r"^[A-Za-z0-9_.-]{1,100}(/[A-Za-z0-9_.-]{1,100})?$"

router = APIRouter(prefix="/rest/tokens", route_class=FalRoute, include_in_schema=False)


class Wanted(BaseModel):
    """What a token is wanted for. Their clients name an app by its alias alone."""

    allowed_apps: Annotated[list[Annotated[str, Field(pattern=NAME)]], Field(min_length=1, max_length=20)]
    token_expiration: Annotated[int, Field(ge=1, le=LONGEST_S)] = 120


@router.post("")
@router.post("/")
async def create(wanted: Wanted, caller: Submitter, here: Here) -> JSONResponse:
    """A token to run apps, as the bare text that their clients expect."""
    issued = await key_tokens.issue_for_apps(here.db, caller, wanted.allowed_apps, wanted.token_expiration)
    return JSONResponse(issued.token)


def _with_either(scope: str) -> Callable[..., Awaitable[Caller]]:
    async def check(
        app: AppName,
        here: Here,
        header: Annotated[str | None, Header(alias="authorization")] = None,
        token: Annotated[str | None, Query(alias=PARAMETER, max_length=5000)] = None,
    ) -> Caller:
        if token is None:
            return auth.allowed(await auth.caller_of(here, header), scope)
        caller = await key_tokens.verify_for_app(here.db, token, app)
        await here.rates.spend(caller)
        return caller

    return check


Runner = Annotated[Caller, Depends(_with_either("run"))]
"""Who may run the app of the path, with a key or a token."""
Follower = Annotated[Caller, Depends(_with_either("read"))]
"""Who may follow its requests."""
