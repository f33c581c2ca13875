"""What the API remembers for a moment."""

from __future__ import annotations

import pytest

from api.recent import Recent

pytestmark = pytest.mark.anyio


class Source:
    def __init__(self) -> None:
        self.reads = 0

    async def read(self) -> int:
        self.reads += 1
        return self.reads


async def test_a_burst_reads_once() -> None:
    source, recent = Source(), Recent[int](kept_s=60)

    assert [await recent.get("key", source.read) for _ in range(5)] == [1] * 5
    assert await recent.get("another key", source.read) == 2


async def test_what_is_too_old_is_read_again() -> None:
    source, recent = Source(), Recent[int](kept_s=0)

    assert [await recent.get("key", source.read) for _ in range(3)] == [1, 2, 3]


async def test_what_was_changed_here_is_forgotten_at_once() -> None:
    source, recent = Source(), Recent[int](kept_s=60)
    await recent.get("key", source.read)
    recent.forget()

    assert await recent.get("key", source.read) == 2


async def test_a_refusal_is_not_remembered() -> None:
    source, recent = Source(), Recent[int](kept_s=60)

    async def refuse() -> int:
        raise PermissionError

    with pytest.raises(PermissionError):
        await recent.get("key", refuse)
    assert await recent.get("key", source.read) == 1


async def test_it_does_not_grow_without_bound() -> None:
    source, recent = Source(), Recent[int](kept_s=60)
    for key in range(2500):
        await recent.get(key, source.read)

    assert await recent.get(2499, source.read) == 2500
    assert await recent.get(0, source.read) == 2501
