"""Changing the graph over the API: sizes, overlays, filters, backing files, drains."""

import asyncio

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import (
    GraphCycle,
    InvalidArgument,
    NodeInUse,
    NodeNotFound,
    NodeReadOnly,
    NotImplementedYet,
    OperationUnsupported,
    ResourceNotFound,
)
from blockyard.client.definitions import NO_NODE, copy_on_read, file, generic, memory, null, qcow2, raw
from blockyard.node.graph import surgery
from blockyard.node.graph.definition import NodeDefinition
from blockyard.v1 import node_pb2 as node
from tests.support import coming, peers
from tests.support.eventually import eventually
from tests.support.node_calls import NodeHouse

MIB = 1 << 20


async def overlay(house: NodeHouse, name: str, size: int = MIB) -> None:
    await house.client.images.create(f"{name}.qcow2", size, format="qcow2")
    await house.client.nodes.open(qcow2(file(f"{name}.qcow2"), backing=NO_NODE, node_name=name))


async def filtered(house: NodeHouse, below: str) -> None:
    """Node "f", a filter above a node, under its users. (The filters there are come with jobs.)"""
    children = {"file": below, "target": NodeDefinition("memory", options={"size": MIB})}
    node = await house.graph.open(NodeDefinition("copy-before-write", "f", children=children))
    await surgery.insert_filter(house.graph, house.graph.get(below), node)


# --- size ------------------------------------------------------------------------------------------------


async def test_a_node_grows_and_reads_as_zeroes_there(house: NodeHouse):
    await overlay(house, "a")
    await house.client.data.write("a", MIB - 10, b"x" * 10)
    assert (await house.client.nodes.resize("a", 3 * MIB)).size_bytes == 3 * MIB
    assert await house.client.data.read("a", MIB - 1, 100) == b"x" + bytes(99)


async def test_a_node_shrinks_only_when_that_is_said(house: NodeHouse):
    await overlay(house, "a")
    with pytest.raises(InvalidArgument) as refused:
        await house.client.nodes.resize("a", 4096)
    assert refused.value.name == "size_bytes"
    assert (await house.client.nodes.resize("a", 65536, allow_shrink=True)).size_bytes == 65536


async def test_sizes_that_cannot_be_are_refused(house: NodeHouse):
    await house.client.nodes.open(null(MIB, node_name="fixed"))
    await house.client.nodes.open(memory(MIB, node_name="locked", read_only=True))
    await overlay(house, "a")
    for name, size, error in (
        ("a", -1, InvalidArgument),
        ("a", MIB + 1, InvalidArgument),
        ("fixed", 2 * MIB, OperationUnsupported),
        ("locked", 2 * MIB, NodeReadOnly),
        ("nobody", MIB, NodeNotFound),
    ):
        with pytest.raises(error):
            await house.client.nodes.resize(name, size)


async def test_a_size_is_checked_without_changing_it(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="a"))
    assert (await house.client.nodes.resize("a", 2 * MIB, validate_only=True)).size_bytes == MIB


# --- overlays, replacement -------------------------------------------------------------------------------


async def test_an_overlay_takes_the_users_and_the_node_below_stays_as_it_was(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="base"))
    await overlay(house, "top")
    async with house.client.data.session("base") as session:
        await session.write(0, b"before")
        state = await house.client.nodes.insert_overlay("base", "top")
        assert state.children[1].node_name == "base"
        await session.write(0, b"after!")
        assert await session.read(0, 6) == b"after!"
    assert await house.client.data.read("base", 0, 6) == b"before"
    assert (await house.client.nodes.get("base")).read_only


