"""The two tables are QEMU's, and what is read from them follows."""

from itertools import product
from pathlib import Path

import pytest

from blockyard.jobs.lifecycle import table
from blockyard.jobs.lifecycle.table import JobState, JobVerb

STATES = list(JobState)

# QEMU's job.c, JobSTT, as its rows are printed there: U C R P Y S W D X E N.
QEMU_TRANSITIONS = """
    0 1 0 0 0 0 0 0 0 0 0
    0 0 1 0 0 0 0 0 1 0 1
    0 0 0 1 1 0 1 0 1 0 0
    0 0 1 0 0 0 0 0 0 0 0
    0 0 0 0 0 1 1 0 1 0 0
    0 0 0 0 1 0 0 0 0 0 0
    0 0 0 0 0 0 0 1 1 0 0
    0 0 0 0 0 0 0 0 1 1 0
    0 0 0 0 0 0 0 0 1 1 0
    0 0 0 0 0 0 0 0 0 0 1
    0 0 0 0 0 0 0 0 0 0 0
"""

# QEMU's job.c, JobVerbTable, in the order of JobVerb.
QEMU_VERBS = """
    0 1 1 1 1 1 1 1 0 0 0
    0 1 1 1 1 1 0 0 0 0 0
    0 1 1 1 1 1 0 0 0 0 0
    0 1 1 1 1 1 0 0 0 0 0
    0 0 0 0 1 1 0 0 0 0 0
    0 0 0 0 0 0 0 1 0 0 0
    0 0 0 0 0 0 0 0 0 1 0
    0 1 1 1 1 1 0 0 0 0 0
"""


def rows(text: str) -> list[list[bool]]:
    return [[cell == "1" for cell in line.split()] for line in text.strip().splitlines()]


QEMU_ORDER = [
    JobState.UNDEFINED,
    JobState.CREATED,
    JobState.RUNNING,
    JobState.PAUSED,
    JobState.READY,
    JobState.STANDBY,
    JobState.WAITING,
    JobState.PENDING,
    JobState.ABORTING,
    JobState.CONCLUDED,
    JobState.NULL,
]


def test_the_states_are_qemus_eleven_in_qemus_order():
    assert QEMU_ORDER == STATES


@pytest.mark.parametrize(("state", "following"), list(product(STATES, STATES)))
def test_a_state_may_follow_exactly_where_qemu_allows_it(state, following):
    expected = rows(QEMU_TRANSITIONS)[STATES.index(state)][STATES.index(following)]
    assert table.may_follow(state, following) is expected


@pytest.mark.parametrize(("verb", "state"), list(product(JobVerb, STATES)))
def test_a_verb_is_accepted_exactly_where_qemu_accepts_it(verb, state):
    expected = rows(QEMU_VERBS)[list(JobVerb).index(verb)][STATES.index(state)]
    assert table.accepts(state, verb) is expected
    assert (verb in table.allowed_verbs(state)) is expected


def test_a_pause_leads_back_to_where_it_came_from_and_nowhere_else():
    for working, paused in table.PAUSED_FORM.items():
        assert table.may_follow(working, paused)
        assert table.TRANSITIONS[paused] == {working}
        assert table.RESUMED_FORM[paused] is working


def test_every_state_but_the_first_can_be_reached_and_leads_to_the_end():
    def reachable(start):
        found, todo = set(), [start]
        while todo:
            for following in table.TRANSITIONS[todo.pop()] - found:
                found.add(following)
                todo.append(following)
        return found

    assert reachable(JobState.UNDEFINED) == set(STATES) - {JobState.UNDEFINED}
    for state in set(STATES) - {JobState.NULL}:
        assert JobState.NULL in reachable(state)


def test_the_diagram_has_an_arrow_for_every_transition_and_no_other():
    arrows = {tuple(line.split(" --> ")) for line in table.mermaid().splitlines() if "-->" in line}
    drawn = {(source.strip(), target) for source, target in arrows}
    expected = {("[*]", "CREATED")}
    for state, following in table.TRANSITIONS.items():
        if state is not JobState.UNDEFINED:
            expected |= {(str(state), "[*]" if target is JobState.NULL else str(target)) for target in following}
    assert drawn == expected


def test_the_page_in_docs_is_printed_from_the_tables():
    page = Path(__file__).parents[2] / "docs" / "job-states.md"
    assert page.read_text() == table.markdown(), "run `make docs`"
