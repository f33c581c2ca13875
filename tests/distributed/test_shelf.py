"""Memory that was given is written again once nobody has it, and is nobody's for longer than that."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import numpy as np
import pytest

from tests.distributed import far_end
from tests.distributed.far_end import MIB, Rank, open_descriptors, payload
from worker_node.distributed import shelf as shelves
from worker_node.distributed.errors import SerializationFailed
from worker_node.distributed.media import Frame
from worker_node.distributed.segments import Segments
from worker_node.distributed.shelf import Shelf, staged_in


@pytest.fixture
def ends() -> Iterator[tuple[Segments, Segments]]:
    ours, channel = Segments.pair()
    with channel:
        theirs = Segments.inherited(os.dup(channel.fileno()))
    yield ours, theirs
    ours.close()
    theirs.close()


def memory_of(frame: Frame) -> int:
    """Tell one piece of memory from another."""
    staged = staged_in(frame)
    assert staged is not None
    return os.fstat(staged.fd).st_ino


def staged(shelf: Shelf, byte: int, size_bytes: int = MIB) -> memoryview:
    return shelf.write([bytes([byte]) * size_bytes], size_bytes)


def test_memory_is_written_again_when_its_receiver_has_let_go(ends: tuple[Segments, Segments]):
    shelf, (ours, theirs), used = Shelf(), ends, set()

    for number in range(5):
        frame = staged(shelf, number)
        used.add(memory_of(frame))
        taken = theirs.take(*ours.give([frame]))
        assert bytes(taken[0]) == bytes([number]) * MIB
        del frame, taken

    assert len(used) == 1


def test_memory_that_a_receiver_has_is_left_alone_by_what_comes_after(ends: tuple[Segments, Segments]):
    shelf, (ours, theirs) = Shelf(), ends

    arrays = [np.frombuffer(theirs.take(*ours.give([staged(shelf, number)]))[0], np.uint8) for number in range(3)]

    assert [set(array.tolist()) for array in arrays] == [{0}, {1}, {2}]


def test_memory_under_way_is_left_alone(ends: tuple[Segments, Segments]):
    shelf, (ours, theirs) = Shelf(), ends

    said = [ours.give([staged(shelf, number)]) for number in range(3)]

    assert [bytes(theirs.take(*each)[0][:1]) for each in said] == [b"\0", b"\1", b"\2"]


def test_a_frame_that_was_not_sent_yet_stays_a_snapshot():
    shelf = Shelf()

    first, second = staged(shelf, 1), staged(shelf, 2)

    assert (first[0], second[0]) == (1, 2)


def test_what_several_receivers_have_is_left_alone_until_the_last_lets_go():
    shelf, ranks = Shelf(2), [Rank(far_end.keep), Rank(far_end.keep)]
    frame = staged(shelf, 1)
    first = memory_of(frame)
    for rank in ranks:
        rank.call(frame)
    del frame

    assert memory_of(staged(shelf, 2)) != first
    assert [rank.call() for rank in ranks] == [b"\1", b"\1"]
    ranks[0].end()
    assert first not in {memory_of(each) for each in (staged(shelf, 3), staged(shelf, 4))}
    ranks[1].end()
    held = [staged(shelf, 5) for _ in range(3)]
    assert first in map(memory_of, held)


def test_a_receiver_that_is_killed_gives_back_what_it_had():
    shelf, rank = Shelf(), Rank(far_end.keep)
    first = memory_of(frame := staged(shelf, 1))
    rank.call(frame)
    del frame
    rank.process.kill()
    rank.process.join()

    assert memory_of(staged(shelf, 2)) == first


def test_what_a_forked_child_of_the_receiver_still_sees_is_left_alone():
    shelf, rank = Shelf(), Rank(far_end.leave_to_a_child)
    first = memory_of(frame := staged(shelf, 1))
    rank.call(frame)
    del frame

    assert memory_of(staged(shelf, 2)) != first
    assert rank.call() == b"\1"


def test_what_no_receiver_ever_gives_back_is_not_kept_without_end(
    ends: tuple[Segments, Segments], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shelves, "KEPT_BYTES", 3 * MIB)
    shelf, (ours, theirs), taken = Shelf(), ends, []
    gc.collect()
    before = open_descriptors()

    for number in range(10):
        taken += theirs.take(*ours.give([staged(shelf, number)]))

    assert open_descriptors() - before == len(shelf) == 3
    assert [frame[-1] for frame in taken] == list(range(10))


def test_what_would_take_the_place_of_all_else_is_not_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shelves, "KEPT_BYTES", 3 * MIB)
    shelf = Shelf()
    first = memory_of(staged(shelf, 1))

    staged(shelf, 2, 3 * MIB)

    assert memory_of(staged(shelf, 3)) == first


def test_what_was_not_written_for_a_while_goes_back(monkeypatch: pytest.MonkeyPatch):
    shelf = Shelf()
    before = open_descriptors()
    staged(shelf, 1)
    shelf.tidy()
    kept = open_descriptors()

    monkeypatch.setattr(shelves, "KEPT_S", 0.0)
    shelf.tidy()

    assert (kept, open_descriptors()) == (before + 1, before)


def test_a_smaller_frame_takes_memory_that_fits_and_no_more_than_twice_its_size(ends: tuple[Segments, Segments]):
    shelf, (ours, theirs) = Shelf(), ends
    first = memory_of(staged(shelf, 1))

    wastes, fits = staged(shelf, 2, MIB // 2 - 1), staged(shelf, 3, MIB // 2)

    assert memory_of(fits) == first != memory_of(wastes)
    taken = theirs.take(*ours.give([wastes, fits]))
    assert [bytes(frame) for frame in taken] == [b"\2" * (MIB // 2 - 1), b"\3" * (MIB // 2)]


def test_a_size_beyond_the_memory_is_refused(ends: tuple[Segments, Segments]):
    ours, theirs = ends
    sent, given = ours.give([staged(Shelf(), 1)])
    sent[0] = bytes(sent[0][:8]) + (MIB + 1).to_bytes(8, "little")

    with pytest.raises(SerializationFailed, match="too small"):
        theirs.take(sent, given)


def test_memory_that_cannot_be_written_again_is_given_up_and_the_frame_goes_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(shelves, "ALONE_BYTES", MIB)
    shelf, frame = Shelf(), payload()
    shelf.stage([frame])

    def refuse(*_: object) -> int:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", refuse)
        sent = shelf.stage([frame])

    assert sent[0] is frame
    assert len(shelf) == 0
    assert staged_in(shelf.stage([frame])[0]) is not None