async def test_an_overlay_must_be_large_free_and_able(house: NodeHouse):
    await house.client.nodes.open(memory(2 * MIB, node_name="base"))
    await overlay(house, "small")
    await house.client.nodes.open(memory(2 * MIB, node_name="plain"))
    with pytest.raises(InvalidArgument):
        await house.client.nodes.insert_overlay("base", "small")
    with pytest.raises(OperationUnsupported):
        await house.client.nodes.insert_overlay("base", "plain")
    await house.client.nodes.open(raw("small", node_name="user"))
    with pytest.raises(NodeInUse):
        await house.client.nodes.insert_overlay("base", "small")


async def test_a_node_is_replaced_under_its_users(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="a"))
    await house.client.nodes.open(memory(MIB, node_name="b"))
    await house.client.data.write("b", 0, b"bee")
    async with house.client.data.session("a") as session:
        assert (await house.client.nodes.replace("a", "b")).node_name == "b"
        assert await session.read(0, 3) == b"bee"
        assert house.users("a") == []
    with pytest.raises(GraphCycle):
        await house.client.nodes.replace("a", "a")


# --- filters ---------------------------------------------------------------------------------------------


async def test_a_filter_is_taken_out_under_its_users_and_closed(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="a"))
    async with house.client.data.session("a", client_name="guest") as session:
        await filtered(house, "a")
        assert house.users("f") == ["session/guest"]
        await session.write(0, b"through")
        assert (await house.client.nodes.remove_filter("f")).node_name == "a"
        assert await session.read(0, 7) == b"through"
    assert "f" not in house.graph.nodes


async def test_a_jobs_filter_is_the_jobs(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="a"))
    await filtered(house, "a")
    house.graph.get("f").implicit = True
    with pytest.raises(NodeInUse):
        await house.client.nodes.remove_filter("f")
    with pytest.raises(NodeInUse):
        await house.client.nodes.close("f")
    with pytest.raises(NotImplementedYet):
        children = {"file": "a", "target": memory(MIB)}
        await house.client.nodes.insert_filter("a", generic("mirror-top", children=children))


async def test_what_is_no_filter_is_not_put_in_or_taken_out(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="a"))
    with pytest.raises(InvalidArgument):
        await house.client.nodes.insert_filter("a", raw("a", node_name="f"))
    with pytest.raises(InvalidArgument):
        await house.client.nodes.remove_filter("a")
    assert set(house.graph.nodes) == {"a"}


# --- backing files ---------------------------------------------------------------------------------------


@pytest.mark.peer("qemu-img")
async def test_only_a_filter_of_the_node_is_opened_to_be_put_in(house: NodeHouse):
    """A format would have written to the node before it was refused."""
    await overlay(house, "a")
    await overlay(house, "b")
    wrong = [(qcow2("a", node_name="x"), "filter"), (copy_on_read("b", node_name="x"), "filter.file")]
    for definition, about in (*wrong, (copy_on_read(memory(MIB), node_name="x"), "filter.file")):
        with pytest.raises(InvalidArgument) as refused:
            await house.client.nodes.insert_filter("a", definition)
        assert refused.value.name == about
    assert {each.node_name for each in await house.client.nodes.list(explicit_only=True)} == {"a", "b"}


async def test_the_backing_reference_in_a_header_is_rewritten(house: NodeHouse):
    await overlay(house, "a")
    state = await house.client.nodes.change_backing_file("a", "other.raw", "raw")
    assert (state.backing_file, state.backing_format) == ("other.raw", "raw")
    told = peers.run("qemu-img", "info", "-U", house.folder / "a.qcow2").stdout
    assert "backing file: other.raw" in told and "backing file format: raw" in told
    assert (await house.client.nodes.change_backing_file("a", "")).backing_file == ""


async def test_a_backing_reference_needs_a_format_a_writer_and_a_driver_that_can(house: NodeHouse):
    await overlay(house, "a")
    await house.client.nodes.open(memory(MIB, node_name="m"))
    await house.client.nodes.open(memory(MIB, node_name="r", read_only=True))
    with pytest.raises(InvalidArgument):
        await house.client.nodes.change_backing_file("a", "other.raw")
    with pytest.raises(OperationUnsupported):
        await house.client.nodes.change_backing_file("m", "other.raw", "raw")
    with pytest.raises(NodeReadOnly):
        await house.client.nodes.change_backing_file("r", "other.raw", "raw")


