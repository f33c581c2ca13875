"""The states, as the SQL and the documents lean on them."""

from __future__ import annotations

import re
from pathlib import Path

from stoker.states import FINAL, TRANSITIONS, JobState, Trigger, sources

ROOT = Path(__file__).parents[3]
SQL = ROOT / "stoker" / "sql"


def test_final_states_have_no_way_out() -> None:
    assert {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED} == FINAL
    assert not [state for state, _ in TRANSITIONS if state in FINAL]


def test_every_state_that_is_not_final_can_end() -> None:
    for state in set(JobState) - FINAL:
        reached, news = {state}, {state}
        while news:
            news = {to for (source, _), to in TRANSITIONS.items() if source in news} - reached
            reached |= news
        assert reached >= {JobState.FAILED, JobState.CANCELLED}


def guard(name: str) -> set[str]:
    """The states that a statement's UPDATE of jobs lets pass."""
    text = (SQL / f"{name}.sql").read_text()
    update = text[re.search(r"UPDATE jobs", text).start() :]
    condition = re.search(r"j\.state (?:= ('\w+')|IN \(([^)]*)\))", update[update.index("WHERE j.id") :])
    return set(re.findall(r"'(\w+)'", condition[1] or condition[2]))


def test_the_statements_guard_what_the_table_says() -> None:
    running = {Trigger.SUCCEED, Trigger.FAIL, Trigger.RETRY_NOW, Trigger.RETRY_LATER, Trigger.LOSE_LEASE}
    assert guard("claim") == sources(Trigger.CLAIM)
    assert guard("promote") == sources(Trigger.COME_DUE)
    assert guard("leave_waiting") == sources(Trigger.EXPIRE)
    for trigger in running | {Trigger.RELEASE}:
        assert guard("leave_running") == sources(trigger)
    assert guard("leave_waiting") | guard("leave_running") == sources(Trigger.CANCEL)


def test_the_diagram_in_the_docs_is_the_table() -> None:
    drawn = re.search(r"```mermaid\n(.*?)```", (ROOT / "docs" / "job-lifecycle.md").read_text(), re.DOTALL)
    arrows = set(re.findall(r"^ +(\S+) --> (\S+?)(?:: (\w+))?$", drawn[1], re.MULTILINE))

    wanted = {(str(source), str(to), str(trigger)) for (source, trigger), to in TRANSITIONS.items()}
    wanted |= {("[*]", "queued", "submit"), ("[*]", "scheduled", "submit")}
    wanted |= {(str(state), "[*]", "") for state in FINAL}
    assert arrows == wanted
