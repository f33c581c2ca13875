"""How deep JSON may be nested: what is deeper can be stored but not be shown, for writers of JSON stop near 250 levels.

Pure. The API asks before it accepts an input, an app host before it hands on a result, and ``stored_json`` for both.
"""

from __future__ import annotations

from typing import Any

MAX_DEPTH = 100


def is_too_deep(value: Any, limit: int = MAX_DEPTH) -> bool:
    """Whether ``value`` has more than ``limit`` lists and objects inside each other."""
    level = [value]
    for _ in range(limit):
        level = [inner for outer in level if isinstance(outer, dict | list | tuple) for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(outer: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> list[Any]:
    items = outer.values() if isinstance(outer, dict) else outer
    return [item for item in items if isinstance(item, dict | list | tuple)]
