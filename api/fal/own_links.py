"""Own links: an input's Files that name our own objects by their address, as what a node knows them by.

Pure: no I/O. fal's clients are given addresses where ours are given ids, and send them back as inputs. A node would
have to fetch them through the network, which it may not where we are not public.
"""

from __future__ import annotations

import re
from typing import Any

FILE = re.compile(r"/cdn/files/(file_[0-9a-f]{32})/[^/]*")
OUTPUT = re.compile(r"(/outputs/[\w-]{32,}/[^/]+)")


def resolved(schema: dict[str, Any], value: Any, base_url: str) -> Any:
    """``value``, with the addresses at the places where its schema has a File. Other strings are the app's own."""
    return _at(schema, schema, value, base_url)


def _at(root: dict[str, Any], schema: Any, value: Any, base_url: str) -> Any:
    if not isinstance(schema, dict):
        return value
    if isinstance(link := schema.get("$ref"), str) and link.startswith("#/$defs/"):
        return _at(root, root.get("$defs", {}).get(link.removeprefix("#/$defs/")), value, base_url)
    if schema.get("x-stoker") == "file":
        return _file(value, base_url)
    for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        value = _at(root, branch, value, base_url)
    if isinstance(value, dict):
        known = schema.get("properties", {})
        other = schema.get("additionalProperties")
        return {name: _at(root, known.get(name, other), inner, base_url) for name, inner in value.items()}
    if isinstance(value, list):
        return [_at(root, schema.get("items"), inner, base_url) for inner in value]
    return value


def _file(value: Any, base_url: str) -> Any:
    if isinstance(value, dict) and isinstance(value.get("url"), str):
        return {**value, "url": _known(value["url"], base_url)}
    return _known(value, base_url) if isinstance(value, str) else value


def _known(url: str, base_url: str) -> str:
    path = url.removeprefix(base_url)
    found = (FILE.fullmatch(path) or OUTPUT.fullmatch(path)) if path != url else None
    return found[1] if found else url
