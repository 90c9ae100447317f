"""All accounts of one node service: as they are, summed over epochs, and as they were.

Invariants.
1. `Entry.grown` only grows, whatever the source does: what an ended epoch had counted is carried over.
2. `state` and all it refers to are immutable and replaced as one, so that an exporter's thread may read it.
3. Memory is bounded: MAX_NODES open nodes, MAX_CLOSED closed ones, and a history of fixed size (`history`).
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from blockyard.stats.model.accounts import NOTHING, NodeAccount, Operation, Totals
from blockyard.stats.model.history import History

MAX_NODES: Final = 4096
"""Open nodes of one source; more are left out, with a line in the log."""
MAX_CLOSED: Final = 256
"""Nodes that are gone and still remembered, the latest ones."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One node."""

    account: NodeAccount
    """As the source said last, counted since its epoch began."""
    carried: Mapping[Operation, Totals]
    """What earlier epochs had counted under this node's name."""
    grown: Mapping[Operation, Totals]
    """Both together."""
    closed_ns: int = 0
    """Monotonic time at which it was found gone; 0 while it is open."""


@dataclass(frozen=True, slots=True)
class LedgerState:
    """All that is known of a source at one instant."""

    address: str
    instance_id: str = ""
    connected: bool = False
    reconnects: int = 0
    sample_ns: int = 0
    """When the source took its figures: since the Unix epoch."""
    heard_ns: int = 0
    """When they arrived here: monotonic; 0 is never."""
    entries: Mapping[str, Entry] = field(default_factory=dict)
    """By node name, closed ones included."""


class Ledger:
    """Takes what one source says."""

    def __init__(self, address: str) -> None:
        self.state = LedgerState(address)
        self.history = History()
        self._overflowed = False

    def connected(self) -> None:
        """The source answers."""
        again = self.state.heard_ns != 0
        self.state = replace(self.state, connected=True, reconnects=self.state.reconnects + again)

    def disconnected(self) -> None:
        """The source does not answer; its figures stay as they were."""
        self.state = replace(self.state, connected=False)

    def take(self, instance_id: str, accounts: Iterable[NodeAccount], sample_ns: int, now_ns: int) -> None:
        """All accounts of the source at one instant. What is not among them is closed."""
        before = self.state.entries
        entries: dict[str, Entry] = {}
        for account in accounts:
            if len(entries) >= MAX_NODES:
                self._note_overflow()
                break
            entries[account.node_name] = _entry(account, before.get(account.node_name))
        entries.update(_still_remembered(before, entries, now_ns))
        self.state = replace(
            self.state, instance_id=instance_id, sample_ns=sample_ns, heard_ns=now_ns, entries=entries
        )
        self.history.add(now_ns, {name: entry.grown for name, entry in entries.items()})

    def _note_overflow(self) -> None:
        if not self._overflowed:
            self._overflowed = True
            _log.warning("more nodes than are kept", extra={"address": self.state.address, "limit": MAX_NODES})


def _entry(account: NodeAccount, before: Entry | None) -> Entry:
    if before is None:
        return Entry(account, {}, account.operations)
    carried = before.carried if account.continues(before.account) else before.grown
    if not carried:
        # Idle nodes share their figures with the snapshots before, which then cost nothing.
        same = account.operations == before.account.operations
        return Entry(account, carried, before.grown if same else account.operations)
    if carried is before.carried and account.operations == before.account.operations:
        return Entry(account, carried, before.grown)
    return Entry(account, carried, added(carried, account.operations))


def added(first: Mapping[Operation, Totals], second: Mapping[Operation, Totals]) -> Mapping[Operation, Totals]:
    """Operation by operation."""
    return {
        operation: first.get(operation, NOTHING).plus(second.get(operation, NOTHING))
        for operation in dict.fromkeys((*first, *second))
    }


def _still_remembered(
    before: Mapping[str, Entry], present: Mapping[str, Entry], now_ns: int
) -> list[tuple[str, Entry]]:
    closed = [
        (name, entry if entry.closed_ns else replace(entry, closed_ns=now_ns))
        for name, entry in before.items()
        if name not in present
    ]
    closed.sort(key=lambda each: each[1].closed_ns)
    return closed[-MAX_CLOSED:]
