"""Options of the driver qcow2 over the API: overlap checks with their event, caches with their figures."""

from pathlib import Path

import pytest

from blockyard.base.errors import ImageCorrupt, InvalidArgument, NodeReadOnly
from blockyard.client.definitions import file, qcow2
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.v1 import node_pb2 as node
from tests.support.node_calls import NodeHouse
from tests.support.qcow2_images import Surgeon, qemu_create, qemu_write

MIB = 1 << 20
COPIED = 1 << 63

pytestmark = [pytest.mark.peer("qemu-img"), pytest.mark.peer("qemu-io")]


def damaged(folder: Path) -> Path:
    """Its first L2 entry says that the refcount block is the guest's own."""
    path = folder / "bad.qcow2"
    qemu_create(path, MIB, "cluster_size=4k")
    qemu_write(path, "write -P 1 0 64k")
    surgeon = Surgeon(path)
    surgeon.put(surgeon.l2, surgeon.refcounts | COPIED)
    surgeon.save()
    return path


async def test_a_write_over_metadata_is_refused_marked_and_told(house: NodeHouse):
    path = damaged(house.folder)
    place = Surgeon(path).refcounts
    await house.client.nodes.open(qcow2(file("bad.qcow2"), node_name="bad"))
    call = house.watch.WatchNodes(node.WatchNodesRequest(node_names=["bad"]))
    await call.read()  # what is there now: from here on it sees what happens
    with pytest.raises(ImageCorrupt, match="refcount block"):
        await house.client.data.write("bad", 0, b"x" * 4096)
    while (event := (await call.read()).event).kind != "corrupted":
        pass
    call.cancel()
    assert event.node_name == "bad"
    assert (event.details["fatal"], event.details["offset"], event.details["size"]) == ("true", str(place), "4096")
    with pytest.raises(NodeReadOnly):
        await house.client.data.write("bad", MIB // 2, b"x" * 4096)
    state = await house.client.nodes.get("bad")
    assert state.corrupt
    await house.client.nodes.close("bad")
    assert hdr.decode_fixed(path.read_bytes()[:512], "bad").incompatible & hdr.CORRUPT


async def test_what_is_looked_at_is_chosen_by_structure(house: NodeHouse):
    damaged(house.folder)
    unguarded = qcow2(
        file("bad.qcow2"), node_name="bad", overlap_check="all", overlap_checks={"refcount_block": False}
    )
    await house.client.nodes.open(unguarded)
    await house.client.data.write("bad", 0, b"x" * 512)
    assert '"refcount_block": false' in (await house.client.nodes.get("bad")).full_open_options
    await house.client.nodes.close("bad")


async def test_caches_are_sized_and_told_of(house: NodeHouse):
    await house.client.images.create("a.qcow2", 64 * MIB, format="qcow2", cluster_size_bytes=4096)
    definition = qcow2(file("a.qcow2"), node_name="a", l2_cache_size=64 * 1024)
    definition.qcow2.cache_clean_interval = 60
    await house.client.nodes.open(definition)
    for at in range(0, 64 * MIB, 2 * MIB):
        await house.client.data.write("a", at, b"x" * 4096)
    await house.client.data.flush("a")
    facts = (await house.client.nodes.get("a")).format_specific
    assert facts["l2-cache-size"].int_value == 64 * 1024
    assert facts["l2-cache-evictions"].int_value > 0
    await house.client.nodes.close("a")
    definition.node_name = "b"
    definition.qcow2.cache_size = 4096
    with pytest.raises(InvalidArgument, match="l2_cache_size"):
        await house.client.nodes.open(definition)
