"""Point fal's Python client at a Stoker, whatever its scheme, without a change to the code that uses it.

The client has its hosts in constants that it looks up at each call; only those change. Over https environment variables
do as well, but for uploads: docs/from-fal.md.
"""

from __future__ import annotations

from importlib import import_module
from urllib.parse import urlsplit

from stoker.errors import ConfigurationError

PACKAGE = "fal_client.client"


def patch(base_url: str) -> None:
    """Let ``fal_client`` call the API at ``base_url``, from the next call of this process on.

    Call it before the first upload of a client: its upload tokens remember where they came from. The key is read
    from ``FAL_KEY``, as ever.

    Raises:
        ConfigurationError: the package is not installed, is not one that can be pointed elsewhere, or this is no URL.
    """
    base = base_url.rstrip("/")
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigurationError(f"{base_url!r} is no URL", hint="Write http://host:port or https://host.")
    hosts = {
        "RUN_URL_FORMAT": f"{base}/run/",
        "QUEUE_URL_FORMAT": f"{base}/queue/",
        "REALTIME_URL_FORMAT": f"ws{base.removeprefix('http')}/run/",
        "REST_URL": f"{base}/rest",
        "CDN_URL": f"{base}/cdn",
    }
    try:
        client = import_module(PACKAGE)
    except ModuleNotFoundError as error:
        raise ConfigurationError("fal-client is not installed", hint="pip install fal-client") from error
    if missing := [name for name in hosts if not hasattr(client, name)]:
        raise ConfigurationError(
            f"this version of fal-client has no {', '.join(missing)}", hint="Version 1.0.3 is known to work."
        )
    for name, value in hosts.items():
        setattr(client, name, value)
