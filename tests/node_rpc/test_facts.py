"""What a node tells of its driver: every limit, and what a new image of it reads as."""

from blockyard.base.units import KIB, MIB
from blockyard.client.definitions import blkdebug, file, memory, null, qcow2, raw
from tests.support.node_calls import NodeHouse, node_house

house = node_house


async def test_every_limit_of_the_driver_is_told(house: NodeHouse):
    told = blkdebug(
        memory(MIB), node_name="strict", align=4 * KIB, max_transfer=256 * KIB,
        opt_write_zero=64 * KIB, max_write_zero=512 * KIB, opt_discard=32 * KIB, max_discard=128 * KIB,
    )  # fmt: skip
    limits = (await house.client.nodes.open(told)).limits
    assert (limits.request_alignment_bytes, limits.max_transfer_bytes) == (4 * KIB, 256 * KIB)
    assert (limits.write_zeroes_alignment_bytes, limits.max_write_zeroes_bytes) == (64 * KIB, 512 * KIB)
    assert (limits.discard_alignment_bytes, limits.max_discard_bytes) == (32 * KIB, 128 * KIB)
    assert (limits.min_mem_alignment_bytes, limits.opt_mem_alignment_bytes, limits.max_iov) == (1, 4096, 1024)
    assert (limits.max_hw_transfer_bytes, limits.max_hw_iov) == (0, 0), "no driver asks the hardware"


async def test_a_node_says_whether_a_new_image_of_it_reads_as_zeroes(house: NodeHouse):
    await house.client.images.create("base.raw", MIB)
    await house.client.images.create("top.qcow2", format="qcow2", backing_file="base.raw", backing_format="raw")
    await house.client.images.create("alone.qcow2", MIB, format="qcow2")
    for definition in (memory(MIB), null(MIB), raw(file("base.raw"), read_only=True), qcow2(file("alone.qcow2"))):
        state = await house.client.nodes.open(definition)
        assert (await house.client.nodes.get(state.node_name)).has_zero_init, state.driver
    top = await house.client.nodes.open(qcow2(file("top.qcow2")))
    assert not (await house.client.nodes.get(top.node_name)).has_zero_init, "the backing file shows"


async def test_only_a_protocol_grows_by_writes_past_its_end(house: NodeHouse):
    await house.client.images.create("disk.qcow2", MIB, format="qcow2")
    state = await house.client.nodes.open(qcow2(file("disk.qcow2")))
    below = await house.client.nodes.get(state.children[0].node_name)
    assert (state.growable, below.growable) == (False, True)
    assert state.zero_beyond_eof and below.zero_beyond_eof
