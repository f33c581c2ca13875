"""docker-compose.yml as Compose would read it: variables put in, one service at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
FILE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$(\$|\{(?P<name>\w+)(?::(?P<how>[?-])(?P<rest>[^}]*))?\})")


def read(environ: Mapping[str, str]) -> dict[str, Any]:
    """The file with ``environ`` put in; a KeyError names a required variable that is missing."""
    text = VARIABLE.sub(lambda found: _value(found, environ), FILE.read_text())
    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


def required() -> set[str]:
    """Variables without which Compose refuses to start."""
    return {found["name"] for found in VARIABLE.finditer(FILE.read_text()) if found["how"] == "?"}


def _value(found: re.Match[str], environ: Mapping[str, str]) -> str:
    if found[1] == "$":
        return "$"
    value = environ.get(found["name"], "")
    if value:
        return value
    if found["how"] == "-":
        return found["rest"]
    raise KeyError(found["name"])
