"""Driver `quorum` without the graph: the contract, votes and their ties, failures of children, events, sizes."""

import asyncio
import errno
import itertools
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import (
    BlockError,
    CopiesDiffer,
    IoError,
    NoSpace,
    OperationUnsupported,
    QuorumFailed,
)
from blockyard.node.drivers.quorum import voting
from blockyard.node.drivers.quorum.driver import VOTE_MAX
from blockyard.node.interface.child import Buffer, Child
from blockyard.node.interface.flags import NO_FALLBACK, Preallocation
from blockyard.node.interface.mapping import MapKind
from tests.support.contract import DriverContract
from tests.support.ground import DriverChild, Ground

SIZE = 1 << 20


class TestQuorum(DriverContract):
    driver = "quorum"
    discard_zeroes = True

    async def prepare(self, ground: Ground) -> None:
        for at in range(3):
            (ground.root / f"copy{at}").write_bytes(bytes(self.size))

    def options(self) -> dict[str, object]:
        return {"vote_threshold": 2}

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        return {
            f"children.{at}": await ground.open(
                "file", {"filename": f"copy{at}"}, name=f"children.{at}", read_only=read_only
            )
            for at in range(3)
        }


class TestQuorumFifo(TestQuorum):
    def options(self) -> dict[str, object]:
        return {"vote_threshold": 1, "read_pattern": "fifo"}


class TestQuorumBlkverify(TestQuorum):
    def options(self) -> dict[str, object]:
        return {"vote_threshold": 2, "blkverify": True}

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        found = await super().children(ground, read_only)
        del found["children.2"]
        return found


# --- a quorum over children that fail as told ------------------------------------------------------------


class Moody(DriverChild):
    """A child over a memory driver that fails requests with the error it was given, and never answers inline when
    it is told not to."""

    def __init__(self, inner: DriverChild, name: str) -> None:
        super().__init__(inner.driver, inner.context, name)
        self.errors: dict[str, BlockError] = {}
        self.asked: list[str] = []
        self.inline = True

    def _meet(self, operation: str) -> None:
        self.asked.append(operation)
        if operation in self.errors:
            raise self.errors[operation]

    def read_now(self, offset: int, into: memoryview) -> bool:
        if self.inline:
            self._meet("read")
        return self.inline and super().read_now(offset, into)

    async def read(self, offset: int, into: memoryview) -> None:
        self._meet("read")
        await super().read(offset, into)

    def write_now(self, offset: int, data: Buffer, flags: int = 0) -> bool:
        if self.inline:
            self._meet("write")
        return self.inline and super().write_now(offset, data, flags)

    async def write(self, offset: int, data: Buffer, flags: int = 0) -> None:
        self._meet("write")
        await super().write(offset, data, flags)

    async def zero(self, offset: int, length: int, flags: int = 0) -> None:
        self._meet("zero")
        await super().zero(offset, length, flags)

    async def flush(self) -> None:
        self._meet("flush")
        await super().flush()

    async def truncate(
        self, size: int, preallocation: Preallocation = Preallocation.OFF, exact: bool = False
    ) -> None:
        self._meet("truncate")
        await super().truncate(size, preallocation, exact)

    async def reads_as_zeroes(self, offset: int, length: int) -> tuple[bool, int]:
        self._meet("map")
        return await super().reads_as_zeroes(offset, length)


