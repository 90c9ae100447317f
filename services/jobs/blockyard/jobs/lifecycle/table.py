"""The state machine of a job: two tables and the functions that read them.

What lives here: the eleven states and eight verbs of QEMU, which state may follow which, which verb is accepted in
which state, and the page that is printed from them. What must not: a job, time, I/O. Everything is pure.

Theory: a verb never changes a state. It is accepted or refused by the second table, leaves a request behind,
and the job's own loop makes the moves that the first table allows at the next point where it may stop. So a
verb on a paused job acts through RUNNING (or READY): PAUSED and STANDBY have one way out, back to where the
pause came from.

The content of both tables is QEMU's (job.c: JobSTT, JobVerbTable; 7.2 to 10.1 agree, `change` came with 8.2).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class JobState(StrEnum):
    """QEMU's JobStatus (qapi/job.json)."""

    UNDEFINED = "UNDEFINED"
    CREATED = "CREATED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    READY = "READY"
    STANDBY = "STANDBY"
    WAITING = "WAITING"
    PENDING = "PENDING"
    ABORTING = "ABORTING"
    CONCLUDED = "CONCLUDED"
    NULL = "NULL"


class JobVerb(StrEnum):
    """QEMU's JobVerb (qapi/job.json)."""

    CANCEL = "CANCEL"
    PAUSE = "PAUSE"
    RESUME = "RESUME"
    SET_SPEED = "SET_SPEED"
    COMPLETE = "COMPLETE"
    FINALIZE = "FINALIZE"
    DISMISS = "DISMISS"
    CHANGE = "CHANGE"


_S = JobState

TRANSITIONS: Final[Mapping[JobState, frozenset[JobState]]] = {
    _S.UNDEFINED: frozenset({_S.CREATED}),
    _S.CREATED: frozenset({_S.RUNNING, _S.ABORTING, _S.NULL}),
    _S.RUNNING: frozenset({_S.PAUSED, _S.READY, _S.WAITING, _S.ABORTING}),
    _S.PAUSED: frozenset({_S.RUNNING}),
    _S.READY: frozenset({_S.STANDBY, _S.WAITING, _S.ABORTING}),
    _S.STANDBY: frozenset({_S.READY}),
    _S.WAITING: frozenset({_S.PENDING, _S.ABORTING}),
    _S.PENDING: frozenset({_S.ABORTING, _S.CONCLUDED}),
    _S.ABORTING: frozenset({_S.ABORTING, _S.CONCLUDED}),
    _S.CONCLUDED: frozenset({_S.NULL}),
    _S.NULL: frozenset(),
}
"""State x state: what may follow."""

_WORKING = frozenset({_S.CREATED, _S.RUNNING, _S.PAUSED, _S.READY, _S.STANDBY})

VERBS: Final[Mapping[JobVerb, frozenset[JobState]]] = {
    JobVerb.CANCEL: _WORKING | {_S.WAITING, _S.PENDING},
    JobVerb.PAUSE: _WORKING,
    JobVerb.RESUME: _WORKING,
    JobVerb.SET_SPEED: _WORKING,
    JobVerb.COMPLETE: frozenset({_S.READY, _S.STANDBY}),
    JobVerb.FINALIZE: frozenset({_S.PENDING}),
    JobVerb.DISMISS: frozenset({_S.CONCLUDED}),
    JobVerb.CHANGE: _WORKING,
}
"""Verb x state: where it is accepted."""

PAUSED_FORM: Final[Mapping[JobState, JobState]] = {_S.RUNNING: _S.PAUSED, _S.READY: _S.STANDBY}
"""Where a pause leads; the way back is the inverse."""

RESUMED_FORM: Final[Mapping[JobState, JobState]] = {paused: working for working, paused in PAUSED_FORM.items()}

ENDED: Final = frozenset({_S.CONCLUDED, _S.NULL})
"""States in which the outcome is known and nothing is held at the node."""


def may_follow(state: JobState, following: JobState) -> bool:
    return following in TRANSITIONS[state]


def accepts(state: JobState, verb: JobVerb) -> bool:
    return state in VERBS[verb]


def allowed_verbs(state: JobState) -> tuple[JobVerb, ...]:
    """The verbs of a state, in the order of the enumeration."""
    return tuple(verb for verb in JobVerb if state in VERBS[verb])


_MEANING: Final[Mapping[JobState, str]] = {
    _S.UNDEFINED: "Erroneous; never shown.",
    _S.CREATED: "Made, not started.",
    _S.RUNNING: "Working.",
    _S.PAUSED: "Stopped by a pause or an error policy.",
    _S.READY: "Converged; waits for complete.",
    _S.STANDBY: "READY and paused.",
    _S.WAITING: "Waits for the other jobs of its transaction; a job of its own passes at once.",
    _S.PENDING: "Waits for finalize; with auto_finalize passes at once.",
    _S.ABORTING: "Cleaning up after an error or cancel.",
    _S.CONCLUDED: "Ended; waits for dismiss; with auto_dismiss passes at once.",
    _S.NULL: "Gone; the last state that a watch shows.",
}

_RULES: Final = (
    "A verb is accepted or refused at once; what it asks happens at the job's next point where it may stop.",
    "Cancelling a paused job resumes it first: PAUSED, RUNNING, ABORTING, CONCLUDED.",
    "Complete in STANDBY is accepted at once and acts after resume.",
    "Pausing a paused job and resuming one that runs change nothing and succeed (QEMU refuses them; over a network "
    "a repeated call must be harmless).",
    "Resume clears io_status; so does cancel.",
    "While the graph change of a PENDING job is under way it accepts no verb: it cannot be undone half-way.",
    "Cancel always ends without the job's effect. QEMU's soft cancel of a READY mirror is CompleteJob with DETACH.",
    "A backup with sync NONE runs until it is cancelled, as in QEMU; its outcome is then CANCELLED.",
)


def mermaid() -> str:
    """The first table as a mermaid state diagram. UNDEFINED and NULL are its ends."""
    lines = ["stateDiagram-v2", f"    [*] --> {_S.CREATED}"]
    for state, following in TRANSITIONS.items():
        if state is _S.UNDEFINED:
            continue
        ordered = [candidate for candidate in JobState if candidate in following]
        lines += [f"    {state} --> {'[*]' if target is _S.NULL else target}" for target in ordered]
    return "\n".join(lines)


def markdown() -> str:
    """The page `docs/job-states.md`."""
    header = "| state | meaning | may be followed by | accepts |\n|---|---|---|---|"
    rows = [_row(state) for state in JobState]
    rules = "\n".join(f"- {rule}" for rule in _RULES)
    return (
        "# States and verbs of a job\n\n"
        "Printed from `services/jobs/blockyard/jobs/lifecycle/table.py`; do not edit. The tables are QEMU's "
        "(`job.c`). `JobService.DescribeStateMachine` answers the same.\n\n"
        f"```mermaid\n{mermaid()}\n```\n\n{header}\n" + "\n".join(rows) + f"\n\n## Rules\n\n{rules}\n"
    )


def _row(state: JobState) -> str:
    following, verbs = _listed(TRANSITIONS[state], JobState), _listed(allowed_verbs(state), JobVerb)
    return f"| {state} | {_MEANING[state]} | {following} | {verbs} |"


def _listed(chosen: frozenset[JobState] | tuple[JobVerb, ...], order: type[StrEnum]) -> str:
    return ", ".join(str(item) for item in order if item in chosen) or "-"
