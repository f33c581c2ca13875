"""Server-Sent Events read as the WHATWG's standard has it (HTML, 9.2.6), of bytes that are all there.

Written from its text alone, so that it shares no mistake with our own writer or with any client.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LINE_END = re.compile("\r\n|\n|\r")


@dataclass(frozen=True)
class Dispatched:
    """An event as a browser's listener is given it."""

    type: str
    data: str
    last_event_id: str


def parse(stream: bytes) -> list[Dispatched]:
    """All events of ``stream``. One that no blank line ends is discarded."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    *lines, _ = LINE_END.split(text)
    found: list[Dispatched] = []
    kind, data, last_id = "", "", ""
    for line in lines:
        if line == "":
            if data != "":
                found.append(Dispatched(kind or "message", data.removesuffix("\n"), last_id))
            kind, data = "", ""
            continue
        if line.startswith(":"):
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data += value + "\n"
        elif name == "id" and "\0" not in value:
            last_id = value
    return found
