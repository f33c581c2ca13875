"""What must come back: an error in the form of the face that was asked, or an answer that tells nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.integration.security.wire import Answer
from tests.integration.security.world import World

NOTHING: frozenset[str] = frozenset()
OF_A_JOB = frozenset(
    {"jobs", "job_events", "job_heads", "job_attempts", "usage_records", "webhook_deliveries", "delivery_attempts"}
)


@dataclass(frozen=True)
class Problem:
    """Our own face's error. ``closes``: and nothing else is read from this connection."""

    status: int
    code: str
    closes: bool = False
    stores: frozenset[str] = NOTHING

    def __call__(self, world: World, came: Answer | None) -> None:
        assert came is not None, "no answer came"
        assert came.status == self.status, came
        assert came.header("content-type") == "application/problem+json"
        body = came.json()
        assert (body["code"], body["status"]) == (self.code, self.status), body
        assert body["title"]
        assert body["detail"]
        assert body["hint"]
        assert body["request_id"] == came.header("x-request-id")
        assert came.rest == b""
        assert not self.closes or came.header("connection") == "close"


@dataclass(frozen=True)
class FalError:
    """fal's face: ``error_type`` is the code; without one it is a list of places, as for a wrong input."""

    status: int
    error_type: str | None = None
    stores: frozenset[str] = NOTHING

    def __call__(self, world: World, came: Answer | None) -> None:
        assert came is not None, "no answer came"
        assert came.status == self.status, came
        assert came.header("x-fal-request-id")
        body = came.json()
        assert body["detail"]
        if self.error_type is None:
            assert all(entry["loc"] and entry["msg"] and entry["type"] for entry in body["detail"]), body
        else:
            assert body["error_type"] == came.header("x-fal-error-type") == self.error_type, body


@dataclass(frozen=True)
class Exactly:
    """A status, and this as all of its JSON."""

    status: int
    body: Any
    stores: frozenset[str] = NOTHING

    def __call__(self, world: World, came: Answer | None) -> None:
        assert came is not None, "no answer came"
        assert (came.status, came.json()) == (self.status, self.body)


@dataclass(frozen=True)
class Nothing:
    """A good answer in which the list of this name is empty."""

    name: str
    stores: frozenset[str] = NOTHING

    def __call__(self, world: World, came: Answer | None) -> None:
        assert came is not None, "no answer came"
        assert (came.status, came.json()[self.name]) == (200, []), came


@dataclass(frozen=True)
class Without:
    """An answer of this status that has none of these texts in it, headers included."""

    status: int
    absent: tuple[str, ...]
    stores: frozenset[str] = NOTHING

    def __call__(self, world: World, came: Answer | None) -> None:
        assert came is not None, "no answer came"
        assert came.status == self.status, came
        told = came.told.lower()
        assert not [text for text in self.absent if world.filled(text).lower() in told], came


@dataclass(frozen=True)
class NoAnswer:
    """The connection ends: the request never came to its end."""

    stores: frozenset[str] = NOTHING

    def __call__(self, world: World, came: Answer | None) -> None:
        assert came is None, came


@dataclass(frozen=True)
class JobFailed:
    """The job ends with this code and a hint. What it was refused for, it is refused on the node."""

    code: str
    stores: frozenset[str] = OF_A_JOB

    def __call__(self, world: World, came: dict[str, Any]) -> None:
        assert came["state"] == "failed", came
        assert came["error"]["code"] == self.code, came["error"]
        assert came["error"]["hint"]
        assert came["outputs"] == []


@dataclass(frozen=True)
class NotCalled:
    """The delivery has failed at its first try, before any connection was made."""

    stores: frozenset[str] = OF_A_JOB | {"job_outputs", "objects"}

    def __call__(self, world: World, came: dict[str, Any]) -> None:
        assert came["state"] == "failed", came
        [made] = came["tries"]
        assert made["status"] is None
        assert made["error"].startswith(("may not be called", "is no URL")), made


@dataclass(frozen=True)
class Refused:
    """Our own code, or a verifier of ours, said no."""

    stores: frozenset[str] = NOTHING

    def __call__(self, world: World, came: bool) -> None:
        assert came is True


@dataclass(frozen=True)
class Download:
    """What was uploaded can be read as a download alone: never shown, under no type that a browser runs."""

    types: tuple[str, ...]
    stores: frozenset[str] = frozenset({"files", "uploads", "objects"})

    def __call__(self, world: World, came: Answer) -> None:
        assert came.status == 200, came
        assert came.header("content-disposition").startswith("attachment;"), came.headers
        assert came.header("content-type") in self.types, came.headers


@dataclass(frozen=True)
class PlainName:
    """It is taken, and whoever reads it is told a name that is no path and ends no line."""

    stores: frozenset[str] = frozenset({"files", "uploads", "objects"})

    def __call__(self, world: World, came: Answer) -> None:
        assert came.status == 200, came
        named = came.header("content-disposition").lower()
        assert "filename*=" in named
        assert not [text for text in ("%2f", "%5c", "%00", "%0d", "%0a", "/", "\\") if text in named], named
