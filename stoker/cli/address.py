"""Where the API and the database are that a command talks to.

The option, else the environment, else the state file of the local stack that ``stoker up`` or ``stoker demo`` started
from this folder. It connects to nothing.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoker.errors import ConfigurationError
from stoker.local.place import default_data_dir

STATE_FILE = "state.json"


@dataclass(frozen=True)
class Address:
    """An API and the key to speak to it with."""

    api_url: str
    api_key: str


def find_api(api_url: str | None, api_key: str | None) -> Address:
    """The API to talk to; each argument is an option's value, if it was given.

    Raises:
        ConfigurationError: nothing says where it is, or which key to use.
    """
    url, key = api_url or os.environ.get("STOKER_API_URL"), api_key or os.environ.get("STOKER_API_KEY")
    if not url:
        stack = local_stack()
        url, key = stack.get("api_url"), key or stack.get("api_key")
    if not url:
        raise ConfigurationError(
            "no API is named and no local stack runs from this folder",
            hint="Start one with 'stoker up --detach', or set STOKER_API_URL and STOKER_API_KEY.",
        )
    if not key:
        raise ConfigurationError(
            f"there is no key for {url}", hint="Set STOKER_API_KEY. 'stoker keys create' makes one."
        )
    return Address(url.rstrip("/"), key)


def find_database() -> str:
    """DATABASE_URL, else the local stack's database.

    Raises:
        ConfigurationError: neither is there.
    """
    url = os.environ.get("DATABASE_URL") or local_stack().get("database_url")
    if not url:
        raise ConfigurationError(
            "DATABASE_URL is not set and no local stack runs from this folder",
            hint="Set DATABASE_URL=postgresql://user:password@host/name, or start a stack with 'stoker up --detach'.",
        )
    return str(url)


def state_file() -> Path:
    """Where the stack of this folder writes what ``stoker up --json`` prints."""
    return default_data_dir(os.environ) / STATE_FILE


def local_stack() -> dict[str, Any]:
    """What ``stoker up --json`` printed; empty where no stack was started."""
    try:
        state = json.loads(state_file().read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