class House:
    """Quorums over moody children, with their events."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.clock = VirtualClock()
        ground.clock = self.clock
        self.events: list[tuple[str, Mapping[str, str]]] = []
        self.children: list[Moody] = []

    async def child(self, at: int, size: int = SIZE, read_only: bool = False) -> Moody:
        name = f"children.{at}"
        return Moody(await self.ground.open("memory", {"size": size}, name=name, read_only=read_only), name)

    async def quorum(
        self, count: int = 3, threshold: int = 2, read_only: bool = False, **options: Any
    ) -> DriverChild:
        self.children = [await self.child(at) for at in range(count)]
        return await self.over(*self.children, threshold=threshold, read_only=read_only, **options)

    async def over(
        self, *children: Child, threshold: int = 2, read_only: bool = False, **options: Any
    ) -> DriverChild:
        return await self.ground.open(
            "quorum",
            {"vote_threshold": threshold, **options},
            {child.name: child for child in children},
            read_only=read_only,
            report=lambda kind, details: self.events.append((kind, details)),
        )

    def kinds(self) -> list[tuple[str, str]]:
        """Of each event its kind, and the child or nothing."""
        return [(kind, details.get("child", "")) for kind, details in self.events]

    def fail(self, at: int, operation: str, code: int = errno.EIO) -> IoError:
        error = IoError(f"node of children.{at}", operation, code, "as told")
        self.children[at].errors[operation] = error
        return error


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    ground = Ground(tmp_path)
    yield House(ground)
    await ground.leave()


BAD, FAILURE = "quorum-report-bad", "quorum-failure"


# --- votes -----------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=9))
def test_a_version_has_the_votes_of_all_who_read_it_and_the_last_of_the_greatest_wins(words: list[bytes]):
    versions = voting.versions_of([bytearray(word) for word in words], range(len(words)))
    assert sorted(itertools.chain(*versions)) == list(range(len(words)))
    for version in versions:
        assert {words[at] for at in version} == {words[version[0]]}
    assert len({words[version[0]] for version in versions}) == len(versions)
    most = max(words.count(word) for word in set(words))
    last = [version for version in versions if len(version) == most][-1]
    assert voting.winner_of(versions) == last


def test_of_different_failures_the_one_that_most_children_met_is_told():
    failures = [IoError("n", "read", code, "") for code in (5, 28, 28, 5, 28)]
    assert voting.voted_failure(failures) is failures[1]
    assert voting.voted_failure(failures[:2]) is failures[1]


async def test_the_majority_is_read_whatever_a_minority_says(house: House):
    node = await house.quorum(5, 3)
    await node.write(0, b"right" * 100)
    for at in (0, 3):
        await house.children[at].write(0, b"wrong" * 100)
    assert await node.content(0, 500) == b"right" * 100
    assert house.kinds() == [(BAD, "children.0"), (BAD, "children.3")]
    assert house.events[0][1] == {
        "type": "read",
        "child": "children.0",
        "child_node_name": house.children[0].node_name,
        "offset_bytes": "0",
        "length_bytes": "500",
    }


async def test_two_wrong_children_that_differ_do_not_outvote_the_right_ones(house: House):
    node = await house.quorum(4, 2)
    for at, data in ((0, b"x"), (3, b"y")):
        await house.children[at].write(100, data)
    assert await node.content(0, 200) == bytes(200)


async def test_without_enough_votes_the_read_fails_and_says_how_many_there_were(house: House):
    node = await house.quorum(3, 3)
    await house.children[1].write(4096, b"x")
    with pytest.raises(QuorumFailed) as failure:
        await node.content(4096, 512)
    assert (failure.value.offset, failure.value.length) == (4096, 512)
    assert (failure.value.votes, failure.value.threshold) == (2, 3)
    assert house.kinds() == [(FAILURE, "")]
    assert await node.content(0, 4096) == bytes(4096)


async def test_a_child_that_cannot_read_does_not_count(house: House):
    node = await house.quorum(3, 2)
    house.fail(0, "read")
    assert await node.content(0, 512) == bytes(512)
    assert house.kinds() == [(BAD, "children.0")]
    assert house.events[0][1]["reason"] == "IO_ERROR" and "as told" in house.events[0][1]["error"]
    house.fail(1, "read", errno.ENOMEM)
    house.fail(2, "read", errno.ENOMEM)
    with pytest.raises(IoError) as failure:
        await node.content(0, 512)
    assert failure.value.errno == errno.ENOMEM
    assert (FAILURE, "") in house.kinds()


async def test_long_reads_are_voted_on_piece_by_piece(house: House):
    assert (await house.quorum()).limits.max_transfer == VOTE_MAX


async def test_an_inline_read_answers_only_when_all_agree(house: House):
    node = await house.quorum(3, 1)
    into = memoryview(bytearray(512))
    assert node.read_now(0, into)
    await house.children[2].write(0, b"x")
    assert not node.read_now(0, into)
    assert not house.events
    house.children[1].inline = False
    assert not node.read_now(4096, into)
    house.fail(0, "read")
    assert not node.read_now(8192, into)


async def test_a_write_is_never_inline_for_a_part_of_the_children_might_refuse(house: House):
    assert not (await house.quorum()).write_now(0, b"x")


# --- rewriting -------------------------------------------------------------------------------------------


async def test_the_winner_is_written_to_who_lost(house: House):
    node = await house.quorum(3, 2, rewrite_corrupted=True)
    await node.write(0, b"right" * 100)
    await house.children[2].write(0, b"wrong" * 100)
    assert await node.content(0, 500) == b"right" * 100
    assert await house.children[2].content(0, 600) == b"right" * 100 + bytes(100)
    house.events.clear()
    assert await node.content(0, 500) == b"right" * 100
    assert not house.events


async def test_a_rewrite_that_fails_is_reported_and_no_error(house: House):
    node = await house.quorum(3, 2, rewrite_corrupted=True)
    await house.children[2].write(0, b"x")
    house.fail(2, "write")
    assert await node.content(0, 512) == bytes(512)
    assert [details["type"] for _, details in house.events] == ["read", "write"]


async def test_a_read_only_quorum_rewrites_nothing(house: House):
    node = await house.quorum(3, 2, read_only=True, rewrite_corrupted=True)
    await house.children[2].write(0, b"x")
    assert await node.content(0, 1) == b"\0"
    assert await house.children[2].content(0, 1) == b"x"


# --- fifo ------------------------------------------------------------------------------------------------


async def test_fifo_reads_the_first_that_works_and_asks_nobody_else(house: House):
    node = await house.quorum(3, 1, read_pattern="fifo")
    await house.children[0].write(0, b"first")
    house.children[0].inline = False
    assert await node.content(0, 5) == b"first"
    assert house.children[1].asked == house.children[2].asked == []
    house.fail(0, "read")
    await house.children[1].write(0, b"second")
    assert await node.content(0, 6) == b"second"
    assert "read" not in house.children[2].asked
    assert house.kinds() == [(BAD, "children.0")]


async def test_fifo_goes_by_index_not_by_the_order_of_definition(house: House):
    children = [await house.child(at) for at in (10, 9)]
    await children[0].write(0, b"ten")
    await children[1].write(0, b"nine")
    assert await (await house.over(*children, threshold=1, read_pattern="fifo")).content(0, 4) == b"nine"


async def test_fifo_fails_with_the_last_failure_when_nobody_can_read(house: House):
    node = await house.quorum(2, 1, read_pattern="fifo")
    house.fail(0, "read")
    last = house.fail(1, "read", errno.ENXIO)
    with pytest.raises(IoError) as failure:
        await node.content(0, 512)
    assert failure.value is last
    assert house.kinds() == [(BAD, "children.0"), (BAD, "children.1"), (FAILURE, "")]


# --- changes ---------------------------------------------------------------------------------------------


async def change(node: DriverChild, operation: str) -> None:
    await {
        "write": lambda: node.write(0, b"x" * 512),
        "zero": lambda: node.zero(0, 512),
        "flush": lambda: node.flush(),
    }[operation]()


@pytest.mark.parametrize("operation", ["write", "zero", "flush"])
@pytest.mark.parametrize("inline", [True, False])
async def test_a_change_succeeds_if_enough_children_did_it(house: House, operation: str, inline: bool):
    node = await house.quorum(3, 2)
    for child in house.children:
        child.inline = inline
    house.fail(1, operation)
    await change(node, operation)
    assert house.kinds() == [(BAD, "children.1")]
    assert house.events[0][1]["type"] == ("flush" if operation == "flush" else "write")
    assert all(operation in child.asked for child in house.children)
    house.fail(0, operation, errno.ENOSPC)
    house.fail(1, operation, errno.ENOSPC)
    with pytest.raises(IoError) as failure:
        await change(node, operation)
    assert failure.value.errno == errno.ENOSPC
    assert house.kinds()[-1] == (FAILURE, "")


async def test_a_discard_leaves_all_copies_alike(house: House):
    node = await house.quorum()
    await node.write(0, b"x" * 100_000)
    await node.discard(4097, 70_001)
    contents = {await child.content() for child in house.children}
    assert contents == {b"x" * 4097 + bytes(70_001) + b"x" * (100_000 - 74_098) + bytes(SIZE - 100_000)}


async def test_zeroes_that_must_not_be_written_are_refused_before_any_child_has_them(house: House):
    node = await house.quorum()
    assert not await node.driver.zero(0, 4096, NO_FALLBACK)
    assert all("zero" not in child.asked for child in house.children)


async def test_who_is_cancelled_leaves_no_copy_behind_the_others(house: House):
    node = await house.quorum()
    held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    slow = house.children[1]
    slow.inline = False

    async def late(offset: int, data: Buffer, flags: int = 0) -> None:
        await held
        await DriverChild.write(slow, offset, data, flags)

    slow.write = late  # type: ignore[method-assign]
    writing = asyncio.create_task(node.write(0, b"all"))
    for _ in range(3):
        await asyncio.sleep(0)
    for _ in range(2):
        writing.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not writing.done()
    held.set_result(None)
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert [await child.content(0, 3) for child in house.children] == [b"all"] * 3


# --- sizes -----------------------------------------------------------------------------------------------


async def test_all_children_are_resized(house: House):
    node = await house.quorum()
    for size in (2 * SIZE, SIZE // 2):
        await node.truncate(size)
        assert [child.size for child in house.children] == [size] * 3 and node.size == size


async def test_a_growth_that_one_child_cannot_do_is_undone_in_the_others(house: House):
    node = await house.quorum()
    error = house.fail(1, "truncate", errno.EFBIG)
    with pytest.raises(IoError) as failure:
        await node.truncate(2 * SIZE)
    assert failure.value is error
    assert [child.size for child in house.children] == [SIZE] * 3 and node.size == SIZE


async def test_a_shrinking_that_one_child_cannot_do_can_be_repeated(house: House):
    node = await house.quorum()
    house.fail(1, "truncate")
    with pytest.raises(IoError):
        await node.truncate(SIZE // 2)
    assert node.size == SIZE // 2
    house.children[1].errors.clear()
    await node.truncate(SIZE // 2)
    assert [child.size for child in house.children] == [SIZE // 2] * 3


async def test_writes_past_the_end_at_once_grow_all_children_alike(house: House):
    node = await house.quorum()
    await asyncio.gather(*(node.write(SIZE + at * 10_000, bytes([at]) * 100) for at in range(1, 5)))
    sizes = {child.size for child in house.children}
    assert sizes == {node.size} and node.size % 512 == 0 and node.size >= SIZE + 40_100
    assert len({await child.content() for child in house.children}) == 1


async def test_a_write_past_the_end_over_a_child_that_cannot_grow_has_no_space(house: House):
    children = [await house.child(0), await house.child(1)]
    node = await house.over(*children, threshold=1)
    children[1].errors["truncate"] = OperationUnsupported("n", "d", "change its size")
    with pytest.raises(NoSpace):
        await node.write(SIZE, b"x")
    assert [child.size for child in children] == [SIZE] * 2


# --- block status ----------------------------------------------------------------------------------------


async def test_zeroes_are_what_all_children_call_zeroes(house: House):
    node = await house.quorum()
    await house.children[1].write(128 << 10, b"x")
    await house.children[2].write(192 << 10, b"x")
    found = await node.map(0, SIZE)
    assert (found.kind, found.length) == (MapKind.ZERO, 128 << 10)
    found = await node.map(128 << 10, SIZE - (128 << 10))
    assert (found.kind, found.length) == (MapKind.DATA, 64 << 10)


async def test_a_child_that_cannot_tell_makes_it_data(house: House):
    node = await house.quorum()
    house.fail(1, "map")
    found = await node.map(0, SIZE)
    assert (found.kind, found.length) == (MapKind.DATA, SIZE)
    assert house.kinds() == [(BAD, "children.1")]


# --- reports ---------------------------------------------------------------------------------------------


async def test_a_child_that_is_bad_all_the_time_is_reported_once_a_second_and_counted_always(house: House):
    node = await house.quorum()
    house.fail(1, "read")
    for _ in range(100):
        await node.content(0, 512)
    assert len(house.events) == 1 and "left_out" not in house.events[0][1]
    await house.clock.advance(1)
    await node.content(0, 512)
    assert len(house.events) == 2 and house.events[1][1]["left_out"] == "99"
    facts = (await node.driver.info()).specific
    assert facts["children.1.bad"] == 101 and facts["children.0.bad"] == 0
    house.fail(1, "write")
    await node.write(0, b"x")
    assert len(house.events) == 3, "another kind of failure is another report"


# --- blkverify -------------------------------------------------------------------------------------------


async def test_in_blkverify_mode_the_first_difference_is_named(house: House):
    node = await house.quorum(2, 2, blkverify=True)
    await node.write(0, b"same" * 100)
    await house.children[1].write(133, b"S")
    with pytest.raises(CopiesDiffer) as failure:
        await node.content(100, 200)
    assert failure.value.offset == 133
    assert failure.value.detail == "children.0 has 0x61, children.1 has 0x53"
    assert house.kinds() == [(FAILURE, "")]
    assert await node.content(0, 100) == b"same" * 25
