"""JSON as Postgres takes it: no NUL in a text, no half of a surrogate pair, no NaN.

What a caller sends is refused if it holds such; what an app has made is stored with them replaced, for a job must not
fail because of a stray byte in a log line. ``stoker.jobs`` calls it.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from psycopg.types.json import Jsonb

from stoker.errors import InvalidRequest

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def as_given(value: Any) -> Jsonb:
    """``value`` as it is.

    Raises:
        InvalidRequest: Postgres cannot hold it.
    """
    text = _text(value)
    if text is None:
        raise InvalidRequest(
            "the JSON holds U+0000, an unpaired surrogate, NaN or Infinity",
            hint="None of these can be stored; send such bytes as a file.",
        )
    return Jsonb(text, dumps=str)


def as_possible(value: Any) -> Jsonb:
    """``value`` with what Postgres cannot hold replaced."""
    text = _text(value)
    if text is None:
        text = json.dumps(_cleaned(value), ensure_ascii=False)
    return Jsonb(text, dumps=str)


def _text(value: Any) -> str | None:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except ValueError:  # UnicodeEncodeError is one
        return None
    return None if _NUL.search(text) else text


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", _REPLACEMENT).encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_cleaned(str(key)): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return value
