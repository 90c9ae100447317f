"""Drivers `copy-before-write`, as a client's own, and `snapshot-access`: what a snapshot shows while guests write.

Over plain memory below, so that each step is in the test's hands; with the graph and over the API elsewhere.
"""

import asyncio
import random
from typing import Any

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import (
    BlockError,
    InvalidArgument,
    OperationUnsupported,
    RangeNotKept,
    ResourceNotFound,
)
from blockyard.base.units import KIB, MIB
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.interface.child import Buffer, Child
from blockyard.node.interface.flags import WRITE_UNCHANGED, Preallocation, Role
from blockyard.node.interface.mapping import MapKind
from blockyard.node.interface.permissions import (
    ALL,
    CONSISTENT_READ,
    NOTHING,
    WRITE,
    Permissions,
)
from tests.support.contract import DriverContract
from tests.support.ground import DriverChild, Ground

GRANULE = 64 * KIB
SIZE = 16 * GRANULE
OLD = random.Random(20261).randbytes(SIZE)


class TestCopyBeforeWriteOfAClient(DriverContract):
    driver = "copy-before-write"
    survives_close = False

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        return {
            "file": await ground.open("memory", {"size": self.size}, name="file", read_only=read_only),
            "target": await ground.open("memory", {"size": self.size}, name="target"),
        }

    async def test_a_node_can_be_resized_if_its_driver_says_so(self, ground: Ground):
        node = await self.node(ground)
        await node.truncate(2 * self.size, Preallocation.OFF, exact=True)
        await node.truncate(self.size + 1, Preallocation.OFF, exact=True)
        assert node.size == self.size + 1
        with pytest.raises(OperationUnsupported):
            await node.truncate(self.size - 1, Preallocation.OFF, exact=True)


class TestSnapshotAccess(DriverContract):
    """It shows zeroes, and is not written: what the contract writes is refused."""

    driver = "snapshot-access"
    keeps_data = False
    survives_close = False
    grows_by_writing = False

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        disk = await ground.open("memory", {"size": self.size}, name="file")
        target = await ground.open("memory", {"size": self.size}, name="target")
        return {"file": await ground.open("copy-before-write", {}, {"file": disk, "target": target})}

    async def node(self, ground: Ground, read_only: bool = False, **changed: object) -> DriverChild:
        opened = await super().node(ground, read_only, **changed)
        opened.__class__ = Refusing
        return opened

    async def test_a_read_only_node_reads_and_does_not_write(self, ground: Ground):
        node = await self.node(ground, read_only=True)
        assert await node.content() == bytes(self.size)
        with pytest.raises(OperationUnsupported):
            await node.driver.zero(0, 64 * KIB, 0)

    async def test_a_discard_touches_only_its_range_and_reads_the_same_ever_after(self, ground: Ground):
        node = await self.node(ground)
        await node.discard(65536, 262_144)
        assert await node.content(0, 65536) == bytes(65536)
        for _ in range(2):
            with pytest.raises(RangeNotKept):
                await node.content(65536, 1)

    async def test_a_child_that_keeps_no_point_in_time_is_refused(self, ground: Ground):
        with pytest.raises(OperationUnsupported):
            await ground.open("snapshot-access", {}, {"file": await ground.open("memory", {"size": MIB})})

    async def test_it_asks_nothing_of_its_child(self, ground: Ground):
        driver = (await self.node(ground)).driver
        above = Permissions(CONSISTENT_READ | WRITE, ALL)
        assert driver.child_permissions("file", Role.DATA, above, writable=True) == NOTHING
        assert driver.opening_permissions(Role.DATA, None, writable=True) == NOTHING


class Refusing(DriverChild):
    """Lets the contract write, and sees to it that each of its writes is refused."""

    async def write(self, offset: int, data: Buffer, flags: int = 0) -> None:
        try:
            await super().write(offset, data, flags)
        except OperationUnsupported:
            if offset + len(data) > self.size:
                raise
        else:
            raise AssertionError("a point in time was written")

    async def zero(self, offset: int, length: int, flags: int = 0) -> None:
        await self.write(offset, bytes(min(length, self.size - offset)), flags)


# --- a disk, its target, the filter and what shows its past --------------------------------------------------


