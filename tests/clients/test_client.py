"""The Python client against services in memory."""

from pathlib import Path

import pytest

from blockyard.base.errors import (
    DeadlinePassed,
    DriverUnknown,
    FileExists,
    InvalidArgument,
    NodeExists,
    NodeInUse,
    NodeNotFound,
    NodeReadOnly,
    PeerUnavailable,
    RangeOutside,
    ResourceNotFound,
    UnknownOption,
)
from blockyard.client import Client
from blockyard.client.addresses import default_address
from blockyard.client.calls import Service
from blockyard.client.definitions import generic, image, memory
from blockyard.client.pieces import CHUNK, Piece
from blockyard.rpc import trace_context
from blockyard.rpc.telemetry import trace_of
from blockyard.v1 import node_pb2, types_pb2
from tests.support.fake_services import FakeServices


async def test_a_node_is_opened_shown_and_closed(client: Client):
    opened = await client.nodes.open(image("qcow2", "disk.qcow2", node_name="disk"))
    assert (opened.node_name, opened.filename) == ("disk", "disk.qcow2")
    assert (await client.nodes.get("disk")).driver == "qcow2"
    assert await client.nodes.close("disk") == ("disk",)
    assert await client.nodes.list() == ()


async def test_a_dry_run_opens_nothing(client: Client):
    await client.nodes.open(memory(4096, node_name="disk"), validate_only=True)
    assert await client.nodes.list() == ()


async def test_every_page_of_a_list_is_fetched(client: Client, fakes: FakeServices):
    for number in range(7):
        fakes.graph.add(f"n{number}", 4096)
    assert [node.node_name for node in await client.nodes.list()] == [f"n{number}" for number in range(7)]


async def test_errors_are_the_services_own_classes_with_their_fields(client: Client, fakes: FakeServices):
    with pytest.raises(NodeNotFound) as raised:
        await client.nodes.get("absent")
    assert raised.value.node_name == "absent"
    node = fakes.graph.add("disk", 4096, read_only=True)
    node.state.holders.append(types_pb2.Holder(kind="export", name="vm"))
    with pytest.raises(NodeExists):
        await client.nodes.open(memory(1, node_name="disk"))
    with pytest.raises(NodeInUse) as in_use:
        await client.nodes.close("disk")
    assert in_use.value.owners == "export vm"
    with pytest.raises(DriverUnknown):
        await client.nodes.open(generic("vmdk"))


