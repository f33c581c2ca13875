"""Draws a job's events on standard error while it runs: a bar for each rank on a terminal, else a line for each tenth.

It decides nothing: ``stoker submit --wait``, ``stoker result`` and the demo hand it the events that they read.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from stoker.client import StreamedEvent
from stoker.events import EventKind


class Drawing:
    """A context in which ``show`` draws one event after the other."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._ranks: dict[int, TaskID] = {}
        self._tenths: dict[int, int] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show(self, event: StreamedEvent) -> None:
        """Draw ``event``."""
        match event.kind:
            case EventKind.PROGRESS:
                self._progress(event.data)
            case EventKind.STATE:
                self._restart(event.data)
                self._say(_state_line(event.data))
            case EventKind.LOG:
                self._say(str(event.data.get("message", event.data)))
            case EventKind.OUTPUT:
                self._say(f"stored {event.data.get('name', 'an output')}")
            case EventKind.PREVIEW:
                pass  # a picture: the web page and the demo's own output show what a terminal cannot

    def _progress(self, data: dict[str, Any]) -> None:
        rank, step, total = int(data.get("rank") or 0), data.get("step"), data.get("total")
        if not isinstance(step, int) or not isinstance(total, int) or total < 1:
            return
        eta_s = data.get("eta_s")
        note = f"{eta_s:.1f} s left" if isinstance(eta_s, int | float) and step < total else ""
        if self._console.is_terminal:
            if rank not in self._ranks:
                self._ranks[rank] = self._bars.add_task(f"rank {rank}", total=total, note=note)
            self._bars.update(self._ranks[rank], completed=step, total=total, note=note)
        elif (tenth := 10 * step // total) > self._tenths.get(rank, 0):
            self._tenths[rank] = tenth
            self._say(f"rank {rank}: step {step}/{total} {note}".rstrip())

    def _restart(self, data: dict[str, Any]) -> None:
        """Another attempt begins at its first step."""
        if data.get("state") == "running":
            for task in self._ranks.values():
                self._bars.remove_task(task)
            self._ranks.clear()
            self._tenths.clear()

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def _state_line(data: dict[str, Any]) -> str:
    attempt = f", attempt {data['attempt']}" if data.get("attempt") else ""
    reason = f" ({data['reason']}{attempt})" if data.get("reason") else attempt
    error = data.get("error")
    return f"{data['state']}{reason}" + (f": {error.get('message', '')}" if isinstance(error, dict) else "")
