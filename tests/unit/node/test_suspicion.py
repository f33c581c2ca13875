"""Which jobs are looked out for after a process died under several."""

from __future__ import annotations

from uuid import uuid4

from worker_node.suspicion import COMES_BACK_S, Suspicion

ONE, OTHER = uuid4(), uuid4()


def test_suspects_are_waited_for_from_when_the_process_is_back_however_long_that_took():
    suspicion = Suspicion()
    suspicion.cast([ONE, OTHER])

    assert suspicion.is_on(10_000)
    suspicion.comes_back(10_000)

    assert suspicion.is_on(10_000 + COMES_BACK_S - 1)
    assert not suspicion.is_on(10_000 + COMES_BACK_S)


def test_a_suspect_that_has_come_is_one_until_it_ends():
    suspicion = Suspicion()
    suspicion.cast([ONE])
    suspicion.comes_back(0)
    suspicion.begins(ONE)

    assert suspicion.is_on(COMES_BACK_S + 1)
    suspicion.clears(ONE)

    assert not suspicion.is_on(1)


def test_a_suspect_whose_process_was_ended_for_another_reason_is_waited_for_again_and_not_for_ever():
    suspicion = Suspicion()
    suspicion.cast([ONE])
    suspicion.comes_back(0)
    suspicion.begins(ONE)

    suspicion.leave([ONE, OTHER])
    suspicion.comes_back(100)

    assert suspicion.is_on(100 + COMES_BACK_S - 1)
    assert not suspicion.is_on(100 + COMES_BACK_S)


def test_who_was_no_suspect_becomes_none_by_the_nodes_own_doing():
    suspicion = Suspicion()

    suspicion.leave([ONE])

    assert not suspicion.is_on(0)
