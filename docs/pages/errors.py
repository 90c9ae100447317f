"""`docs/errors.md`: the error catalogue."""

import inspect
from typing import Final

from blockyard.base import errors
from blockyard.rpc.status import PRECONDITIONS, RESOURCES

INTRODUCTION: Final = """\
# Errors

Printed from `services/common/blockyard/base/errors/` by `make docs`; do not edit.

Every error travels as `google.rpc.Status` in the trailer `grpc-status-details-bin`. It carries exactly one
`google.rpc.ErrorInfo` with the domain `blockyard` and a **reason** from this page. Reasons never change their
meaning, and a field never disappears, so programs may rely on both; messages are for people and may change.
`ErrorInfo.metadata` holds the fields below as text, `advice` (what to do), and `trace_id` if there is one: the same
id stands in the service's log.

| detail | when |
|---|---|
| `BadRequest` | a field of the request is at fault; `field` names it |
| `PreconditionFailure` | something stands in the way; `subject` is what, `description` who |
| `ResourceInfo` | the error is about a resource; `owner` names who holds it |
| `RetryInfo` | the same call may succeed after the delay |

An error that gRPC itself makes (a service that does not answer, a deadline) carries no details; clients of this
project raise the class for its code: UNAVAILABLE is `PEER_UNAVAILABLE`, DEADLINE_EXCEEDED `DEADLINE_PASSED`,
CANCELLED `CALL_CANCELLED`, UNIMPLEMENTED `NOT_IMPLEMENTED`, anything else `REMOTE_ERROR`.
"""


def page() -> str:
    """The whole page."""
    kinds = list(errors.CATALOGUE.values())
    overview = ["## All reasons", "", "| reason | code | retry | meaning |", "|---|---|---|---|"]
    overview += [_row(kind) for kind in kinds]
    parts = [INTRODUCTION, "\n".join(overview), *(_section(kind) for kind in kinds)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _row(kind: type[errors.BlockError]) -> str:
    retry = "yes" if kind.retryable else ""
    return f"| [{kind.reason}](#{kind.reason.lower()}) | {kind.code} | {retry} | {_meaning(kind)} |"


def _section(kind: type[errors.BlockError]) -> str:
    names = list(kind.from_metadata({}).values())
    lines = [f"## {kind.reason}", "", _meaning(kind), ""]
    lines += [f"- Code: `{kind.code}`", f"- Message: `{kind.template}`", f"- What to do: {kind.advice}"]
    lines += [f"- Fields: {', '.join(f'`{name}`' for name in names)}"] if names else []
    lines += [f"- Details: {', '.join(_details(kind))}"] if _details(kind) else []
    return "\n".join(lines)


def _details(kind: type[errors.BlockError]) -> list[str]:
    found = {
        f"`BadRequest` for `{kind.field}`": bool(kind.field),
        "`PreconditionFailure`": kind.reason in PRECONDITIONS,
        "`ResourceInfo`": kind.reason in RESOURCES,
        "`RetryInfo`": kind.retryable,
    }
    return [name for name, present in found.items() if present]


def _meaning(kind: type[errors.BlockError]) -> str:
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split())
