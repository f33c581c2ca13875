"""A call as Server-Sent Events: its events, comments in silence, and its result at the end.

``text_events`` says what an event looks like; ``runner`` has the call and leaves it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from worker_node.distributed import wire
from worker_node.distributed.calls import Call
from worker_node.distributed.errors import RankError, RemoteError, RunnerError
from worker_node.distributed.events import RankEvent
from worker_node.distributed.text_events import comment, text_event


async def texts(
    call: Call, next_event: Callable[[], Awaitable[RankEvent | None]], heartbeat_s: float, image_format: str
) -> AsyncGenerator[bytes, None]:
    """Yield what ``next_event`` gives, then the result with its images in ``image_format``."""
    number = 0
    following = asyncio.ensure_future(next_event())
    try:
        while True:
            await asyncio.wait({following}, timeout=heartbeat_s)
            if not following.done():
                yield comment()
                continue
            if (event := following.result()) is None:
                break
            number += 1
            name = "error" if event.is_error else "progress"
            # Pictures take long to encode, and the loop has others to serve.
            yield await asyncio.to_thread(text_event, number, name, event.data, image_format=event.image_format)
            following = asyncio.ensure_future(next_event())
        result = wire.decode(call.outcome.result())
        yield await asyncio.to_thread(text_event, number + 1, "result", result, image_format=image_format)
    except RunnerError as exc:
        # Whoever reads this may know no other language than that of its events.
        yield text_event(number + 1, "error", _told(exc))
        raise
    finally:
        following.cancel()


def _told(error: RunnerError) -> dict[str, str | int]:
    said: dict[str, str | int] = {"error": str(error), "error_type": type(error).__name__, "code": error.code}
    if isinstance(error, RemoteError):
        said |= {"error": error.message, "error_type": error.type_name}
    if isinstance(error, RankError):
        said["rank"] = error.rank
    return said