async def test_streaming_calls_raise_them_too(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", 4096, read_only=True)
    with pytest.raises(RangeOutside) as outside:
        await client.data.read("disk", 4096, 1)
    assert outside.value.size_bytes == 4096
    with pytest.raises(NodeReadOnly):
        await client.data.write("disk", 0, b"x")
    with pytest.raises(ResourceNotFound):
        [extent async for extent in client.bitmaps.extents("disk", "absent")]


async def test_a_write_refused_in_its_middle_stops_and_tells_why(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", CHUNK)
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 1
            yield Piece(sent * CHUNK, CHUNK, b"x" * CHUNK)

    with pytest.raises(RangeOutside):
        await client.data.write_pieces("disk", endless())
    assert sent < 1000


async def test_what_fails_at_the_source_ends_the_write_and_is_raised(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", 1 << 20)

    async def failing():
        yield Piece(0, 1, b"x")
        raise OSError("the tape broke")

    with pytest.raises(OSError, match="the tape broke"):
        await client.data.write_pieces("disk", failing())


async def test_a_source_that_is_not_read_to_its_end_is_closed(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", CHUNK)
    closed = False

    async def source():
        nonlocal closed
        try:
            for number in range(1000):
                yield Piece(number * CHUNK, CHUNK, bytes(CHUNK))
        finally:
            closed = True

    with pytest.raises(RangeOutside):
        await client.data.write_pieces("disk", source())
    assert closed


async def test_bytes_travel_in_chunks_and_come_back(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", 1 << 20)
    content = bytes(range(256)) * 2500
    assert await client.data.write("disk", 100, content) == len(content)
    assert await client.data.read("disk", 100, len(content)) == content
    assert fakes.data.chunks == [CHUNK, CHUNK, len(content) - 2 * CHUNK]


async def test_zeroes_travel_as_lengths_if_sparse(client: Client, fakes: FakeServices):
    node = fakes.graph.add("disk", 1 << 20)
    node.content[:] = b"x" * len(node.content)
    await client.data.write("disk", 0, bytes(CHUNK) + b"y", sparse=True)
    assert fakes.data.chunks == [0, 1]
    assert await client.data.read("disk", 0, CHUNK + 2) == bytes(CHUNK) + b"yx"


async def test_a_file_is_written_and_read_to_the_end(client: Client, fakes: FakeServices, tmp_path: Path):
    fakes.graph.add("disk", 1 << 20)
    path = tmp_path / "content"
    path.write_bytes(b"z" * 70000)
    assert await client.data.write("disk", 5, path) == 70000
    assert (await client.data.read("disk"))[:70006] == bytes(5) + b"z" * 70000 + b"\0"


async def test_writing_nothing_names_the_node_all_the_same(client: Client, fakes: FakeServices):
    with pytest.raises(NodeNotFound):
        await client.data.write("absent", 0, b"")


async def test_zeroes_discards_and_flushes_reach_the_node(client: Client, fakes: FakeServices):
    node = fakes.graph.add("disk", 65536)
    await client.data.write("disk", 0, b"x" * 100)
    await client.data.write_zeroes("disk", 10, 10)
    await client.data.discard("disk", 0, 10)
    assert node.content[:21] == b"x" * 10 + bytes(10) + b"x"
    assert await client.data.flush("disk") is True


async def test_block_status_is_a_flat_stream_of_extents(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", 3 * 65536)
    await client.data.write("disk", 65536, b"x")
    extents = [extent async for extent in client.data.block_status("disk")]
    assert [extent.data for extent in extents] == [False, True, False]


async def test_leaving_a_stream_early_ends_the_call(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", 1 << 20)
    async for _ in client.data.pieces("disk"):
        break
    assert (await client.nodes.get("disk")).node_name == "disk"


async def test_bitmaps_are_made_listed_cleared_and_removed(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", 1 << 20)
    made = await client.bitmaps.add("disk", "b0", granularity_bytes=4096)
    assert made.recording
    fakes.graph.dirty["disk", "b0"] = [(0, 4096), (65536, 8192)]
    assert [tuple(extent) async for extent in client.bitmaps.extents("disk", "b0")] == [(0, 4096), (65536, 8192)]
    assert (await client.bitmaps.clear("disk", "b0")).dirty_bytes == 0
    await client.bitmaps.remove("disk", "b0")
    await client.bitmaps.remove("disk", "b0", allow_missing=True)
    assert await client.bitmaps.list("disk") == ()


async def test_exports_are_added_shown_and_removed(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", 1 << 20)
    export = await client.exports.add_nbd("disk", "vm", writable=True)
    assert export.uris == ["nbd+unix:///vm?socket=/run/nbd.sock"]
    assert [item.export_id for item in await client.exports.list()] == ["vm"]
    await client.exports.remove("vm")
    with pytest.raises(ResourceNotFound):
        await client.exports.get("vm")


async def test_images_are_created_and_inspected(client: Client):
    await client.images.create("base.raw", 4096)
    await client.images.create(
        "top.qcow2",
        1 << 30,
        format="qcow2",
        cluster_size_bytes=4096,
        preallocation="metadata",
        backing_file="base.raw",
        backing_format="raw",
    )
    chain = await client.images.info("top.qcow2", backing_chain=True)
    assert [(image.filename, image.cluster_size_bytes) for image in chain] == [("top.qcow2", 4096), ("base.raw", 0)]
    with pytest.raises(FileExists):
        await client.images.create("base.raw", 4096)
    assert (await client.images.probe("top.qcow2"))[0].driver == "qcow2"
    assert (await client.images.check("top.qcow2", "qcow2")).total_clusters == 16


async def test_an_unknown_create_option_is_refused_before_any_call(client: Client):
    with pytest.raises(UnknownOption, match="cluster_size_bytes"):
        await client.images.create("a", 1, format="qcow2", clustersize=4096)
    with pytest.raises(InvalidArgument, match="falloc"):
        await client.images.create("a", 1, format="qcow2", preallocation="some")


async def test_a_service_that_is_not_there_is_unavailable(tmp_path: Path):
    async with Client.connect(f"unix:{tmp_path}/nobody.sock") as client:
        with pytest.raises(PeerUnavailable, match=r"nobody\.sock"):
            await client.server.info()
        with pytest.raises(PeerUnavailable):
            await client.ready(timeout=0.05)


async def test_a_deadline_that_passed_is_told_as_such(fakes: FakeServices):
    fakes.node.answers.clear()
    async with Client.connect(fakes.address, timeout=0.02) as client:
        with pytest.raises(DeadlinePassed, match="GetServerInfo"):
            await client.server.info()


async def test_the_trace_of_the_caller_goes_with_the_call(client: Client, fakes: FakeServices):
    context = trace_context.TraceContext("ab" * 16, "cd" * 8, True)
    with trace_of(context):
        await client.server.info()
    assert dict(fakes.graph.metadata)["traceparent"].split("-")[1] == "ab" * 16


async def test_the_wrong_class_for_a_method_is_our_bug(client: Client):
    service = Service(client._open_channel, "NodeService", client._settings)
    with pytest.raises(AssertionError, match="GetGraph"):
        await service.unary("GetGraph", node_pb2.GetGraphRequest(), node_pb2.GetServerInfoResponse)


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({"BLOCKYARD_ADDRESS": "host:1"}, "host:1"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, "unix:/run/user/7/blockyard/blockyard.sock"),
        ({}, "unix:/run/blockyard/blockyard.sock"),
    ],
)
def test_the_default_address_is_the_daemons(environment, address):
    assert default_address(environment) == address


def test_an_address_that_is_none_is_refused_at_once():
    with pytest.raises(InvalidArgument, match="unix:/path"):
        Client.connect("somewhere")
