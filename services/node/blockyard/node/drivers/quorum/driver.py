"""Requests of a quorum: reads are put to the vote, changes go to all children.

Theory. All children shall hold the same bytes. A change excludes every other request of its range until it has
ended in all children (`changes_exclude`), and ends there even if who asked is cancelled; so a vote never sees a
write half done, and two writes that overlap are in one order in all copies. QEMU leaves both to the guest: there a
read beside a write may fail, or write the old bytes back.

A discard may read as anything afterwards, in each child something else. Here it writes zeroes where unmapping is
allowed, which all copies keep alike; QEMU's quorum has none at all.

Invariants
1. No child is shorter than `size`. All are exactly so long when they come.
2. An inline read has seen all copies alike, or with `fifo` the first one.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from blockyard.base.errors import (
    BlockError,
    CopiesDiffer,
    InvalidArgument,
    LimitReached,
    NodeInUse,
    NodeReadOnly,
    NoSpace,
    OperationUnsupported,
    QuorumFailed,
)
from blockyard.base.ranges import align_up
from blockyard.base.units import MIB, SECTOR
from blockyard.node.drivers import _copies
from blockyard.node.drivers._copies import Answer, Request
from blockyard.node.drivers.quorum import voting
from blockyard.node.drivers.quorum.reporting import FLUSH, READ, WRITE, Reporter
from blockyard.node.interface.child import Buffer, Child
from blockyard.node.interface.driver import ChildSlot, DriverContext, NodeInfo, ProtocolDriver
from blockyard.node.interface.flags import MAY_UNMAP, NO_FALLBACK, Preallocation, Role
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import MapKind
from blockyard.node.interface.mapping import Mapping as Place
from blockyard.node.interface.permissions import CONSISTENT_READ, WRITE_UNCHANGED, Permissions
from blockyard.node.interface.permissions import WRITE as MAY_WRITE

CHILDREN_MAX: Final = 32
"""Each costs a buffer of the request's length in every vote."""
VOTE_MAX: Final = 1 * MIB
"""Longer reads are voted on piece by piece: memory for a vote is this times the children."""
INLINE_MAX: Final = 1 * MIB
"""Bytes that an inline read may look at in all copies together: more would hold up the loop."""


class ReadPattern(StrEnum):
    """QEMU's QuorumReadPattern."""

    QUORUM = "quorum"
    FIFO = "fifo"


@dataclass(frozen=True, slots=True)
class QuorumOptions:
    """Options of driver `quorum`."""

    vote_threshold: int
    """How many children must agree, or must have done what was asked; at least 1."""
    blkverify: bool = False
    """Two children that must never differ; a difference is reported with its place and the request fails."""
    rewrite_corrupted: bool = False
    """Write the winning version to children that lost a vote. Not when the node is read-only."""
    read_pattern: ReadPattern = ReadPattern.QUORUM
    """`quorum` reads all children and votes; `fifo` reads the first one that works."""


