"""The proxy that fal's JavaScript client can be told to use: all calls go to one address, the true one in a header.

Nothing is passed on: what is meant for one of fal's hosts is answered by our own routes for it, with the key that the
request carries.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import refusal
from stoker.errors import InvalidRequest

PATH = "/api/fal/proxy"
TARGET = "x-fal-target-url"
PREFIXES = {
    "queue.fal.run": "/queue",
    "fal.run": "/run",
    "rest.fal.ai": "/rest",
    "rest.alpha.fal.ai": "/rest",
    "api.fal.ai": "/rest",
}

HOSTS = f"Its hosts are {', '.join(PREFIXES)}, by https and without a port."


class FalProxy:
    """ASGI middleware: a request to the proxy's path becomes one to the path that its header means."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == PATH:
            target = Headers(scope=scope).get(TARGET, "")
            meant = target_of(target)
            if meant is None:
                wrong = InvalidRequest(f"{TARGET} names no host of fal's that is answered here", hint=HOSTS)
                await refusal(wrong, scope)(scope, receive, send)
                return
            path, query = meant
            # In place: what is outside of us logs and counts the request by it.
            scope["path"], scope["raw_path"], scope["query_string"] = unquote(path), path.encode(), query.encode()
        await self._app(scope, receive, send)


def target_of(url: str) -> tuple[str, str] | None:
    """Path and query of ours for a URL of fal's, as they stand in a request; None for any other URL."""
    try:
        parts = urlsplit(url)
        is_plain = parts.scheme == "https" and parts.port in (None, 443) and parts.username is None
    except ValueError:
        return None
    prefix = PREFIXES.get(parts.hostname or "")
    if prefix is None or not is_plain or not url.isascii() or not parts.path.startswith("/"):
        return None
    return prefix + parts.path, parts.query
