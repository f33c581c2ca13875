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
        self._bar_of: dict[str, TaskID] = {}
        self._tenths: dict[str, int] = {}

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
        step, total = data.get("step"), data.get("total")
        who = "job" if data.get("rank") is None else f"rank {data['rank']}"
        if not isinstance(step, int) or not isinstance(total, int) or total < 1:
            return
        eta_s = data.get("eta_s")
        note = f"{eta_s:.1f} s left" if isinstance(eta_s, int | float) and step < total else ""
        if self._console.is_terminal:
            if who not in self._bar_of:
                self._bar_of[who] = self._bars.add_task(who, total=total, note=note)
            self._bars.update(self._bar_of[who], completed=step, total=total, note=note)
        elif (tenth := 10 * step // total) > self._tenths.get(who, 0):
            self._tenths[who] = tenth
            self._say(f"{who}: step {step}/{total} {note}".rstrip())

    def _restart(self, data: dict[str, Any]) -> None:
        """Another attempt begins at its first step."""
        if data.get("state") == "running":
            for bar in self._bar_of.values():
                self._bars.remove_task(bar)
            self._bar_of.clear()
            self._tenths.clear()

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def _state_line(data: dict[str, Any]) -> str:
    state, reason, attempt, error = (data.get(name) for name in ("state", "reason", "attempt", "error"))
    notes = [reason] if reason and reason != state else []
    notes += [f"attempt {attempt}"] if attempt else []
    line = f"{state} ({', '.join(notes)})" if notes else str(state)
    return f"{line}: {error.get('message', '')}" if isinstance(error, dict) else line
