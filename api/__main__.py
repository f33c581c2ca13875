"""``python -m api``: the API as a process."""

from __future__ import annotations

import sys

import uvloop

from api.app import create_app
from api.server import Server, bind
from stoker import crash_points, log
from stoker.errors import ConfigurationError
from stoker.settings import ApiSettings

logger = log.get(__name__)


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    try:
        settings = ApiSettings.load()
        sock = bind(settings.host, settings.port)
    except (ConfigurationError, OSError) as error:
        hint = error.hint if isinstance(error, ConfigurationError) else "Is another process on that port?"
        sys.stderr.write(f"error: {error}\nhint: {hint}\n")
        return 2
    log.configure(settings.log_format, service="api")
    crash_points.arm(settings.crash_at)
    server = Server(create_app(settings), sock, certificate=settings.tls_certificate, key=settings.tls_key)
    logger.info("api_starting", url=server.url)
    uvloop.run(server.serve())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
