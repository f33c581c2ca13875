"""JSON as Postgres takes it and callers can be shown it: no NUL in a text, no half of a surrogate pair, no NaN, no
number beyond what others read, not nested too deeply.

What a caller sends is refused if it holds such; what an app has made is stored with them replaced, for a job must not
fail because of a stray byte in a log line. ``stoker.jobs`` calls it.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson
from psycopg.types.json import Jsonb

from stoker.depth import MAX_DEPTH, is_too_deep
from stoker.errors import InvalidRequest

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_WRAPPED = 20
"""What a caller may send stands inside some levels of ours by the time it is stored."""
_LONG = 19
"""So many digits may be more than 64 bits hold."""
_MOST_BITS = 1023
"""Of a whole number that a float can come near to."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def as_given(value: Any) -> Jsonb:
    """``value`` as it is.

    Raises:
        InvalidRequest: Postgres cannot hold it, or nobody could be shown it.
    """
    if is_too_deep(value):
        raise InvalidRequest(
            f"the JSON is nested deeper than {MAX_DEPTH} levels", hint="Make it flatter, or send it as a file."
        )
    text = _text(value)
    if text is None:
        raise InvalidRequest(
            "the JSON holds U+0000, an unpaired surrogate, NaN or Infinity",
            hint="None of these can be stored; send such bytes as a file.",
        )
    return Jsonb(text, dumps=str)


def as_possible(value: Any) -> Jsonb:
    """``value`` with what Postgres cannot hold, or nobody could be shown, replaced."""
    text = None if is_too_deep(value, MAX_DEPTH + _WRAPPED) else _text(value)
    if text is None:
        text = json.dumps(_cleaned(value, MAX_DEPTH + _WRAPPED), ensure_ascii=False)
    return Jsonb(text, dumps=str)


def loaded(text: str | bytes) -> Any:
    """What Postgres holds: a whole number beyond 64 bits as a float, beyond that null, since others read no more.

    A caller's 1e25 becomes such a number in Postgres, whose numbers have as many digits as one likes.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # a number is beyond what a float holds
        return json.loads(text, parse_int=_number, parse_float=_number)


def _number(text: str) -> int | float | None:
    if len(text) < _LONG and text.lstrip("-").isdigit():
        return int(text)
    return value if math.isfinite(value := float(text)) else None


def _text(value: Any) -> str | None:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except ValueError:  # UnicodeEncodeError is one
        return None
    return None if _NUL.search(text) else text


def _cleaned(value: Any, levels: int) -> Any:
    if isinstance(value, str):
        return value.replace("\0", _REPLACEMENT).encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return None
    if isinstance(value, dict | list | tuple) and levels == 0:
        return _REPLACEMENT
    if isinstance(value, dict):
        return {_cleaned(str(key), levels): _cleaned(item, levels - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item, levels - 1) for item in value]
    return value
