"""Large frames reach the other process whole, and nothing of them is left, whoever ends and whatever runs short."""

from __future__ import annotations

import gc
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.distributed import far_end
from tests.distributed.far_end import MIB, Rank, mappings, open_descriptors, payload, written
from worker_node.distributed.errors import SerializationFailed
from worker_node.distributed.media import Frame
from worker_node.distributed.segments import Segments
from worker_node.distributed.shelf import ALONE_BYTES, SHARED_BYTES, Shelf


def shmem_bytes() -> int:
    """What all memory without a file takes on this machine."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Shmem:"))


class Pair:
    """Both ends of a channel, and what a message would carry."""

    def __init__(self) -> None:
        self.ours, self.channel = Segments.pair()
        self.theirs = Segments.inherited(os.dup(self.channel.fileno()))

    def there(self, *frames: Frame) -> list[Frame]:
        return self.theirs.take(*self.ours.give(frames))


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    for end in (made.ours, made.theirs, made.channel):
        end.close()


def test_a_frame_reaches_a_rank_which_may_write_to_it():
    rank = Rank(far_end.increment)

    assert rank.call(written(b"\2\2", b"\2\2")) == [b"\3\3\3\3"]
    assert rank.end() == 0


def test_a_frame_comes_back_from_a_rank_bit_for_bit():
    rank = Rank(far_end.echo)

    back = rank.segments.take(*rank.call(written(payload()), written(b"short")))

    assert [bytes(frame) for frame in back] == [payload(), b"short"]


def test_what_a_rank_writes_no_other_rank_sees():
    first, second = Rank(far_end.increment), Rank(far_end.increment)
    staged = Shelf(2).stage([bytes(SHARED_BYTES)])

    answers = [rank.call(*staged) for rank in (first, first, second)]

    assert answers == [[b"\1\1\1\1"]] * 3
    assert bytes(staged[0][:4]) == bytes(4)
    assert (first.end(), second.end()) == (0, 0)


def test_a_frame_staged_for_one_rank_cannot_be_given_to_two(pair: Pair):
    staged = Shelf().stage([bytes(ALONE_BYTES)])
    pair.there(*staged)

    with pytest.raises(ValueError, match="staged for one receiver"):
        pair.there(*staged)


@pytest.mark.parametrize(("receivers", "least"), [(1, ALONE_BYTES), (2, SHARED_BYTES)])
def test_only_what_is_large_is_staged(receivers: int, least: int, pair: Pair):
    small, large = bytes(least - 1), bytes(least)

    sent, given = pair.ours.give(Shelf(receivers).stage([small, large]))

    assert given == [1]
    assert sent[0] is small
    assert pair.theirs.take(sent, given) == [small, large]


def test_a_staged_frame_is_a_snapshot():
    array = np.zeros(ALONE_BYTES, np.uint8)
    staged = Shelf().stage([array.data])

    array += 1

    assert not np.frombuffer(staged[0], np.uint8).any()


def test_a_thousand_messages_leave_no_descriptor_and_no_mapping():
    rank = Rank(far_end.count)
    first = rank.call(written(payload()))
    gc.collect()
    before = open_descriptors(), mappings()

    answers = {rank.call(written(payload(65536))) for _ in range(1000)}

    assert answers == {first}
    assert first[:2] == (1, 0)
    assert (open_descriptors(), mappings()) == before


@pytest.mark.parametrize("look_at", [lambda frame: np.frombuffer(frame, np.uint8), lambda frame: wire_tensor(frame)])
def test_memory_lives_for_as_long_as_somebody_looks_at_it(pair: Pair, look_at: Any):
    view = look_at(pair.there(written(payload()))[0])[256:].reshape(-1, 256)

    assert mappings() == 1
    assert view[-1].tolist() == list(range(256))
    view[0, 0] = 7

    del view
    assert mappings() == 0


def wire_tensor(frame: Frame) -> torch.Tensor:
    return torch.frombuffer(frame, dtype=torch.uint8)


def test_memory_that_was_taken_outlives_its_channel(pair: Pair):
    frames = pair.there(written(payload()))

    pair.ours.close()
    pair.theirs.close()

    assert bytes(frames[0]) == payload()


def test_a_rank_that_was_killed_costs_its_parent_nothing():
    rank = Rank(far_end.hold)
    rank.pipe.recv()
    rank.process.kill()
    rank.process.join()

    frames, given = rank.segments.give([written(payload())])

    assert given == []
    assert bytes(frames[0]) == payload()


def test_a_parent_that_is_gone_does_not_kill_the_rank_that_sends():
    rank = Rank(far_end.give_to_nobody)
    rank.segments.close()

    rank.pipe.send(None)

    assert rank.pipe.recv() == ([], True)
    assert rank.end() == 0


def test_what_a_rank_gave_before_it_was_killed_is_whole():
    rank = Rank(far_end.fill, MIB)
    said = rank.pipe.recv()
    # It dies with something unread, which its parent's socket reports as an error.
    rank.segments.give([written(payload())])
    rank.process.kill()
    rank.process.join()

    frames = rank.segments.take(*said)

    assert bytes(frames[0]) == bytes(MIB)


def test_nothing_is_left_of_memory_that_is_under_way_when_both_ends_are_killed():
    size_bytes = 128 * MIB
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pipes = [far_end.processes.Pipe() for _ in range(2)]
    sender = far_end.processes.Process(target=far_end.fill, args=(ours, pipes[0][1], size_bytes))
    receiver = far_end.processes.Process(target=far_end.hold, args=(theirs, pipes[1][1]))
    for process in (sender, receiver):
        process.start()
    ours.close()
    theirs.close()
    for pipe, _ in pipes:
        pipe.recv()

    sender.kill()
    sender.join()
    under_way = shmem_bytes()
    receiver.kill()
    receiver.join()

    assert under_way - shmem_bytes() > size_bytes // 2


def test_a_full_channel_leaves_frames_as_they_are(pair: Pair):
    sent = []
    while not sent or sent[-1][1]:
        sent.append(pair.ours.give([written(payload(256))]))

    assert bytes(sent[-1][0][0]) == payload(256)
    assert all(bytes(pair.theirs.take(*each)[0]) == payload(256) for each in sent)
    assert bytes(pair.there(written(b"later"))[0]) == b"later"


def test_memory_of_a_message_that_was_never_sent_is_passed_over(pair: Pair):
    pair.ours.give([written(b"never")])

    assert bytes(pair.there(written(b"sent"))[0]) == b"sent"


def test_threads_that_share_a_lock_do_not_mix_their_frames(pair: Pair):
    lock, said = threading.Lock(), []

    def send(number: int) -> None:
        for _ in range(20):
            frame = written(bytes([number]) * 100)
            with lock:
                said.append((number, pair.ours.give([frame])))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(bytes(pair.theirs.take(*sent)[0]) == bytes([number]) * 100 for number, sent in said)


@pytest.mark.parametrize("what", ["descriptors", "memory"])
def test_a_rank_that_can_make_no_memory_sends_the_frame_itself(what: str):
    rank = Rank(far_end.stage_without, what)

    assert rank.pipe.recv() is True
    assert rank.end() == 0


def test_a_rank_takes_a_frame_with_its_last_descriptor():
    rank = Rank(far_end.take_with_the_last_descriptor)

    assert rank.call(written(payload()), written(payload())) == (True, [True, True])
    assert rank.end() == 0


def test_memory_that_could_still_shrink_is_refused(pair: Pair):
    fd = os.memfd_create("runner-frame", os.MFD_ALLOW_SEALING)
    os.write(fd, payload())
    number, frame = struct.pack("=Q", 1), struct.pack("=QQ", 1, MIB)
    socket.send_fds(pair.channel, [number], [fd])
    os.close(fd)

    with pytest.raises(SerializationFailed, match="change its size"):
        pair.ours.take([frame], [0])


def test_a_descriptor_that_did_not_come_fails_at_once(pair: Pair):
    with pytest.raises(SerializationFailed, match="did not arrive"):
        pair.theirs.take([struct.pack("=QQ", 1, MIB)], [0])