class Hooked(DriverChild):
    """A child whose requests can be held, and fail."""

    def __init__(self, inner: DriverChild) -> None:
        super().__init__(inner.driver, inner.context, inner.name)
        self.error: BlockError | None = None
        self.reading = self.writing = asyncio.Event()
        self.reading.set()
        self.reads: list[int] = []
        self.writes: list[tuple[str, int, int]] = []

    def read_now(self, offset: int, into: memoryview) -> bool:
        return False

    def write_now(self, offset: int, data: Buffer, flags: int = 0) -> bool:
        return False

    async def read(self, offset: int, into: memoryview) -> None:
        self.reads.append(offset)
        await self.reading.wait()
        await super().read(offset, into)

    async def write(self, offset: int, data: Buffer, flags: int = 0) -> None:
        await self._enter("write", offset, len(data))
        await super().write(offset, data, flags)

    async def zero(self, offset: int, length: int, flags: int = 0) -> None:
        await self._enter("zero", offset, length)
        await super().zero(offset, length, flags)

    async def discard(self, offset: int, length: int) -> None:
        await self._enter("discard", offset, length)
        await super().discard(offset, length)

    async def _enter(self, what: str, offset: int, length: int) -> None:
        self.writes.append((what, offset, length))
        await self.writing.wait()
        if self.error is not None:
            raise self.error


class OneBitmap:
    """What the graph offers, with one bitmap `b` of node `n`."""

    def __init__(self, bits: DirtyBitmap) -> None:
        self.bits = bits

    def copy_of(self, node_name: str, name: str) -> DirtyBitmap:
        if (node_name, name) != ("n", "b"):
            raise ResourceNotFound("bitmap", name)
        return self.bits.copy()


class Past:
    """A disk of OLD bytes, a target, the filter that guests write through, and its snapshot."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.events: list[tuple[str, dict[str, str]]] = []

    async def open(self, old: bytes = OLD, bits: DirtyBitmap | None = None, **options: object) -> None:
        self.disk = Hooked(await self.ground.open("memory", {"size": len(old)}, name="file"))
        self.target = Hooked(await self.ground.open("memory", {"size": len(old)}, name="target"))
        await DriverChild.write(self.disk, 0, old)
        for start in range(0, len(old), GRANULE):
            if not any(old[start : start + GRANULE]):
                await DriverChild.zero(self.disk, start, min(GRANULE, len(old) - start))
        settings: dict[str, Any] = {"report": lambda kind, details: self.events.append((kind, details))}
        if bits is not None:
            settings["bitmaps"] = OneBitmap(bits)
            options |= {"bitmap_node": "n", "bitmap_name": "b"}
        children: dict[str, Child] = {"file": self.disk, "target": self.target}
        self.guest = await self.ground.open("copy-before-write", dict(options), children, **settings)
        self.snapshot = await self.ground.open("snapshot-access", {}, {"file": self.guest})

    async def left(self) -> object:
        return (await self.guest.driver.info()).specific["left-to-copy"]


@pytest.fixture
async def past(tmp_path):
    ground = Ground(tmp_path, VirtualClock())
    yield Past(ground)
    await ground.leave()


async def turns(count: int = 20) -> None:
    """Let everyone run as far as they can."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- what the snapshot shows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", ["write", "zero", "discard"])
async def test_the_snapshot_shows_what_was_there_before_a_change(past: Past, request_: str):
    await past.open()
    arguments = (4096, b"new" * 10000) if request_ == "write" else (4096, GRANULE * 2)
    await getattr(past.guest, request_)(*arguments)
    assert await past.guest.content() != OLD or request_ == "discard"
    assert await past.snapshot.content() == OLD


async def test_random_changes_reads_and_discards_show_the_old_bytes_exactly(past: Past):
    for seed in range(12):
        await _random_life(past, random.Random(seed), with_bitmap=seed % 3 == 2)


