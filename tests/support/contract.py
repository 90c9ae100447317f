"""What every driver owes its users. A driver's test derives from `DriverContract` and says how to make a node.

A derived class is named `Test...`, sets `driver` to the driver's name and fills in the hooks; more tests of that
driver may stand beside it. A meta-test reads the test files and fails when a driver has no such class.

The tests speak to the driver through `DriverChild`, so protocol, format and filter drivers meet the same ones.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pytest

from blockyard.base.errors import BlockError, InvalidArgument, NodeReadOnly, UnknownOption
from blockyard.base.ranges import ByteRange, align_up
from blockyard.base.units import KIB, MIB
from blockyard.node.drivers import catalogue
from blockyard.node.interface.child import Child
from blockyard.node.interface.driver import Creatable, FilterDriver, FormatDriver, ProtocolDriver, Resizable
from blockyard.node.interface.flags import FUA, MAY_UNMAP, Preallocation
from blockyard.node.interface.mapping import MapKind
from tests.support.ground import DriverChild, Ground

SEED = 20260
STEPS = 120


def descriptors() -> set[str]:
    """What this process has open now, by number and name."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{entry.name} {entry.readlink()}")
        except OSError:  # the descriptor that listed the directory
            continue
    return found


class DriverContract:
    """Derive, set `driver`, and override `prepare`, `options` and `children` as the driver needs."""

    driver: ClassVar[str]
    size: ClassVar[int] = MIB
    """Of the node that `prepare` makes room for; it reads as zeroes at first."""
    keeps_data: ClassVar[bool] = True
    """False for a driver that forgets what is written."""
    survives_close: ClassVar[bool] = True
    """What was flushed is there after the node was closed and opened again."""
    grows_by_writing: ClassVar[bool] = True
    """A write past the end makes the node larger."""
    discard_zeroes: ClassVar[bool] = False
    """A discarded range reads as zeroes for certain."""

    async def prepare(self, ground: Ground) -> None:
        """Make what the node stands on, once per test."""

    def options(self) -> dict[str, object]:
        return {}

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        """Open the driver's children, anew for every opening of the node."""
        return {}

    # --- the ground ------------------------------------------------------------------------------------

    @pytest.fixture
    async def ground(self, tmp_path: Path) -> AsyncIterator[Ground]:
        ground = Ground(tmp_path)
        await self.prepare(ground)
        yield ground
        await ground.leave()

    async def node(self, ground: Ground, read_only: bool = False, **changed: object) -> DriverChild:
        return await ground.open(
            self.driver,
            {**self.options(), **changed},
            await self.children(ground, read_only),
            read_only=read_only,
        )

    def pattern(self, node: DriverChild, length: int, tag: int = 0) -> bytes:
        return random.Random(SEED + tag).randbytes(align_up(length, node.limits.request_alignment))

    # --- what the class says -----------------------------------------------------------------------------

    def test_the_class_says_what_it_is(self):
        found = catalogue.driver_class(self.driver)
        assert found.name == self.driver
        assert (found.__doc__ or "").strip()
        assert issubclass(found, ProtocolDriver | FormatDriver | FilterDriver)
        assert hasattr(found.Options, "__dataclass_fields__")
        assert found.Options.__dataclass_params__.frozen
        if isinstance(found, Creatable):
            assert "size" in found.CreateOptions.__dataclass_fields__

    async def test_an_unknown_option_is_refused_by_its_name(self, ground: Ground):
        with pytest.raises(UnknownOption) as refusal:
            await self.node(ground, no_such_option=1)
        assert refusal.value.option == "no_such_option"

    async def test_an_option_of_the_wrong_kind_is_refused_by_its_name(self, ground: Ground):
        found = catalogue.driver_class(self.driver)
        for name in found.Options.__dataclass_fields__:
            with pytest.raises(InvalidArgument) as refusal:
                await self.node(ground, **{name: object()})
            assert refusal.value.name == name
            await ground.close_all()

    async def test_limits_are_sane(self, ground: Ground):
        limits = (await self.node(ground)).limits
        for alignment in (limits.request_alignment, limits.min_mem_alignment):
            assert alignment & (alignment - 1) == 0
            assert 1 <= alignment <= 64 * KIB
        assert limits.zero_alignment > 0
        assert limits.discard_alignment > 0
        assert min(limits.max_transfer, limits.max_zeroes, limits.max_discard, limits.allocation_unit) >= 0

    # --- bytes -------------------------------------------------------------------------------------------

    async def test_a_new_node_has_its_size_and_reads_as_zeroes(self, ground: Ground):
        node = await self.node(ground)
        assert node.size == self.size
        assert await node.content() == bytes(self.size)

    async def test_what_is_written_is_read_back_and_nothing_else_changes(self, ground: Ground):
        node, model, numbers = await self.node(ground), bytearray(self.size), random.Random(SEED)
        unit = node.limits.request_alignment
        for step in range(STEPS):
            data = self.pattern(node, numbers.choice((1, 512, 4000, 65536, 100_000)), step)
            offset = numbers.randrange(0, self.size - len(data), unit)
            await node.write(offset, data, numbers.choice((0, 0, 0, FUA)))
            if self.keeps_data:
                model[offset : offset + len(data)] = data
        assert await node.content() == model

    async def test_the_last_bytes_can_be_written_and_read(self, ground: Ground):
        node = await self.node(ground)
        data = self.pattern(node, 512)
        await node.write(self.size - len(data), data)
        expected = data if self.keeps_data else bytes(len(data))
        assert await node.content(self.size - len(data)) == expected
        assert node.size == self.size

    async def test_a_write_past_the_end_grows_the_node_or_is_refused(self, ground: Ground):
        node = await self.node(ground)
        data = self.pattern(node, 4096)
        if self.grows_by_writing:
            await node.write(self.size + MIB, data)
            assert node.size == self.size + MIB + len(data)
            assert await node.content(self.size) == bytes(MIB) + data
        elif isinstance(node.driver, ProtocolDriver):
            with pytest.raises(BlockError):
                await node.write(self.size + MIB, data)

    async def test_disjoint_writes_at_once_all_land(self, ground: Ground):
        node = await self.node(ground)
        pieces = [self.pattern(node, 4096, tag) for tag in range(64)]
        await asyncio.gather(*(node.write(at * 8192, piece) for at, piece in enumerate(pieces)))
        if self.keeps_data:
            for at, piece in enumerate(pieces):
                assert await node.content(at * 8192, 8192) == piece + bytes(4096), at

    async def test_overlapping_writes_at_once_leave_bytes_of_either(self, ground: Ground):
        node = await self.node(ground)
        await asyncio.gather(
            *(node.write(tag * 4096, bytes([tag + 1]) * 16384) for tag in range(8)),
            *(node.content(0, 65536) for _ in range(4)),
        )
        content = await node.content(0, 11 * 4096)
        for place in range(11 if self.keeps_data else 0):
            writers = {tag + 1 for tag in range(8) if tag <= place < tag + 4}
            assert set(content[place * 4096 : (place + 1) * 4096]) <= writers, place

    # --- the fast way ------------------------------------------------------------------------------------

    async def test_a_read_now_that_says_yes_has_read_and_one_that_says_no_can_be_awaited(self, ground: Ground):
        node = await self.node(ground)
        data = self.pattern(node, 8192)
        await node.write(0, data)
        buffer = memoryview(bytearray(b"\xaa" * len(data)))
        if not node.read_now(0, buffer):
            await node.read(0, buffer)
        assert bytes(buffer) == (data if self.keeps_data else bytes(len(data)))

    async def test_a_write_now_that_says_no_has_written_nothing(self, ground: Ground):
        node = await self.node(ground)
        for length in (4096, MIB // 2):
            for flags in (0, FUA):
                before = await node.content()
                data = self.pattern(node, length, flags)
                was_done = node.write_now(0, data, flags)
                expected = data + before[len(data) :] if was_done and self.keeps_data else before
                assert await node.content() == expected

    # --- zeroes, discards, status --------------------------------------------------------------------------

    async def test_a_zeroed_range_reads_as_zeroes_and_its_neighbours_stay(self, ground: Ground):
        for flags in (0, MAY_UNMAP, FUA):
            node = await self.node(ground)
            data = self.pattern(node, 600_000)
            await node.write(0, data)
            unit = node.limits.request_alignment
            start, length = align_up(70_001, unit), align_up(300_003, unit)
            await node.zero(start, length, flags)
            if self.keeps_data:
                expected = data[:start] + bytes(length) + data[start + length :]
                assert await node.content(0, len(data)) == expected
            await ground.close_all()

    async def test_a_discard_touches_only_its_range_and_reads_the_same_ever_after(self, ground: Ground):
        node = await self.node(ground)
        data = self.pattern(node, 600_000)
        await node.write(0, data)
        await node.discard(65536, 262_144)
        once, twice = await node.content(), await node.content()
        assert once == twice
        if self.keeps_data:
            assert once[:65536] == data[:65536]
            assert once[327_680 : len(data)] == data[327_680:]
        if self.discard_zeroes:
            assert not any(once[65536:327_680])

    async def test_block_status_covers_the_node_and_zero_means_zeroes(self, ground: Ground):
        node = await self.node(ground)
        await node.write(256 * KIB, self.pattern(node, 128 * KIB))
        content = await node.content()
        position = 0
        while position < node.size:
            mapping = await node.map(position, node.size - position)
            assert 0 < mapping.length <= node.size - position
            piece = ByteRange(position, mapping.length)
            if mapping.kind is MapKind.ZERO:
                assert not any(content[piece.offset : piece.end]), piece
            position = piece.end

    async def test_block_status_never_answers_more_than_was_asked(self, ground: Ground):
        node = await self.node(ground)
        await node.write(0, self.pattern(node, 256 * KIB))
        for offset in range(0, self.size, 97 * KIB):
            for length in (1, 512, 64 * KIB + 1):
                answer = await node.map(offset, min(length, self.size - offset))
                assert 0 < answer.length <= length

    # --- life --------------------------------------------------------------------------------------------

    async def test_what_was_flushed_is_there_after_reopening(self, ground: Ground):
        node = await self.node(ground)
        await node.write(4096, self.pattern(node, 300_000))
        await node.zero(65536, 65536, MAY_UNMAP)
        await node.flush()
        before = await node.content()
        await ground.close_all()
        if self.survives_close:
            assert await (await self.node(ground, read_only=True)).content() == before

    async def test_a_read_only_node_reads_and_does_not_write(self, ground: Ground):
        node = await self.node(ground, read_only=True)
        assert await node.content() == bytes(self.size)
        if isinstance(node.driver, ProtocolDriver):
            for request in (
                node.write(0, self.pattern(node, 4096)),
                node.driver.zero(0, 64 * KIB, 0),
            ):
                with pytest.raises(NodeReadOnly):
                    await request
        await node.flush()
        assert await node.content() == bytes(self.size)

    async def test_closing_leaves_no_descriptor_open(self, ground: Ground):
        before = descriptors()
        node = await self.node(ground)
        await node.write(0, self.pattern(node, 4096))
        await ground.close_all()
        assert descriptors() <= before

    async def test_a_node_can_be_resized_if_its_driver_says_so(self, ground: Ground):
        node = await self.node(ground)
        if not isinstance(node.driver, Resizable):
            return
        data = self.pattern(node, 4096)
        await node.write(self.size - len(data), data)
        await node.truncate(2 * self.size, Preallocation.OFF, exact=True)
        assert node.size == 2 * self.size
        assert await node.content(self.size) == bytes(self.size)
        await node.truncate(self.size // 2, Preallocation.OFF, exact=True)
        await node.truncate(self.size, Preallocation.OFF, exact=True)
        assert await node.content(self.size // 2) == bytes(self.size // 2), "old bytes came back"

    async def test_a_size_that_cannot_be_is_refused(self, ground: Ground):
        node = await self.node(ground)
        if not isinstance(node.driver, Resizable):
            return
        for size in (-1, 1 << 63):
            with pytest.raises(BlockError):
                await node.truncate(size, Preallocation.OFF, exact=True)
        assert node.size == self.size