class QuorumDriver(ProtocolDriver):
    """Writes to several nodes and reads what most of them say."""

    name = "quorum"
    Options = QuorumOptions
    children = (ChildSlot("children", Role.DATA, many=True),)
    changes_exclude = True

    def __init__(self, options: QuorumOptions, context: DriverContext) -> None:
        self._options = options
        self._node_name = context.node_name
        self._context = context
        self._reporter = Reporter(context.report, context.clock)
        self._growing = asyncio.Lock()
        self._children: tuple[Child, ...] = ()
        self._next_index = 0
        self._uneven = False
        """A change of size failed in part: some children may be longer than the others."""
        self.limits = Limits(max_transfer=VOTE_MAX)

    @classmethod
    async def open(cls, options: QuorumOptions, context: DriverContext) -> Self:
        _check_options(options, len(context.children))
        self = cls(options, context)
        self.check_children(context.children)
        self.adopt_children(context.children)
        self.size = self._children[0].size
        return self

    # --- children (see ManyChildren) ---------------------------------------------------------------------

    def next_child(self, children: Mapping[str, Child]) -> str:
        """One more than any index there has been: a name means one child as long as the node is open. (QEMU gives
        the last one again when it is free.)"""
        return f"children.{max([self._next_index, *(_index(name) + 1 for name in children)])}"

    def check_children(self, children: Mapping[str, Child]) -> None:
        """Raises InvalidArgument, LimitReached or NodeInUse. Whether they may be written permissions tell."""
        threshold, count = self._options.vote_threshold, len(children)
        if count > CHILDREN_MAX:
            raise LimitReached("children of a quorum", CHILDREN_MAX)
        if count < threshold:
            raise InvalidArgument("children", f"{threshold} or more, the votes that are needed", str(count))
        if self._options.blkverify and count != 2:
            raise InvalidArgument("children", "two with blkverify", str(count))
        names: set[str] = set()
        size = self.size if self._children else next(iter(children.values())).size
        for name, child in children.items():
            if child.node_name in names:
                raise NodeInUse(child.node_name, "count twice the votes of", self._node_name)
            names.add(child.node_name)
            if child.size != size and not (self._uneven and child.size > size):
                raise InvalidArgument(name, f"a node of {size} bytes, as the others", f"{child.size} bytes")

    def adopt_children(self, children: Mapping[str, Child]) -> Callable[[], None]:
        """In the order of their indexes, which is that of `fifo`."""
        before, next_index = self._children, self._next_index
        self._children = tuple(children[name] for name in sorted(children, key=_index))
        self._next_index = max(next_index, *(_index(name) + 1 for name in children))
        self._reporter.forget_all_but({child.name for child in (*before, *self._children)})

        def take_back() -> None:
            self._children, self._next_index = before, next_index

        return take_back

    def child_permissions(self, child: str, role: Role, above: Permissions, *, writable: bool) -> Permissions:
        """As its parents have it, but nobody else may make one copy differ from the others (quorum_child_perm)."""
        used = above.used | (MAY_WRITE if self._rewrites() else 0)
        return Permissions(used, above.shared & (CONSISTENT_READ | WRITE_UNCHANGED))

    # --- reads -------------------------------------------------------------------------------------------

    def read_now(self, offset: int, into: memoryview) -> bool:
        children = self._children
        try:
            if self._options.read_pattern is ReadPattern.FIFO:
                return children[0].read_now(offset, into)
            if len(into) * len(children) > INLINE_MAX or not children[0].read_now(offset, into):
                return False
            for child in children[1:]:
                copy = bytearray(len(into))
                if not child.read_now(offset, memoryview(copy)) or not _copies.is_same(copy, into):
                    return False
        except BlockError:
            return False
        return True

    async def read(self, offset: int, into: memoryview) -> None:
        if self._options.read_pattern is ReadPattern.FIFO:
            await self._read_first(offset, into)
            return
        children = self._children
        copies = [bytearray(len(into)) for _ in children]
        answers = await _copies.read_each(children, offset, copies)
        self._judge(READ, offset, len(into), answers)
        voters = [at for at, answer in enumerate(answers) if answer is None]
        versions = voting.versions_of(copies, voters)
        winner = versions[0] if len(versions) == 1 else self._winner(offset, copies, versions)
        into[:] = copies[winner[0]]
        losers = [children[at] for at in voters if at not in winner]
        for child in losers:
            self._reporter.child_is_bad(child, READ, offset, len(into))
        if losers and self._rewrites():
            await self._rewrite(losers, offset, copies[winner[0]])

    async def _read_first(self, offset: int, into: memoryview) -> None:
        failures: list[BlockError] = []
        for child in self._children:
            try:
                if not child.read_now(offset, into):
                    await child.read(offset, into)
                return
            except BlockError as error:
                self._reporter.child_is_bad(child, READ, offset, len(into), error)
                failures.append(error)
        self._reporter.nobody_won(READ, offset, len(into))
        raise failures[-1]

    def _winner(self, offset: int, copies: Sequence[bytearray], versions: list[list[int]]) -> list[int]:
        """Raises QuorumFailed, or CopiesDiffer with `blkverify`."""
        length = len(copies[0])
        winner = voting.winner_of(versions)
        if self._options.blkverify or len(winner) < self._options.vote_threshold:
            self._reporter.nobody_won(READ, offset, length)
        if self._options.blkverify:
            place = _copies.first_difference(copies[0], copies[1])
            detail = _copies.bytes_at(self._children, copies, place)
            raise CopiesDiffer(self._node_name, READ, offset + place, detail)
        if len(winner) < self._options.vote_threshold:
            raise QuorumFailed(self._node_name, offset, length, len(winner), self._options.vote_threshold)
        return winner

    async def _rewrite(self, losers: Sequence[Child], offset: int, content: bytearray) -> None:
        """Best effort. Nothing else changes the range meanwhile: who would waits for this read to end."""
        answers = await _copies.write_each(losers, offset, content, 0)
        for child, answer in zip(losers, answers, strict=True):
            if answer is not None:
                self._reporter.child_is_bad(child, WRITE, offset, len(content), answer)

    # --- changes -----------------------------------------------------------------------------------------

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        await self._make_room(offset + len(data))
        answers = await _copies.write_each(self._children, offset, data, flags)
        self._judge(WRITE, offset, len(data), answers)

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        """Not with NO_FALLBACK: some children could, others could not, and then the copies would differ."""
        if flags & NO_FALLBACK:
            return False
        await self._make_room(offset + length)
        await self._change(WRITE, offset, length, [child.zero(offset, length, flags) for child in self._children])
        return True

    async def discard(self, offset: int, length: int) -> None:
        await self.zero(offset, length, MAY_UNMAP)

    async def flush(self) -> None:
        await self._change(FLUSH, 0, 0, [child.flush() for child in self._children])

    async def truncate(self, size: int, preallocation: Preallocation, exact: bool) -> None:
        """All children, or a failure: see `Resizable.truncate`. Growing is undone where it succeeded; after a
        failed shrinking some children may be longer than the node, and it can be repeated."""
        self._check_writable()
        async with self._growing:
            await _copies.to_the_end(self._resize(size, preallocation))

    async def _make_room(self, end: int) -> None:
        self._check_writable()
        if end <= self.size:
            return
        async with self._growing:
            if end <= self.size:
                return
            try:
                # Formats have whole sectors.
                await _copies.to_the_end(self._resize(align_up(end, SECTOR), Preallocation.OFF))
            except OperationUnsupported as problem:
                raise NoSpace(self._node_name, "grow") from problem

    async def _resize(self, size: int, preallocation: Preallocation) -> None:
        before, children = self.size, self._children
        answers = await _copies.ask([child.truncate(size, preallocation, exact=True) for child in children])
        failures = [answer for answer in answers if answer is not None]
        for child, answer in zip(children, answers, strict=True):
            if answer is not None:
                self._reporter.child_is_bad(child, WRITE, min(size, before), abs(size - before), answer)
        if failures and size > before:
            grown = [child for child, answer in zip(children, answers, strict=True) if answer is None]
            if grown:
                undone = await _copies.ask([child.truncate(before, exact=True) for child in grown])
                self._uneven |= any(answer is not None for answer in undone)
        elif len(failures) < len(children):
            self.size, self._uneven = size, bool(failures)
        if failures:
            raise voting.voted_failure(failures)

    async def _change(self, type_: str, offset: int, length: int, requests: Sequence[Request]) -> None:
        answers = await _copies.to_the_end(_copies.ask(requests))
        self._judge(type_, offset, length, answers)

    def _judge(self, type_: str, offset: int, length: int, answers: Sequence[Answer]) -> None:
        """Report the children that failed; raise what most of them met if too few did not."""
        failures = []
        for child, answer in zip(self._children, answers, strict=True):
            if answer is not None:
                failures.append(answer)
                self._reporter.child_is_bad(child, type_, offset, length, answer)
        if len(answers) - len(failures) < self._options.vote_threshold:
            self._reporter.nobody_won(type_, offset, length)
            raise voting.voted_failure(failures)

    def _rewrites(self) -> bool:
        return self._options.rewrite_corrupted and not self._context.read_only

    def _check_writable(self) -> None:
        if self._context.read_only:
            raise NodeReadOnly(self._node_name)

    # --- facts -------------------------------------------------------------------------------------------

    async def map(self, offset: int, length: int) -> Place:
        """Zeroes if all children say so, as far as all of them do; else data, as far as one of them does
        (quorum_co_block_status). A child that cannot tell makes all of it data."""
        zero, data = length, 0
        for child in self._children:
            try:
                is_zero, alike = await child.reads_as_zeroes(offset, length)
            except BlockError as error:
                self._reporter.child_is_bad(child, READ, offset, length, error)
                return Place(MapKind.DATA, length, None, -1)
            zero, data = (min(zero, alike), data) if is_zero else (zero, max(data, alike))
        # There is no one place where the bytes are.
        return Place(MapKind.DATA, data, None, -1) if data else Place(MapKind.ZERO, zero, None, -1)

    async def info(self) -> NodeInfo:
        facts: dict[str, str | int | bool] = {
            "children": len(self._children),
            "vote-threshold": self._options.vote_threshold,
            "failed-votes": self._reporter.failures,
        }
        facts |= {f"{child.name}.bad": self._reporter.bad.get(child.name, 0) for child in self._children}
        return NodeInfo(specific=facts)


def _index(name: str) -> int:
    return int(name.rpartition(".")[2])


def _check_options(options: QuorumOptions, count: int) -> None:
    """What QEMU's quorum_open checks; raises InvalidArgument. What QEMU ignores silently is refused here."""
    threshold, is_fifo = options.vote_threshold, options.read_pattern is ReadPattern.FIFO
    refusals = (
        (threshold < 1, "vote_threshold", "1 or more", str(threshold)),
        (threshold > count, "vote_threshold", f"at most {count}, the number of children", str(threshold)),
        (
            options.blkverify and (count, threshold) != (2, 2),
            "blkverify",
            "two children and a vote_threshold of 2",
            f"{count} children and {threshold}",
        ),
        (
            options.blkverify and options.rewrite_corrupted,
            "rewrite_corrupted",
            "false with blkverify: no version is the right one",
            "true",
        ),
        (
            is_fifo and (options.blkverify or options.rewrite_corrupted),
            "read_pattern",
            "quorum with blkverify or rewrite_corrupted: fifo compares nothing",
            "fifo",
        ),
    )
    for is_so, option, expected, found in refusals:
        if is_so:
            raise InvalidArgument(option, expected, found)
