"""The protocol of jobs keeps its promise, whatever happens in whatever order.

The short form takes the same sequences each time. A longer one, with others (``--hypothesis-seed`` repeats it):

    PROTOCOL_SEQUENCES=2000 ./run test tests/protocol
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from stoker.local.engines import Engines
from tests.protocol.machine import Protocol
from tests.protocol.stage import Stage, stage
from tests.support.databases import fresh_database

SEQUENCES, STEPS = int(os.environ.get("PROTOCOL_SEQUENCES", "0")), 30
IS_LONG = SEQUENCES > 0

pytestmark = pytest.mark.timeout(0 if IS_LONG else 180)


@pytest.fixture(scope="module")
def set_stage(engines: Engines) -> Iterator[Stage]:
    with fresh_database(engines) as url, stage(url) as made:
        yield made


def test_a_job_is_executed_at_least_once_and_has_one_result_whatever_happens(set_stage: Stage) -> None:
    machine = type("ProtocolHere", (Protocol,), {"stage": set_stage})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=SEQUENCES or 12,
            stateful_step_count=STEPS,
            derandomize=not IS_LONG,
            # Making a failure shorter takes minutes: worth it where somebody looks for one.
            phases=[Phase.generate, Phase.shrink] if IS_LONG else [Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
