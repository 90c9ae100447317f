"""Copy on read and prefetch over the API, by flags and by the filter."""

import pytest

from blockyard.base.errors import InvalidArgument, NodeReadOnly, RangeOutside
from blockyard.client.definitions import copy_on_read, file, qcow2
from tests.support.node_calls import NodeHouse

KIB, MIB = 1 << 10, 1 << 20
UNIT = 64 * KIB


@pytest.fixture
async def top(house: NodeHouse) -> NodeHouse:
    """Node "top": an empty qcow2 on a raw file of "b"."""
    house.raw_file("base.raw", b"b" * MIB)
    await house.client.images.create(
        "top.qcow2", MIB, format="qcow2", backing_file="base.raw", backing_format="raw"
    )
    await house.client.nodes.open(qcow2(file("top.qcow2"), node_name="top"))
    return house


async def stored(house: NodeHouse) -> int:
    """Bytes that the top layer has."""
    return sum([each.length_bytes async for each in house.client.data.block_status("top") if each.depth == 0])


async def test_a_read_with_the_flag_stores_what_it_read(top: NodeHouse):
    assert await top.client.data.read("top", 100, 50) == b"b" * 50
    assert await stored(top) == 0
    assert await top.client.data.read("top", 100, 50, copy_on_read=True) == b"b" * 50
    assert await stored(top) == UNIT


async def test_a_prefetch_tells_how_much_it_stored_and_sends_nothing(top: NodeHouse):
    assert await top.client.data.prefetch("top", 0, UNIT) == UNIT
    assert await top.client.data.prefetch("top") == MIB - UNIT
    assert await top.client.data.prefetch("top") == 0
    assert await stored(top) == MIB


async def test_a_session_reads_and_prefetches_likewise(top: NodeHouse):
    async with top.client.data.session("top") as session:
        assert await session.read(0, 4096) == b"b" * 4096
        assert await stored(top) == 0
        assert await session.read(0, 4096, copy_on_read=True) == b"b" * 4096
        await session.prefetch(512 * KIB, 2 * UNIT)
        assert await stored(top) == 3 * UNIT
        with pytest.raises(RangeOutside):
            await session.prefetch(MIB, 1)


async def test_readers_of_the_filter_copy_and_the_node_tells_how_many_there_are(top: NodeHouse):
    await top.client.nodes.open(copy_on_read("top", node_name="cor"))
    assert (await top.client.nodes.get("top")).copy_on_read == 1
    await top.client.data.read("cor", 0, 4096)
    assert await stored(top) == UNIT
    stats = (await top.client.nodes.get("top")).stats
    assert [each.transferred_bytes for each in stats.operations if each.type == 8] == [UNIT]


async def test_a_node_that_cannot_be_written_is_not_populated(top: NodeHouse):
    await top.client.nodes.close("top")
    await top.client.nodes.open(qcow2(file("top.qcow2"), node_name="top", read_only=True))
    with pytest.raises(NodeReadOnly):
        await top.client.data.prefetch("top")
    with pytest.raises(NodeReadOnly):
        await top.client.data.read("top", copy_on_read=True)
    with pytest.raises(NodeReadOnly):
        await top.client.nodes.open(copy_on_read("top", node_name="cor"))


async def test_a_bottom_outside_the_chain_is_refused(top: NodeHouse):
    with pytest.raises(InvalidArgument):
        await top.client.nodes.open(copy_on_read("top", bottom="nobody", node_name="cor"))


async def test_the_filter_can_be_put_in_and_taken_out_under_a_user(top: NodeHouse):
    async with top.client.data.session("top") as session:
        await top.client.nodes.insert_filter("top", copy_on_read("top", node_name="cor"))
        await session.read(0, 4096)
        assert await stored(top) == UNIT
        await top.client.nodes.remove_filter("cor")
        await session.read(512 * KIB, 4096)
        assert await stored(top) == UNIT


async def test_block_status_of_allocation_alone_does_not_look_for_holes(house: NodeHouse):
    house.raw_file("sparse.raw", MIB)
    with (house.folder / "sparse.raw").open("r+b") as sparse:
        sparse.truncate(0)
        sparse.truncate(MIB)
    from blockyard.client.definitions import raw

    await house.client.nodes.open(raw(file("sparse.raw"), node_name="r"))
    exact = [each async for each in house.client.data.block_status("r")]
    quick = [each async for each in house.client.data.block_status("r", allocation_only=True)]
    assert [each.zero for each in exact] == [True]
    assert [(each.zero, each.allocated, each.length_bytes) for each in quick] == [(False, True, MIB)]