async def _random_life(past: Past, numbers: random.Random, *, with_bitmap: bool) -> None:
    size = 12 * GRANULE + numbers.choice((0, 512, 100))
    old = b"".join(numbers.choice((bytes(4096), numbers.randbytes(4096))) for _ in range(size // 4096 + 1))[:size]
    kept = [True] * (size // GRANULE + 1)
    bits = None
    if with_bitmap:
        bits = DirtyBitmap(size, numbers.choice((4096, GRANULE, 2 * GRANULE)))
        for _ in range(4):
            bits.mark(numbers.randrange(size - 1), 1)
        kept = [bits.next_dirty(at * GRANULE, (at + 1) * GRANULE) is not None for at in range(len(kept))]
    await past.open(old, bits)
    now = bytearray(old)

    async def change() -> None:
        offset, length = _range(numbers, size)
        match numbers.choice(("write", "zero", "discard", "now")):
            case "zero":
                await past.guest.zero(offset, length)
                now[offset : offset + length] = bytes(length)
            case "discard":
                await past.guest.discard(offset, length)
                now[offset : offset + length] = await past.disk.content(offset, length)
            case how:
                data = numbers.randbytes(length)
                if how == "write" or not past.guest.write_now(offset, data):
                    await past.guest.write(offset, data)
                now[offset : offset + length] = data

    async def look() -> None:
        offset, length = _range(numbers, size)
        before = kept.copy()
        granules = range(offset // GRANULE, (offset + length - 1) // GRANULE + 1)
        try:
            found = await past.snapshot.content(offset, length)
        except RangeNotKept:
            assert not all(kept[at] for at in granules)
        else:
            assert all(before[at] for at in granules)
            if all(kept[at] for at in granules):
                assert found == old[offset : offset + length]

    for _ in range(40):
        # Looks run beside a change; changes of one place come one after another, as a guest's do.
        await asyncio.gather(look(), change(), look())
        if numbers.random() < 0.15:
            offset, length = _range(numbers, size)
            await past.snapshot.discard(offset, length)
            end = len(kept) if offset + length >= size else (offset + length) // GRANULE
            for at in range(-(-offset // GRANULE), end):
                kept[at] = False
    assert await past.guest.content() == bytes(now)
    for at, readable in enumerate(kept):
        start, end = at * GRANULE, min(size, (at + 1) * GRANULE)
        if readable and start < end:
            assert await past.snapshot.content(start, end - start) == old[start:end]


def _range(numbers: random.Random, size: int) -> tuple[int, int]:
    offset = numbers.randrange(size - 1)
    return offset, numbers.randrange(1, min(size - offset, 3 * GRANULE) + 1)


async def test_each_granule_is_copied_once_and_zeroes_are_not_copied_but_made(past: Past):
    await past.open(OLD[:GRANULE] + bytes(GRANULE) + OLD[2 * GRANULE :])
    for _ in range(3):
        await past.guest.write(GRANULE - 10, b"x" * 20)
    assert past.target.writes == [("write", 0, GRANULE), ("zero", GRANULE, GRANULE)]
    assert await past.left() == SIZE - 2 * GRANULE


async def test_a_large_change_is_copied_a_piece_at_a_time(past: Past):
    await past.open(OLD * 4)
    await past.guest.zero(0, 4 * SIZE)
    assert max(length for _, _, length in past.target.writes) <= MIB
    assert await past.snapshot.content() == OLD * 4


async def test_a_write_that_changes_nothing_needs_no_copy(past: Past):
    await past.open()
    await past.guest.write(0, OLD[:4096], WRITE_UNCHANGED)
    await past.guest.zero(SIZE - 1, 1, WRITE_UNCHANGED)
    assert not past.target.writes


async def test_a_write_of_what_is_copied_is_inline_and_of_what_is_left_is_not(past: Past):
    await past.open()
    past.disk.write_now = lambda offset, data, flags=0: True  # type: ignore[method-assign]
    assert not past.guest.write_now(0, b"x")
    await past.guest.write(0, b"x")
    assert past.guest.write_now(GRANULE - 1, b"x")
    assert not past.guest.write_now(GRANULE - 1, b"xx")


async def test_a_disk_that_grew_shows_its_old_size_and_what_is_written_there_is_not_copied(past: Past):
    await past.open(OLD[: SIZE - 100])
    await past.guest.truncate(2 * SIZE, Preallocation.OFF)
    await past.guest.write(SIZE + GRANULE, b"x" * GRANULE)
    assert not past.target.writes
    await past.guest.write(SIZE - 200, b"x" * 300)
    assert past.snapshot.size == SIZE - 100
    assert await past.snapshot.content() == OLD[: SIZE - 100]


async def test_a_guest_waits_while_old_bytes_are_read_from_the_disk_and_no_longer(past: Past):
    await past.open()
    past.disk.reading = asyncio.Event()
    reading = asyncio.create_task(past.snapshot.content(0, 4096))
    await turns()
    held, past.disk.reading = past.disk.reading, asyncio.Event()
    past.disk.reading.set()
    writing = asyncio.create_task(past.guest.write(0, b"new" * 1000))
    await turns()
    assert await past.left() == SIZE - GRANULE, "it was copied beside the read"
    assert not writing.done()
    assert not past.guest.write_now(0, b"x")
    await past.guest.write(GRANULE, b"elsewhere")
    held.set()
    assert await reading == OLD[:4096]
    await writing


async def test_two_changes_of_one_granule_wait_for_one_copy(past: Past):
    await past.open()
    past.target.writing = asyncio.Event()
    changes = [asyncio.create_task(past.guest.write(at * 4096, b"x" * 4096)) for at in range(4)]
    await turns()
    assert len(past.target.writes) == 1
    assert not any(change.done() for change in changes)
    past.target.writing.set()
    await asyncio.gather(*changes)
    assert past.target.writes == [("write", 0, GRANULE)]
    assert await past.snapshot.content() == OLD


async def test_a_change_that_is_cancelled_while_it_is_copied_leaves_the_granule_to_the_next(past: Past):
    await past.open()
    past.target.writing = asyncio.Event()
    change = asyncio.create_task(past.guest.write(0, b"x"))
    await turns()
    change.cancel()
    await asyncio.gather(change, return_exceptions=True)
    past.target.writing.set()
    assert await past.guest.content() == OLD
    await past.guest.write(0, b"x")
    assert await past.snapshot.content() == OLD


# --- status and discards ---------------------------------------------------------------------------------------


async def test_status_is_that_of_whoever_holds_the_range(past: Past):
    await past.open(bytes(GRANULE) + OLD[: 2 * GRANULE] + bytes(GRANULE))
    assert (await past.snapshot.map(0, 4 * GRANULE)).kind is MapKind.ZERO
    await past.guest.write(0, b"x" * GRANULE)
    await past.guest.zero(GRANULE, GRANULE)
    kinds = [(await past.snapshot.map(at * GRANULE, GRANULE)).kind for at in range(4)]
    assert kinds == [MapKind.ZERO, MapKind.DATA, MapKind.DATA, MapKind.ZERO]


async def test_what_was_discarded_is_neither_copied_nor_read_and_the_target_lets_it_go(past: Past):
    await past.open()
    await past.guest.write(0, b"x")
    await past.snapshot.discard(100, 3 * GRANULE)
    assert past.target.writes[1:] == [("discard", GRANULE, 2 * GRANULE)]
    await past.guest.write(GRANULE, b"x" * 2 * GRANULE)
    assert len(past.target.writes) == 2
    assert await past.snapshot.content(0, GRANULE) == OLD[:GRANULE]
    with pytest.raises(RangeNotKept) as refused:
        await past.snapshot.content(GRANULE - 1, 2)
    assert (refused.value.offset, refused.value.length) == (GRANULE - 1, 2)
    with pytest.raises(RangeNotKept):
        await past.snapshot.map(GRANULE, 1)
    assert (await past.snapshot.map(0, 2 * GRANULE)).length == GRANULE


async def test_the_last_granule_is_discarded_although_it_is_not_whole(past: Past):
    await past.open(OLD[: GRANULE + 10])
    await past.snapshot.discard(GRANULE, 10)
    assert await past.left() == GRANULE


# --- bitmaps ---------------------------------------------------------------------------------------------------


def marked(*ranges: tuple[int, int]) -> DirtyBitmap:
    bits = DirtyBitmap(SIZE, 4096)
    for offset, length in ranges:
        bits.mark(offset, length)
    return bits


async def test_only_what_the_bitmap_marks_is_kept(past: Past):
    await past.open(OLD, marked((GRANULE + 5000, 1)))
    await past.guest.zero(0, SIZE)
    assert past.target.writes == [("write", GRANULE, GRANULE)]
    assert await past.snapshot.content(GRANULE, GRANULE) == OLD[GRANULE : 2 * GRANULE]
    for offset in (0, 2 * GRANULE, SIZE - 1):
        with pytest.raises(RangeNotKept):
            await past.snapshot.content(offset, 1)


async def test_the_point_in_time_and_the_bitmap_are_those_of_the_insertion(past: Past):
    bits = marked((0, 1))
    await past.open(OLD, bits)
    bits.mark(3 * GRANULE, 1)
    past.guest.driver.begin_snapshot()
    assert await past.left() == 2 * GRANULE


async def test_bad_options_are_refused_by_name(past: Past):
    for options, name in (
        ({"bitmap_node": "n"}, "bitmap_name"),
        ({"bitmap_name": "b"}, "bitmap_node"),
        ({"cbw_timeout": -1}, "cbw_timeout"),
        ({"cbw_timeout": 1 << 32}, "cbw_timeout"),
        ({"min_cluster_size": 3}, "min_cluster_size"),
        ({"min_cluster_size": -4096}, "min_cluster_size"),
        ({"min_cluster_size": 128 * MIB}, "min_cluster_size"),
        ({"on_cbw_error": "ignore"}, "on_cbw_error"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await past.open(OLD, None, **options)
        assert refused.value.name == name
    with pytest.raises(ResourceNotFound):
        await past.open(OLD, None, bitmap_node="n", bitmap_name="b")
    with pytest.raises(InvalidArgument) as refused:
        await past.open(OLD, DirtyBitmap(SIZE - 1, 4096))
    assert refused.value.name == "bitmap_name"


async def test_a_target_that_is_smaller_or_the_disk_itself_is_refused(past: Past):
    disk = await past.ground.open("memory", {"size": SIZE})
    small = await past.ground.open("memory", {"size": SIZE - 1})
    for target in (small, disk):
        with pytest.raises(InvalidArgument) as refused:
            await past.ground.open("copy-before-write", {}, {"file": disk, "target": target})
        assert refused.value.name == "target"


async def test_the_granules_are_as_large_as_asked(past: Past):
    await past.open(OLD, None, min_cluster_size=256 * KIB)
    await past.guest.write(300 * KIB, b"x")
    assert past.target.writes == [("write", 256 * KIB, 256 * KIB)]
