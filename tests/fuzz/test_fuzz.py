"""A few hundred requests as ``./run fuzz`` makes them: none breaks the API, each is answered as documented."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from schemathesis.checks import CHECKS as REGISTERED
from schemathesis.checks import load_all_checks

from stoker.local.engines import Engines
from tests.fuzz.campaign import Report, closed, run
from tests.fuzz.passes import CHECKS, EXPECTED, PASSES, Pass
from tests.fuzz.stand import Stand, stand

SEED = 20261122
EXAMPLES = 2
NEVER_OFF = {"not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"}


@pytest.fixture(scope="module")
def served(engines: Engines) -> Iterator[Stand]:
    with stand(engines) as running:
        yield running


@pytest.mark.parametrize("chosen", PASSES, ids=lambda chosen: chosen.name)
def test_whatever_is_asked_for_is_answered_as_the_document_says(served: Stand, chosen: Pass) -> None:
    report = Report()

    run(replace(chosen, phases=("examples", "fuzzing")), served, SEED, EXAMPLES, report)

    assert [str(fault) for fault in report.faults.values()] == []
    assert report.cases.total() >= (EXAMPLES if chosen.of_app else 60)


def test_every_check_that_there_is_is_known_and_on() -> None:
    load_all_checks()

    assert set(REGISTERED.get_all_names()) - {"max_response_time"} == CHECKS
    for chosen in PASSES:
        assert chosen.off.keys() <= CHECKS - NEVER_OFF
    assert all(int(status) < 500 for _, status in EXPECTED)


def test_a_field_that_the_document_does_not_name_is_a_fault() -> None:
    document = {"components": {"schemas": {"Job": {"properties": {"id": {}}}, "Any": {"type": "object"}}}}

    schemas = closed(document)["components"]["schemas"]

    assert schemas["Job"]["additionalProperties"] is False
    assert "additionalProperties" not in schemas["Any"]
