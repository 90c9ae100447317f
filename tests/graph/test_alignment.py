"""What a driver insists on is given to it, whatever was asked: alignment, sizes, memory, ranges."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.errors import InvalidArgument, NoSpace, OperationUnsupported, RangeOutside
from blockyard.base.units import KIB, MIB
from blockyard.node.core.accounting import TRUNCATE, WRITE
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.graph.bitmaps import Bitmap
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.edge import Edge
from blockyard.node.graph.node import Node
from blockyard.node.interface.flags import NO_FALLBACK, Preallocation, Role
from tests.support.graphs import GraphGround, content
from tests.support.strict import StrictDriver


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


def disk(node: Node) -> StrictDriver:
    assert isinstance(node.driver, StrictDriver)
    return node.driver


async def test_a_misaligned_write_keeps_the_bytes_beside_it(ground: GraphGround):
    node = await ground.strict(size=16384, alignment=4096)
    user = ground.use(node)
    await user.write(0, b"a" * 16384)
    await user.write(5000, b"b" * 10)
    assert await content(user) == b"a" * 5000 + b"b" * 10 + b"a" * (16384 - 5010)


async def test_two_misaligned_writes_to_one_sector_do_not_undo_each_other(ground: GraphGround):
    node = await ground.strict(size=4096, alignment=4096, inline=0)
    user = ground.use(node)
    await asyncio.gather(*(user.write(at, bytes([at % 250 + 1])) for at in range(0, 4096, 64)))
    assert (await content(user))[::64] == bytes(at % 250 + 1 for at in range(0, 4096, 64))


async def test_misaligned_writes_to_one_new_cluster_do_not_undo_each_other(ground: GraphGround):
    node = await ground.toycow(
        await ground.strict(alignment=512, inline=0), size=32768, cluster=8192, alignment=512
    )
    user = ground.use(node)
    await asyncio.gather(*(user.write(at, b"x") for at in range(5, 8192, 512)))
    assert (await content(user, 0, 8192))[5::512] == b"x" * 16


@pytest.mark.parametrize("length", [3000, 3001, 50_000])
async def test_long_requests_are_cut_to_what_the_driver_takes(ground: GraphGround, length: int):
    node = await ground.strict(size=100_000, max_transfer=3000, inline=1)
    user = ground.use(node)
    data = os.urandom(length)
    if not user.write_now(7, data):
        await user.write(7, data)
    into = bytearray(length)
    if not user.read_now(7, memoryview(into)):
        await user.read(7, memoryview(into))
    assert into == data


@pytest.mark.parametrize("alignment", [512, 4096, 65536])
async def test_buffers_that_lie_badly_are_bounced(ground: GraphGround, alignment: int):
    node = await ground.strict(size=MIB, memory_alignment=alignment)
    user = ground.use(node)
    data = bytearray(os.urandom(100_001))
    await user.write(1, memoryview(data)[1:])
    into = bytearray(100_002)
    await user.read(1, memoryview(into)[2:])
    assert into[2:] == data[1:]


async def test_a_file_without_the_page_cache_takes_any_request(ground: GraphGround):
    definition = ground.file("direct.img", 256 * KIB)
    try:
        node = await ground.graph.open(NodeDefinition("file", "direct", definition.options, direct=True))
    except InvalidArgument as refusal:
        pytest.skip(f"this file system has no O_DIRECT: {refusal}")
    user = ground.use(await ground.raw("top", node))
    data = os.urandom(70_000)
    await user.write(1234, data)
    assert await content(user) == bytes(1234) + data + bytes(256 * KIB - 1234 - 70_000)


async def test_zeroes_are_written_where_the_driver_cannot_make_them(ground: GraphGround):
    node = await ground.strict(size=8 * KIB, can_zero=False)
    user = ground.use(node)
    await user.write(0, b"a" * 8 * KIB)
    await user.zero(100, 5000)
    assert await content(user) == b"a" * 100 + bytes(5000) + b"a" * (8 * KIB - 5100)


@pytest.mark.parametrize(("offset", "can_zero"), [(0, False), (100, True)])
async def test_fast_zeroing_is_refused_where_it_would_have_to_write(
    ground: GraphGround, offset: int, can_zero: bool
):
    node = await ground.strict(size=8 * KIB, zero_alignment=512, can_zero=can_zero)
    user = ground.use(node)
    await user.write(0, b"a" * 8 * KIB)
    with pytest.raises(OperationUnsupported):
        await user.zero(offset, 4096, NO_FALLBACK)
    assert await content(user) == b"a" * 8 * KIB


@pytest.mark.parametrize(("offset", "length"), [(-1, 10), (0, -1), (8191, 2), (8193, 0), (2**63, 1)])
async def test_a_range_outside_the_node_is_refused_in_every_form(ground: GraphGround, offset: int, length: int):
    user = ground.use(await ground.strict(size=8192))
    calls = [user.zero(offset, length), user.discard(offset, length), user.block_status(offset, length)]
    if length >= 0:
        buffer = bytearray(length)
        calls += [user.read(offset, memoryview(buffer)), user.write(offset, buffer)]
        for inline in (lambda: user.read_now(offset, memoryview(buffer)), lambda: user.write_now(offset, buffer)):
            with pytest.raises(RangeOutside):
                inline()
    for call in calls:
        with pytest.raises(RangeOutside):
            await call


@pytest.mark.parametrize("loaded", [0.0, 1.0])
async def test_a_read_across_the_end_of_a_short_backing_file_shows_zeroes_there(ground: GraphGround, loaded: float):
    storage = await ground.memory("storage", 8192)
    await ground.use(storage).write(0, b"s" * 8192)
    window = await ground.raw("window", storage, offset=0, size=1000)
    node = await ground.toycow(await ground.strict(), window, size=4096, loaded=loaded)
    user = ground.use(node)
    into = bytearray(b"?" * 3000)
    if not user.read_now(500, memoryview(into)):
        await user.read(500, memoryview(into))
    assert into == b"s" * 500 + bytes(2500)


async def test_a_format_in_a_window_cannot_write_outside_of_it(ground: GraphGround):
    storage = await ground.memory("storage", 64 * KIB)
    fill = ground.use(storage, "fill")
    await fill.write(0, b"s" * 64 * KIB)
    ground.graph.release(fill)
    window = await ground.raw("window", storage, offset=4096, size=8192)
    user = ground.use(await ground.toycow(window, size=64 * KIB))
    with pytest.raises(NoSpace):
        for at in range(0, 64 * KIB, 4096):
            await user.write(at, b"x" * 4096)
    whole = await content(ground.use(storage, "look", writable=False))
    assert whole[:4096] == b"s" * 4096 and whole[4096 + 8192 :] == b"s" * (64 * KIB - 12288)


async def test_a_format_in_a_format_grows_it(ground: GraphGround):
    inner = await ground.qcow2("inner", "inner.qcow2", 4096, cluster_size=4096)
    user = ground.use(await ground.toycow(inner, size=64 * KIB))
    await user.write(0, b"x" * 64 * KIB)
    assert await content(user) == b"x" * 64 * KIB
    assert inner.driver.size >= 64 * KIB


async def test_a_request_that_waited_for_a_shrink_does_not_reach_behind_it(ground: GraphGround):
    node = await ground.toycow(await ground.strict(inline=0), size=64 * KIB, loaded=0)
    user = ground.use(node)
    await user.write(0, b"x" * 64 * KIB)
    into = bytearray(b"?" * 4096)
    shrinking = await node.tracker.begin(TRUNCATE, 8192, 64 * KIB, 1)
    calls = (
        user.read(6000, memoryview(into)),
        user.write(32 * KIB, b"y"),
        user.zero(32 * KIB, 100),
        user.discard(16 * KIB, 4096),
    )
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    await node.driver.truncate(8192, Preallocation.OFF, True)  # type: ignore[attr-defined]
    node.tracker.end(shrinking)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[0] is None and into == b"x" * 2192 + bytes(4096 - 2192)
    assert [type(answer) for answer in answers[1:]] == [RangeOutside] * 3


async def test_a_failed_allocation_is_abandoned_and_nothing_changed(ground: GraphGround):
    file = await ground.strict(inline=0)
    node = await ground.toycow(file, size=16384)
    user = ground.use(node)
    await user.write(0, b"a" * 8192)
    node.driver.share()  # type: ignore[attr-defined]
    disk(file).failures = {"write": 1}
    with pytest.raises(Exception, match="as the test asked"):
        await user.write(100, b"b")
    assert not node.driver.pending  # type: ignore[attr-defined]
    assert await content(user, 0, 8192) == b"a" * 8192
    assert not node.tracker.requests and not file.tracker.requests


async def test_failures_are_counted_and_bitmaps_marked_all_the_same(ground: GraphGround):
    node = await ground.strict(size=MIB, inline=0)
    node.bitmaps["b"] = Bitmap("b", DirtyBitmap(MIB))
    node.record_bitmaps()
    disk(node).failures = {"write": 1}
    with pytest.raises(Exception, match="as the test asked"):
        await ground.use(node).write(100, b"b")
    assert node.account.operations[WRITE].failed == 1
    assert node.bitmaps["b"].bits.dirty_bytes == 64 * KIB


async def test_two_writes_past_the_end_at_once_grow_a_format_for_both(ground: GraphGround):
    inner = await ground.toycow(await ground.strict(), size=8192)
    edge = Edge(None, "file", Role.FILE, inner)
    later = [asyncio.ensure_future(edge.write(offset, b"x" * 512)) for offset in (40_960, 20_480, 30_720)]
    await asyncio.gather(*later)
    assert inner.driver.size == 41_472
    edge.detach()
