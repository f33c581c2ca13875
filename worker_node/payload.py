"""What users' code gives back, made fit for JSON in Postgres: no NUL characters, no values that JSON lacks.

Pure. The reporter and the outputs call it on everything before it is stored or sent.
"""

from __future__ import annotations

from typing import Any

import orjson

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


def to_json(value: dict[str, Any]) -> dict[str, Any]:
    """A copy of ``value`` that any JSON store takes. What JSON cannot hold becomes its repr, NaN becomes null."""
    encoded = orjson.dumps(value, default=repr, option=_OPTIONS)
    if b"\\u0000" in encoded:
        encoded = orjson.dumps(_without_nul(orjson.loads(encoded)))
    cleaned: dict[str, Any] = orjson.loads(encoded)
    return cleaned


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    return value