async def test_an_emptied_image_shows_its_backing_file_and_all_of_it_is_dirty(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="base"))
    await house.client.data.write("base", 0, b"below")
    await house.client.images.create("a.qcow2", MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("a.qcow2"), backing="base", node_name="a"))
    await house.client.data.write("a", 0, b"above")
    await house.client.bitmaps.add("a", "b")
    await house.nodes.MakeEmpty(node.MakeEmptyRequest(node_name="a"))
    assert await house.client.data.read("a", 0, 5) == b"below"
    assert (await house.client.bitmaps.get("a", "b")).dirty_bytes == MIB
    with pytest.raises(OperationUnsupported):
        await house.nodes.MakeEmpty(node.MakeEmptyRequest(node_name="base"))


# --- drains ----------------------------------------------------------------------------------------------


def drain(name: str, seconds: float | None = None) -> node.DrainNodeRequest:
    request = node.DrainNodeRequest(node_name=name)
    if seconds is not None:
        request.lease.FromNanoseconds(round(seconds * 1e9))
    return request


async def test_a_drained_node_holds_its_requests_until_it_is_let_go(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="a"))
    held = (await house.nodes.DrainNode(drain("a"))).drain_id
    writing = asyncio.create_task(house.client.data.write("a", 0, b"late"))
    await eventually(lambda: any("call/" in user for user in house.users("a")))
    assert (await house.client.nodes.get("a")).quiesce_counter == 1
    with pytest.raises(NodeInUse):
        await house.client.nodes.close("a")
    assert not writing.done()
    assert not (await house.nodes.UndrainNode(node.UndrainNodeRequest(drain_id=held))).expired
    await writing
    assert await house.client.data.read("a", 0, 4) == b"late"
    with pytest.raises(ResourceNotFound):
        await house.nodes.UndrainNode(node.UndrainNodeRequest(drain_id=held))


async def test_a_drain_ends_with_its_lease(still: NodeHouse, clock: VirtualClock):
    await still.client.nodes.open(memory(MIB, node_name="a"))
    held = (await still.nodes.DrainNode(drain("a", 2))).drain_id
    await clock.advance(1.9)
    assert still.graph.get("a").quiesced == 1
    await clock.advance(0.2)
    assert still.graph.get("a").quiesced == 0
    assert still.users("a") == []
    assert (await still.nodes.UndrainNode(node.UndrainNodeRequest(drain_id=held))).expired


async def test_a_drain_waits_for_what_is_in_flight(still: NodeHouse, clock: VirtualClock):
    await still.client.nodes.open(null(MIB, latency_ns=10**9, node_name="slow"))
    writing = asyncio.create_task(still.client.data.write("slow", 0, bytes(512)))
    await eventually(lambda: still.graph.get("slow").tracker.requests)
    draining = asyncio.create_task(still.nodes.DrainNode(drain("slow", 30)))
    await eventually(lambda: still.graph.get("slow").quiesced)
    assert not draining.done()
    await clock.advance(1)
    assert (await draining).drain_id
    assert await writing == 512


async def test_leases_have_their_bounds(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="a"))
    for seconds in (0, 61, -1):
        with pytest.raises(InvalidArgument):
            await house.nodes.DrainNode(drain("a", seconds))
    with pytest.raises(NodeNotFound):
        await house.nodes.DrainNode(drain("nobody"))
    assert house.graph.get("a").quiesced == 0


async def test_a_stop_does_not_wait_for_leases(tmp_path, house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="a"))
    await house.nodes.DrainNode(drain("a", 60))


# --- later -----------------------------------------------------------------------------------------------


def test_every_method_of_the_service_does_something():
    assert coming.missing_in_node_service() == []
