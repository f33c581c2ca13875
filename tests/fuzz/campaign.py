"""A campaign: passes over a stand until there were as many cases as are wanted, and what came of them.

schemathesis makes the requests from the document and looks at the answers. What it cannot know is looked at here: that
another tenant is told nothing, and that the callers' keys still worked at the end, without which all was refused.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import schemathesis
from schemathesis import hooks
from schemathesis.engine import Status, events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder

from tests.fuzz.passes import Pass, config
from tests.fuzz.stand import ALIAS, IDLE, SPARE, Owner, Stand

BY_TOKEN = frozenset({"GET /outputs/{token}/{name}"})
"""Whoever knows the token may."""
HOOK = re.compile("https?://")
QUEUE = "/v1/queues/{owner}/{alias}"
TENANT = "/v1/tenants/{name}"


@dataclass(frozen=True)
class Fault:
    """What a check says of an answer, and a request that has it again."""

    of_pass: str
    operation: str
    says: str
    again: str

    def __str__(self) -> str:
        return f"{self.of_pass}: {self.operation}\n{self.says}\n{self.again}"


@dataclass
class Report:
    """``cases``: by pass, operation and status of the answer. ``faults``: one for each kind, as first seen."""

    cases: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    faults: dict[tuple[str, str, str], Fault] = field(default_factory=dict)

    def add(self, fault: Fault, kind: str) -> None:
        self.faults.setdefault((fault.of_pass, fault.operation, kind), fault)

    def unreached(self) -> list[str]:
        """Operations that took nothing that they were asked for: whatever came of them says little."""
        took = {operation for _, operation, status in self.cases if 200 <= status < 400}
        return sorted({operation for _, operation, _ in self.cases} - took)

    def table(self) -> str:
        """Cases by operation and status, over all passes."""
        merged: dict[str, Counter[int]] = {}
        for (_, operation, status), count in self.cases.items():
            merged.setdefault(operation, Counter())[status] += count
        lines = [
            f"{operation:<55} {sum(found.values()):>6}  "
            + "  ".join(f"{status}: {found[status]}" for status in sorted(found))
            for operation, found in sorted(merged.items())
        ]
        return "\n".join(lines)


def run(chosen: Pass, stand: Stand, seed: int, examples: int, report: Report) -> None:
    """Make one pass."""
    document = _document(chosen, stand)
    if not chosen.of_app:  # its inputs are the app's: whether they are closed it says itself
        closed(document)
    before = _all_of(stand.owner, stand) if chosen.caller != chosen.ids_of else None
    with tempfile.TemporaryDirectory() as folder:
        settings = config(chosen, stand, seed, examples, Path(folder) / "auth.json")
        schema = schemathesis.openapi.from_dict(document, config=settings)
        with _sparing(stand):
            for event in from_schema(schema).execute():
                if isinstance(event, events.ScenarioFinished) and event.is_test_scenario:
                    report.phases[event.phase.value] += len(event.recorder.interactions)
                    _count(chosen, event.recorder, stand, report)
                elif isinstance(event, events.NonFatalError):
                    report.add(Fault(chosen.name, event.label, f"{event.value!r}", ""), "error")
                elif isinstance(event, events.FatalError):
                    raise event.exception
    for owner in (stand.owner, stand.stranger):
        for name, key in owner.keys.items():
            answer = httpx2.get(f"{stand.url}/v1/jobs", headers={"authorization": f"Key {key}"})
            if answer.status_code != 200:
                report.add(
                    Fault(chosen.name, "GET /v1/jobs", f"{owner.name}'s key {name} ended: {answer.text}", ""), ""
                )
    if before is not None and before != (after := _all_of(stand.owner, stand)):
        changes = [f"{was}\n{now}" for was, now in zip(before, after, strict=True) if was != now]
        report.add(Fault(chosen.name, "", "it changed what is another tenant's:\n" + "\n".join(changes), ""), "changed")


def closed(document: dict[str, Any]) -> dict[str, Any]:
    """The document, with its answers as all that may come: a field that it does not name is a fault here.

    To callers it says nothing of the kind, since a release may add fields.
    """
    for schema in document["components"]["schemas"].values():
        if schema.get("properties"):
            schema.setdefault("additionalProperties", False)
    return document


def _document(chosen: Pass, stand: Stand) -> dict[str, Any]:
    path = f"/v1/apps/{stand.owner.app}/openapi.json" if chosen.of_app else "/openapi.json"
    answer = httpx2.get(stand.url + path, headers={"authorization": f"Key {stand.owner.keys['read']}"})
    document: dict[str, Any] = answer.json()
    return document


@contextmanager
def _sparing(stand: Stand) -> Iterator[None]:
    """Callers do not revoke their own keys nor limit themselves: nothing but 401 and 429 would come after.

    What is paused and limited is an app that nobody calls. Whether a webhook can be called is no matter of its form:
    those of jobs that are to be accepted can.
    """
    tenants = {f"tenant-{owner.name}" for owner in (stand.owner, stand.stranger)}
    spared = {key.partition(":")[0] for owner in (stand.owner, stand.stranger) for key in owner.keys.values()}

    def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
        if (case.path_parameters or {}).get("key_id") in spared:
            case.path_parameters["key_id"] = "nobody"
        if case.operation.path == TENANT and (case.path_parameters or {}).get("name") in tenants:
            case.path_parameters["name"] = IDLE

        if case.operation.path.startswith(QUEUE) and (case.path_parameters or {}).get("alias") == ALIAS:
            case.path_parameters["alias"] = SPARE
        if isinstance(case.body, dict) and HOOK.match(str(case.body.get("webhook_url"))):
            case.body["webhook_url"] = "https://hooks.example/jobs"

    hooks.hook(before_call)
    try:
        yield
    finally:
        hooks.unregister(before_call)


def _count(chosen: Pass, recorder: ScenarioRecorder, stand: Stand, report: Report) -> None:
    for case_id, interaction in recorder.interactions.items():
        operation = recorder.cases[case_id].value.operation.label
        answer = interaction.response
        report.cases[chosen.name, operation, answer.status_code if answer else 0] += 1
        if chosen.caller != chosen.ids_of and answer is not None and operation not in BY_TOKEN:
            told = (answer.content or b"") + repr(answer.headers).encode()
            if stand.owner.mark.encode() in told:
                report.add(
                    Fault(chosen.name, operation, f"another tenant is told: {told!r}", interaction.request.uri), ""
                )
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.status is Status.FAILURE and check.failure_info is not None:
                failure, operation = check.failure_info.failure, recorder.cases[case_id].value.operation.label
                answer = recorder.interactions[case_id].response if case_id in recorder.interactions else None
                came = "" if answer is None else f"\n{answer.status_code}: {(answer.content or b'')[:600]!r}"
                fault = Fault(
                    chosen.name,
                    operation,
                    f"{check.name}: {failure.title}\n{failure.message}{came}",
                    check.failure_info.code_sample,
                )
                report.add(fault, f"{check.name} {answer.status_code if answer else ''}")


def _all_of(owner: Owner, stand: Stand) -> list[Any]:
    """What a tenant has, as it sees it."""
    paths = ["/v1/jobs?limit=200", "/v1/keys", "/v1/webhooks/secrets"]
    paths += [f"/v1/jobs/{job_id}{more}" for job_id in owner.ids["job_id"] for more in ("", "/deliveries")]
    with httpx2.Client(base_url=stand.url, headers={"authorization": f"Key {owner.keys['admin']}"}) as http:
        answers = [http.get(path) for path in paths]
    # Whether its node still lives is nobody's doing.
    return [re.sub(r'"served":\w+', "", answer.text) if answer.is_success else answer.status_code for answer in answers]


def summary(report: Report, passes: Sequence[Pass]) -> Iterator[str]:
    """What is said of each pass."""
    for each in passes:
        cases = sum(count for (name, _, _), count in report.cases.items() if name == each.name)
        yield f"{each.name:<9} {cases:>6} cases  {each.says}"
