"""``-i name=value``: a job's input, written on the command line.

``name=text`` is a string, ``name:=json`` any JSON value, ``name=@path`` a file to upload. Pure but for looking
which files are there; the uploading is handed in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from stoker.errors import InvalidRequest

HINT = "Write -i prompt='a red circle', -i num_inference_steps:=4 for a number or JSON, -i image=@photo.png for a file."


def parse_inputs(arguments: Iterable[str], upload: Callable[[Path], str]) -> dict[str, Any]:
    """The input that ``arguments`` spell. ``upload`` stores a file and returns what stands for it.

    Raises:
        InvalidRequest: an argument is no ``name=value``, its JSON is none, its file is not there, or a name
            comes twice.
    """
    given: dict[str, Any] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        is_json = name.endswith(":")
        name = name.removesuffix(":").strip()
        if not equals or not name:
            raise InvalidRequest(f"{argument!r} is not name=value", hint=HINT)
        if name in given:
            raise InvalidRequest(f"the input {name!r} is given twice", hint="Give a list as JSON: -i 'names:=[1, 2]'.")
        if is_json:
            given[name] = _json(name, value)
        elif value.startswith("@"):
            given[name] = upload(_file(name, value[1:]))
        else:
            given[name] = value
    return given


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"the input {name!r} is not JSON: {text!r}", hint=HINT) from error


def _file(name: str, path: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise InvalidRequest(f"the input {name!r} names {path}, where no file is", hint=HINT)
    return file
