"""The graph over the API: open, show, list, close."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from blockyard.base.errors import (
    BackingDenied,
    BackingFormatUnknown,
    BackingLoop,
    BackingMissing,
    ChainTooDeep,
    EtagMismatch,
    FileBusy,
    FileNotFound,
    FileReadOnly,
    FormatMismatch,
    GraphCycle,
    ImageCorrupt,
    InvalidArgument,
    LimitReached,
    MissingOption,
    NodeExists,
    NodeInUse,
    NodeNotFound,
    PathDenied,
    PermissionConflict,
    RequestIdReused,
    ResourceNotFound,
    UnknownOption,
)
from blockyard.client.definitions import NO_NODE, file, generic, memory, null, qcow2, raw
from blockyard.node.graph.edge import Edge
from blockyard.node.interface.flags import Role
from blockyard.v1 import drivers_pb2 as drivers
from blockyard.v1 import node_pb2 as node
from blockyard.v1 import types_pb2 as types
from tests.support.node_calls import NodeHouse, node_house

MIB = 1 << 20


async def chain(house: NodeHouse) -> None:
    """top.qcow2 above base.raw."""
    await house.client.images.create("base.raw", MIB)
    await house.client.images.create("top.qcow2", format="qcow2", backing_file="base.raw", backing_format="raw")


# --- open ------------------------------------------------------------------------------------------------


async def test_an_opened_node_tells_all_of_itself(house: NodeHouse):
    await chain(house)
    state = await house.client.nodes.open(
        qcow2(file("top.qcow2"), node_name="top", l2_cache_size=MIB, labels={"team": "blue"})
    )
    assert (state.node_name, state.driver, state.size_bytes, state.read_only) == ("top", "qcow2", MIB, False)
    assert (state.filename, state.backing_file, state.backing_format) == ("top.qcow2", "base.raw", "raw")
    assert [(child.name, child.role) for child in state.children] == [
        ("file", types.CHILD_ROLE_FILE),
        ("backing", types.CHILD_ROLE_BACKING),
    ]
    assert state.cluster_size_bytes == 65536
    assert state.allocated_bytes > 0
    assert state.vm_state_offset_bytes > MIB
    assert state.format_specific["compat"].string_value == "1.1"
    assert dict(state.labels) == {"team": "blue"}
    assert state.uid and state.etag and state.create_time.seconds
    assert not state.implicit and state.active and state.zero_beyond_eof and not state.growable
    assert state.limits.request_alignment_bytes == 1
    assert json.loads(state.explicit_options.removeprefix("json:"))["l2-cache-size"] == MIB
    effective = json.loads(state.effective_options.removeprefix("json:"))
    assert (effective["overlap-check"], effective["discard"], effective["file"]) == (
        "cached",
        "unmap",
        state.children[0].node_name,
    )


async def test_what_was_opened_with_a_node_is_implicit_and_inherits(house: NodeHouse):
    await chain(house)
    state = await house.client.nodes.open(qcow2(file("top.qcow2"), node_name="top", read_only=True))
    below = await house.client.nodes.get(state.children[1].node_name)
    assert (below.implicit, below.inherits_from, below.read_only) == (True, "top", True)
    assert [(holder.kind, holder.name, holder.edge) for holder in below.holders] == [("node", "top", "backing")]


async def test_a_node_can_be_opened_above_open_nodes(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="bytes"))
    state = await house.client.nodes.open(raw("bytes", offset=4096, size=8192, node_name="window"))
    assert (state.size_bytes, state.children[0].node_name) == (8192, "bytes")


async def test_the_generic_arm_opens_any_driver_with_qemus_names(house: NodeHouse):
    house.raw_file("a.raw", MIB)
    below = generic("file", {"filename": "a.raw", "locking": "off"})
    state = await house.client.nodes.open(generic("raw", {"offset": 512}, {"file": below}, node_name="a"))
    assert state.size_bytes == MIB - 512


async def test_a_node_without_a_name_gets_one_that_no_client_can_take(house: NodeHouse):
    state = await house.client.nodes.open(memory(4096))
    assert state.node_name.startswith("#")
    with pytest.raises(InvalidArgument):
        await house.client.nodes.open(memory(4096, node_name="no spaces"))


async def test_opening_is_all_or_nothing(house: NodeHouse):
    await house.client.images.create("a.raw", MIB)
    with pytest.raises(InvalidArgument):
        await house.client.nodes.open(raw(file("a.raw"), offset=2 * MIB, node_name="a"))
    assert house.graph.nodes == {}
    await house.client.nodes.open(raw(file("a.raw"), node_name="a"))  # no lock was left


@pytest.mark.parametrize(
    ("definition", "error"),
    [
        (drivers.NodeDefinition(node_name="x"), MissingOption),
        (drivers.NodeDefinition(generic=drivers.GenericOptions()), MissingOption),
        (raw(file("no.raw")), FileNotFound),
        (raw(file("")), MissingOption),
        (raw(file("../up.raw")), PathDenied),
        (raw(file("/etc/passwd")), PathDenied),
        (raw("nobody"), NodeNotFound),
        (raw("me", node_name="me"), GraphCycle),
        (drivers.NodeDefinition(raw=drivers.RawOptions(file=drivers.NodeReference())), InvalidArgument),
        (drivers.NodeDefinition(raw=drivers.RawOptions()), MissingOption),
        (drivers.NodeDefinition(memory=drivers.MemoryOptions(size=-1)), InvalidArgument),
        (generic("raw", children={"file": memory(512), "backing": NO_NODE}), UnknownOption),
        (generic("memory", {"size": "big"}), InvalidArgument),
        (generic("memory", {"sise": 1}), UnknownOption),
        (memory(512, executor="other"), ResourceNotFound),
        (memory(512, auto_read_only=True, force_share=True), InvalidArgument),
        (drivers.NodeDefinition(file=drivers.FileOptions()), MissingOption),
        (memory(512, detect_zeroes="unmap", discard="ignore"), InvalidArgument),
        (memory(512, labels={str(number): "" for number in range(65)}), InvalidArgument),
        (drivers.NodeDefinition(memory=drivers.MemoryOptions(), discard=77), InvalidArgument),
        (null(512, latency_ns=-1), InvalidArgument),
    ],
)
async def test_what_cannot_be_opened_is_refused_by_name(house: NodeHouse, definition, error):
    with pytest.raises(error):
        await house.client.nodes.open(definition)
    assert house.graph.nodes == {}


async def test_an_unknown_option_is_named_with_those_there_are(house: NodeHouse):
    with pytest.raises(UnknownOption) as refused:
        await house.client.nodes.open(generic("memory", {"sise": 1}))
    assert (refused.value.option, refused.value.known) == ("sise", "size")


async def test_a_name_is_given_once(house: NodeHouse):
    await house.client.nodes.open(memory(4096, node_name="a"))
    with pytest.raises(NodeExists):
        await house.client.nodes.open(memory(4096, node_name="a"))


async def test_an_image_that_is_its_own_backing_file_is_refused(house: NodeHouse):
    await house.client.images.create("a", MIB, format="qcow2", backing_file="a", backing_format="qcow2")
    with pytest.raises(BackingLoop):
        await house.client.nodes.open(qcow2(file("a"), node_name="a"))
    assert house.graph.nodes == {}
    await house.client.nodes.open(qcow2(file("a"), backing=NO_NODE, node_name="a"))


async def test_a_backing_file_that_is_missing_or_outside_is_named(house: NodeHouse):
    await house.client.images.create("a", MIB, format="qcow2", backing_file="gone", backing_format="raw")
    with pytest.raises(BackingMissing) as missing:
        await house.client.nodes.open(qcow2(file("a"), node_name="a"))
    assert (missing.value.image, missing.value.backing) == ("a", "gone")
    image = (house.folder / "a").read_bytes()
    (house.folder / "b").write_bytes(image.replace(b"gone", b"/etc"))
    with pytest.raises(BackingMissing):
        await house.client.nodes.open(qcow2(file("b"), node_name="b"))


async def test_a_header_without_the_backing_format_is_not_guessed(house: NodeHouse):
    await house.client.images.create("base", MIB)
    await house.client.images.create("a", MIB, format="qcow2", backing_file="base", backing_format="raw")
    image = (house.folder / "a").read_bytes()
    # The extension that names the format becomes one that nobody knows.
    (house.folder / "a").write_bytes(image.replace(bytes.fromhex("e2792aca"), bytes.fromhex("e2792acb"), 1))
    with pytest.raises(BackingFormatUnknown):
        await house.client.nodes.open(qcow2(file("a"), node_name="a"))


async def test_the_gate_for_backing_files_can_be_closed(tmp_path: Path):
    async with node_house(tmp_path, follow_backing=False) as house:
        await house.client.images.create("a", MIB, format="qcow2", backing_file="b", backing_format="raw")
        with pytest.raises(BackingDenied):
            await house.client.nodes.open(qcow2(file("a"), node_name="a"))


async def test_chains_and_nodes_have_their_bounds(tmp_path: Path):
    async with node_house(tmp_path, max_chain_depth=2, max_nodes=8) as house:
        await house.client.images.create("0", MIB, format="qcow2")
        for number in range(1, 5):
            await house.client.images.create(
                f"{number}", MIB, format="qcow2", backing_file=f"{number - 1}", backing_format="qcow2"
            )
        with pytest.raises(ChainTooDeep):
            await house.client.nodes.open(qcow2(file("4"), node_name="deep"))
        for number in range(8):
            await house.client.nodes.open(memory(512, node_name=f"m{number}"))
        with pytest.raises(LimitReached):
            await house.client.nodes.open(memory(512))


async def test_a_file_in_use_or_not_of_the_format_is_refused(house: NodeHouse):
    await house.client.images.create("a.raw", MIB)
    await house.client.nodes.open(raw(file("a.raw"), node_name="a"))
    with pytest.raises(FileBusy):
        await house.client.nodes.open(raw(file("a.raw"), node_name="again"))
    house.raw_file("b.raw", MIB)
    with pytest.raises(FormatMismatch):
        await house.client.nodes.open(qcow2(file("b.raw")))


@pytest.mark.parametrize("length", [4, 30, 100, 511])
async def test_a_truncated_header_is_refused(house: NodeHouse, length: int):
    await house.client.images.create("a.qcow2", MIB, format="qcow2")
    house.raw_file("cut.qcow2", (house.folder / "a.qcow2").read_bytes()[:length])
    with pytest.raises((FormatMismatch, ImageCorrupt)):
        await house.client.nodes.open(qcow2(file("cut.qcow2")))


async def test_a_file_that_cannot_be_written_is_refused_for_writing(house: NodeHouse):
    # A program that runs cannot be opened for writing (ETXTBSY), not even by the superuser.
    program = house.folder / "sleep"
    shutil.copy(shutil.which("sleep") or "", program)
    process = subprocess.Popen([str(program), "60"])
    try:
        with pytest.raises(FileReadOnly):
            await house.client.nodes.open(raw(file("sleep"), node_name="a"))
        state = await house.client.nodes.open(raw(file("sleep"), node_name="a", read_only=True))
        assert state.read_only
    finally:
        process.kill()
        process.wait()


async def test_validate_only_checks_everything_and_opens_nothing(house: NodeHouse):
    await chain(house)
    before = house.graph.hub.revision
    state = await house.client.nodes.open(qcow2(file("top.qcow2"), node_name="top"), validate_only=True)
    assert state.size_bytes == MIB
    assert house.graph.nodes == {}
    assert house.graph.hub.revision == before, "watchers were told of nothing"
    with pytest.raises(FileNotFound):
        await house.client.nodes.open(raw(file("no.raw")), validate_only=True)
    await house.client.nodes.open(qcow2(file("top.qcow2"), node_name="top"))


async def test_a_repeated_opening_with_one_request_id_happens_once(house: NodeHouse):
    first = await house.client.nodes.open(memory(4096), request_id="one")
    again = await house.client.nodes.open(memory(4096), request_id="one")
    assert (again.uid, len(house.graph.nodes)) == (first.uid, 1)
    with pytest.raises(RequestIdReused):
        await house.client.nodes.open(memory(8192), request_id="one")


async def test_a_request_id_of_a_failed_call_can_be_used_again(house: NodeHouse):
    with pytest.raises(FileNotFound):
        await house.client.nodes.open(raw(file("a.raw"), node_name="a"), request_id="one")
    house.raw_file("a.raw", MIB)
    await house.client.nodes.open(raw(file("a.raw"), node_name="a"), request_id="one")


# --- show ------------------------------------------------------------------------------------------------


async def test_basic_leaves_out_what_costs_a_system_call(house: NodeHouse):
    await chain(house)
    await house.client.nodes.open(qcow2(file("top.qcow2"), node_name="top"))
    basic = await house.client.nodes.get("top", full=False)
    assert (basic.allocated_bytes, basic.vm_state_offset_bytes) == (-1, -1)
    assert not basic.HasField("stats") and not basic.format_specific
    assert basic.cluster_size_bytes == 65536


async def test_the_full_view_has_the_account(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    await house.client.data.write("m", 0, b"x" * 4096)
    state = await house.client.nodes.get("m")
    (write,) = [each for each in state.stats.operations if each.type == types.REQUEST_TYPE_WRITE]
    assert (write.operations, write.transferred_bytes) == (1, 4096)
    assert (state.write_highest_offset_bytes, state.write_generation) == (4096, 1)
    assert state.flushed_generation == 0
    await house.client.data.flush("m")
    assert (await house.client.nodes.get("m")).flushed_generation == 1


async def test_a_missing_node_is_not_found(house: NodeHouse):
    with pytest.raises(NodeNotFound) as refused:
        await house.client.nodes.get("nobody")
    assert refused.value.node_name == "nobody"


async def test_lists_come_in_pages_by_name(house: NodeHouse):
    names = [f"n{number}" for number in range(7)]
    for name in reversed(names):
        await house.client.nodes.open(memory(512, node_name=name))
    found, token, pages = [], "", 0
    while True:
        page = await house.nodes.ListNodes(node.ListNodesRequest(page_size=3, page_token=token))
        found += [state.node_name for state in page.nodes]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert (found, pages) == (names, 3)


async def test_implicit_nodes_can_be_left_out(house: NodeHouse):
    await chain(house)
    await house.client.nodes.open(qcow2(file("top.qcow2"), node_name="top"))
    assert len(await house.client.nodes.list()) == 4
    assert [state.node_name for state in await house.client.nodes.list(explicit_only=True)] == ["top"]


async def test_reading_a_node_does_not_change_its_etag(house: NodeHouse):
    await house.client.nodes.open(memory(4096, node_name="a"))
    before = (await house.client.nodes.get("a")).etag
    await house.client.data.read("a")
    await house.client.data.write("a", 0, b"x")
    assert (await house.client.nodes.get("a")).etag == before


async def test_the_graph_has_nodes_edges_and_users(house: NodeHouse):
    await chain(house)
    await house.client.nodes.open(qcow2(file("top.qcow2"), node_name="top"))
    await house.client.nodes.open(memory(512, node_name="other"))
    user = house.graph.use("top", "job", "m1", writable=True)
    whole = await house.client.nodes.graph()
    assert len(whole.nodes) == 5
    part = await house.client.nodes.graph("top")
    edges = {(edge.parent, edge.child.name, edge.holder.kind) for edge in part.edges}
    assert {("top", "file", ""), ("top", "backing", ""), ("", "m1", "job")} <= edges
    assert "other" not in {state.node_name for state in part.nodes}
    assert part.revision == house.graph.hub.revision
    assert list((await house.client.nodes.get("top")).jobs) == ["m1"]
    house.graph.release(user)


# --- close -----------------------------------------------------------------------------------------------


async def test_closing_a_node_closes_what_was_opened_with_it(house: NodeHouse):
    await chain(house)
    await house.client.nodes.open(qcow2(file("top.qcow2"), node_name="top"))
    closed = await house.client.nodes.close("top")
    assert closed[0] == "top" and len(closed) == 4
    assert house.graph.nodes == {}


async def test_a_node_in_use_is_not_closed_and_its_owner_is_named(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="below"))
    await house.client.nodes.open(raw("below", node_name="above"))
    with pytest.raises(NodeInUse) as refused:
        await house.client.nodes.close("below")
    assert refused.value.owners == "node/above"
    async with house.client.data.session("above", client_name="guest"):
        with pytest.raises(NodeInUse) as used:
            await house.client.nodes.close("above")
        assert used.value.owners == "session/guest"
        with pytest.raises(NodeInUse):
            await house.client.nodes.close("above", validate_only=True)


async def test_a_conflict_names_who_holds_and_who_asks(house: NodeHouse):
    """Also while it asks only to be opened, and when it is the lock of a file that it runs into."""
    await house.client.images.create("a.qcow2", MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("a.qcow2", node_name="f"), node_name="disk"))
    with pytest.raises(PermissionConflict) as refused:
        await house.client.nodes.open(qcow2("f", node_name="again"))
    assert "node/again" in str(refused.value) and "node/disk" in str(refused.value)
    with pytest.raises(FileBusy, match="locked by node/f "):
        await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="again"))


async def test_the_label_that_is_too_long_is_named(house: NodeHouse):
    with pytest.raises(InvalidArgument) as refused:
        await house.client.nodes.open(memory(MIB, labels={"team": "blue", "note": "x" * 1021}))
    assert (refused.value.name, refused.value.found) == ("labels.note", "1025")


async def test_a_node_that_changed_is_not_closed_by_an_old_etag(house: NodeHouse):
    old = (await house.client.nodes.open(memory(MIB, node_name="a"))).etag
    await house.client.nodes.resize("a", 2 * MIB)
    await house.client.bitmaps.add("a", "b")
    with pytest.raises(EtagMismatch):
        await house.client.nodes.close("a", etag=old)
    now = (await house.client.nodes.get("a")).etag
    assert await house.client.nodes.close("a", etag=now) == ("a",)


async def test_closing_what_is_not_there_can_be_allowed(house: NodeHouse):
    with pytest.raises(NodeNotFound):
        await house.client.nodes.close("nobody")
    assert await house.client.nodes.close("nobody", allow_missing=True) == ()


async def test_validate_only_closes_nothing(house: NodeHouse):
    await house.client.nodes.open(memory(512, node_name="a"))
    await house.client.nodes.close("a", validate_only=True)
    assert "a" in house.graph.nodes


async def test_a_repeated_close_with_one_request_id_answers_as_before(house: NodeHouse):
    await house.client.nodes.open(memory(512, node_name="a"))
    assert await house.client.nodes.close("a", request_id="one") == ("a",)
    assert await house.client.nodes.close("a", request_id="one") == ("a",)


async def test_a_child_is_shown_while_a_parent_of_it_is_being_opened(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    edge = Edge(None, "file", Role.FILE, house.graph.get("m"))
    try:
        shown = await house.client.nodes.get("m")
        assert [(holder.kind, holder.name, holder.edge) for holder in shown.holders] == [("node", "", "file")]
        assert (await house.client.nodes.graph()).edges[0].holder.edge == "file"
    finally:
        edge.detach()
