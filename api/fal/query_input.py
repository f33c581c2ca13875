"""An input that came as a query: their JavaScript client can be told to submit and run by GET.

A query has texts alone. What the app's schema wants as a number, a flag, a list or an object is read as JSON; what is
none of these stays a text, and the check of the input says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import orjson
from fastapi import Depends, Request

from api.connections import Here
from api.fal.route import AppName, streamed
from api.submission import newest

OWN = "fal_"
"""What begins so is for the gateway."""
TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def read(pairs: Iterable[tuple[str, str]], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The input that ``schema`` would have of these."""
    properties = schema.get("properties", {})
    return {
        name: _value(text, _types(properties.get(name, {}), schema)) for name, text in pairs if not name.startswith(OWN)
    }


def _types(of: Mapping[str, Any], schema: Mapping[str, Any]) -> set[str]:
    """The names of the types that a value may have; none where that is not said."""
    if "$ref" in of:
        of = schema.get("$defs", {}).get(of["$ref"].rpartition("/")[2], {})
    said = of.get("type", [])
    found = {said} if isinstance(said, str) else set(said)
    return found.union(*(_types(part, schema) for part in (*of.get("anyOf", ()), *of.get("oneOf", ()))))


def _value(text: str, types: set[str]) -> Any:
    if "string" in types or not types:
        return text
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    wanted = tuple(kind for name in types for kind in TYPES.get(name, ()))
    is_flag = isinstance(value, bool)
    return value if isinstance(value, wanted) and (not is_flag or bool in wanted) else text


async def _of(request: Request, app: AppName, here: Here, path: str = "") -> dict[str, Any]:
    version = await newest(here, app)
    endpoint = version.endpoint(f"/{streamed(version.manifest, path.strip('/'))}")
    return read(request.query_params.multi_items(), endpoint.input_schema)


QueryInput = Annotated[dict[str, Any], Depends(_of)]
"""The input of a request without a body, as a route's parameter."""
