"""What watchers are told: a child that failed or lost a vote, and a vote that nobody won.

The events are QEMU's QUORUM_REPORT_BAD and QUORUM_FAILURE, with ranges in bytes. A child that is bad is bad for
every request, so each kind of report of a child is sent at most once a second (as QEMU's monitor does it) and says
how many were left out; the counts are complete.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Final

from blockyard.base.clock import Clock
from blockyard.base.errors import BlockError
from blockyard.node.interface.child import Child

INTERVAL_NS: Final = 1_000_000_000
"""QEMU's monitor_qapi_event_conf has one second for both events."""
BAD: Final = "quorum-report-bad"
FAILURE: Final = "quorum-failure"

READ: Final = "read"
WRITE: Final = "write"
FLUSH: Final = "flush"


class Reporter:
    """Reports of one quorum."""

    def __init__(self, send: Callable[[str, Mapping[str, str]], None], clock: Clock) -> None:
        self._send = send
        self._clock = clock
        self._sent_ns: dict[tuple[str, str, str], int] = {}
        self._left_out: dict[tuple[str, str, str], int] = {}
        self.bad: dict[str, int] = {}
        """How often each child failed or lost since the node was opened."""
        self.failures = 0

    def child_is_bad(
        self, child: Child, type_: str, offset: int, length: int, error: BlockError | None = None
    ) -> None:
        """A child failed with `error`, or lost a vote without one."""
        self.bad[child.name] = self.bad.get(child.name, 0) + 1
        details = {"type": type_, "child": child.name, "child_node_name": child.node_name}
        details |= {"offset_bytes": str(offset), "length_bytes": str(length)}
        if error is not None:
            details |= {"error": str(error), "reason": error.reason}
        self._report((BAD, type_, child.name), details)

    def nobody_won(self, type_: str, offset: int, length: int) -> None:
        """Too few children did what was asked, or agreed."""
        self.failures += 1
        details = {"type": type_, "offset_bytes": str(offset), "length_bytes": str(length)}
        self._report((FAILURE, type_, ""), details)

    def forget_all_but(self, children: Collection[str]) -> None:
        """The others are gone; their names do not come back."""
        self.bad = {child: count for child, count in self.bad.items() if child in children}
        for by_key in (self._sent_ns, self._left_out):
            for key in [key for key in by_key if key[2] and key[2] not in children]:
                del by_key[key]

    def _report(self, key: tuple[str, str, str], details: dict[str, str]) -> None:
        now_ns, sent_ns = self._clock.monotonic_ns(), self._sent_ns.get(key)
        if sent_ns is not None and now_ns - sent_ns < INTERVAL_NS:
            self._left_out[key] = self._left_out.get(key, 0) + 1
            return
        self._sent_ns[key] = now_ns
        if left_out := self._left_out.pop(key, 0):
            details["left_out"] = str(left_out)
        self._send(key[0], details)
