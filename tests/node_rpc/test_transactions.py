"""Several changes as one over the API: snapshots, bitmaps, exports and backups of several disks at one instant."""

import asyncio
from typing import Any

import pytest

from blockyard.base.errors import (
    InvalidArgument,
    MediumActionNotAllowed,
    MissingOption,
    NodeNotFound,
    ResourceExists,
    TransactionFailed,
)
from blockyard.client.definitions import NO_NODE, file, memory, qcow2, raw
from blockyard.v1 import bitmap_pb2, control_pb2, copy_pb2, export_pb2, node_pb2
from blockyard.v1.node_pb2 import TransactionAction
from tests.support.eventually import eventually
from tests.support.node_calls import NodeHouse

MIB = 1 << 20
KIB = 1 << 10


async def image(house: NodeHouse, name: str, *, standing: bool = True) -> None:
    await house.client.images.create(f"{name}.qcow2", MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file(f"{name}.qcow2"), backing=NO_NODE, node_name=name))


def overlay(node: str, above: str) -> TransactionAction:
    wish = node_pb2.InsertOverlayRequest(node_name=node, overlay_node_name=above)
    return TransactionAction(insert_overlay=wish)


def bitmap(node: str, name: str) -> TransactionAction:
    wish = bitmap_pb2.CreateBitmapRequest(node_name=node, name=name, granularity_bytes=4096)
    return TransactionAction(create_bitmap=wish)


def exported(node: str, export_id: str, house: NodeHouse) -> TransactionAction:
    nbd = export_pb2.NbdExport(addresses=[f"unix:{house.folder.parent}/nbd.sock"])
    wanted = export_pb2.Export(export_id=export_id, node_name=node, writable=True, nbd=nbd)
    return TransactionAction(create_export=export_pb2.CreateExportRequest(export=wanted))


def backup(source: str, target: str, session_id: str) -> TransactionAction:
    wish = copy_pb2.CreateCopySessionRequest(
        session_id=session_id,
        owner=f"job/{session_id}",
        kind=copy_pb2.COPY_KIND_BACKUP,
        source_node_name=source,
        target_node_name=target,
    )
    return TransactionAction(create_copy_session=wish)


def closed(node: str) -> TransactionAction:
    return TransactionAction(close=node_pb2.CloseNodeRequest(node_name=node))


async def graph_of(house: NodeHouse) -> Any:
    """Nodes and edges, without what tells only that something was tried."""
    found = await house.client.nodes.graph()
    found.ClearField("revision")
    for state in found.nodes:
        state.ClearField("etag")
    return found


async def test_a_snapshot_of_two_disks_with_bitmaps_is_one_call(house: NodeHouse):
    for name in ("a", "b", "a-top", "b-top"):
        await image(house, name)
    actions = [overlay("a", "a-top"), overlay("b", "b-top"), bitmap("a-top", "since"), bitmap("b-top", "since")]
    told = await house.client.nodes.transaction(actions)
    assert {edge.child.node_name for edge in told.difference.added_edges} == {"a", "b"}
    assert told.pause.ToNanoseconds() > 0
    await house.client.data.write("a-top", 64 * KIB, b"new")
    assert [item.name for item in await house.client.bitmaps.list("a-top")] == ["since"]
    assert (await house.client.nodes.get("a")).read_only


async def test_a_failing_action_undoes_nodes_bitmaps_exports_and_sessions(house: NodeHouse):
    for name in ("a", "a-top"):
        await image(house, name)
    await house.client.nodes.open(memory(MIB, node_name="copy"))
    before = await graph_of(house)
    actions = [
        TransactionAction(open=node_pb2.OpenNodeRequest(definition=memory(MIB, node_name="new"))),
        overlay("a", "a-top"),
        bitmap("a-top", "since"),
        backup("a-top", "copy", "b1"),
        exported("a-top", "guest", house),
        exported("copy", "second", house),  # a backup's target is written by nobody else
    ]
    with pytest.raises(TransactionFailed) as refusal:
        await house.client.nodes.transaction(actions)
    assert "5: PERMISSION_CONFLICT" in refusal.value.failures
    assert await graph_of(house) == before
    assert await house.client.exports.list() == ()
    assert house.running.copies.all() == []
    assert await house.client.bitmaps.list() == ()


async def test_every_failing_action_is_named(house: NodeHouse):
    await image(house, "a")
    with pytest.raises(TransactionFailed) as refusal:
        await house.client.nodes.transaction([overlay("a", "nobody"), bitmap("a", "b"), closed("no-one")])
    assert (
        refusal.value.failures.startswith("0: NODE_NOT_FOUND") and "; 2: NODE_NOT_FOUND" in refusal.value.failures
    )


async def test_a_dry_run_tells_the_difference_and_the_conflicts(house: NodeHouse):
    for name in ("a", "a-top"):
        await image(house, name)
    before = await graph_of(house)
    told = await house.client.nodes.transaction([overlay("a", "a-top"), closed("nobody")], validate_only=True)
    assert [(each.index, each.reason) for each in told.failures] == [(1, "NODE_NOT_FOUND")]
    assert [(edge.parent, edge.child.node_name) for edge in told.difference.added_edges] == [("a-top", "a")]
    assert await graph_of(house) == before


async def test_a_backup_in_a_transaction_is_of_the_instant_of_the_snapshot(house: NodeHouse):
    await image(house, "a")
    await image(house, "a-top")
    await house.client.nodes.open(memory(MIB, node_name="copy"))
    await house.client.data.write("a", 0, b"before")
    await house.client.nodes.transaction([overlay("a", "a-top"), backup("a-top", "copy", "b1")])
    await house.client.data.write("a-top", 0, b"after!")
    assert await house.client.data.read("copy", 0, 6) == b"before"


async def test_an_export_changes_with_the_graph(house: NodeHouse):
    await image(house, "a")
    await house.client.nodes.open(memory(MIB, node_name="b"))
    await house.client.nodes.transaction([exported("a", "guest", house)])
    gone = TransactionAction(delete_export=export_pb2.DeleteExportRequest(export_id="guest"))
    await house.client.nodes.transaction([gone, exported("b", "other", house)])
    assert [(item.export_id, item.node_name) for item in await house.client.exports.list()] == [("other", "b")]


async def test_an_export_that_is_there_already_fails_before_anything_changes(house: NodeHouse):
    await image(house, "a")
    await house.client.nodes.transaction([exported("a", "guest", house)])
    with pytest.raises(ResourceExists):
        await house.client.nodes.transaction([exported("a", "guest", house)])


async def test_a_filter_is_inserted_and_removed(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="disk"))
    await house.client.nodes.transaction([exported("disk", "guest", house)])
    wish = node_pb2.InsertFilterRequest(node_name="disk", filter=raw("disk", node_name="window"))
    with pytest.raises(InvalidArgument):
        await house.client.nodes.transaction([TransactionAction(insert_filter=wish)])
    assert [node.node_name for node in await house.client.nodes.list()] == ["disk"]


# --- media -----------------------------------------------------------------------------------------------


def medium(action: str, node: str = "", *, force: bool = False) -> TransactionAction:
    move = control_pb2.ChangeMediumRequest.Action.Value(f"ACTION_{action}")
    wish = control_pb2.ChangeMediumRequest(name="cd", action=move, node_name=node, force=force)
    return TransactionAction(change_medium=wish)


async def test_a_medium_changes_with_the_graph_and_its_guest_sees_the_old_or_the_new(house: NodeHouse):
    client = house.client
    await client.nodes.open(memory(MIB, node_name="old"))
    await client.data.write("old", 0, b"o" * 512)
    await client.attachments.create("cd", "old", removable=True, writable=True)
    seen: set[bytes] = set()

    async def guest() -> None:
        while b"n" not in seen:
            seen.add((await client.data.read("", 0, 512, attachment="cd"))[:1])

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(guest())
        await eventually(lambda: bool(seen))
        await client.nodes.open(memory(MIB, node_name="new"))
        await client.data.write("new", 0, b"n" * 512)
        told = await client.nodes.transaction([bitmap("new", "since"), medium("CHANGE", "new"), closed("old")])
    assert seen == {b"o", b"n"} and told.closed == ["old"]
    assert (await client.attachments.get("cd")).node_name == "new"
    await client.data.write("", 0, b"x" * 512, attachment="cd")
    assert [item.dirty_bytes for item in await client.bitmaps.list("new")] == [4096]


async def test_a_medium_stays_with_its_tray_if_another_action_fails_or_in_a_dry_run(house: NodeHouse):
    client = house.client
    for name in ("old", "new"):
        await client.nodes.open(memory(MIB, node_name=name))
    await client.attachments.create("cd", "old", removable=True)
    before = await client.attachments.get("cd")
    dry = await client.nodes.transaction([medium("CHANGE", "new")], validate_only=True)
    assert [edge.child.node_name for edge in dry.difference.added_edges] == ["new"] and not dry.failures
    with pytest.raises(TransactionFailed):
        await client.nodes.transaction([medium("CHANGE", "new"), exported("nobody", "e", house)])
    assert await client.attachments.get("cd") == before
    await client.data.read("", 0, 512, attachment="cd")
    assert (await client.attachments.change("cd", "new")).node_name == "new"


async def test_a_locked_tray_fails_the_transaction_unless_it_is_forced(house: NodeHouse):
    client = house.client
    await client.nodes.open(memory(MIB, node_name="old"))
    await client.attachments.create("cd", "old", removable=True, locked=True)
    with pytest.raises(MediumActionNotAllowed, match="locked"):
        await client.nodes.transaction([medium("OPEN_TRAY")])
    assert not (await client.attachments.get("cd")).eject_requested
    with pytest.raises(TransactionFailed, match="no action before"):
        await client.nodes.transaction([medium("OPEN_TRAY", force=True), medium("REMOVE")])
    await client.nodes.transaction([medium("OPEN_TRAY", force=True)])
    await client.nodes.transaction([medium("REMOVE"), closed("old")])
    assert (await client.attachments.get("cd")).node_name == ""


async def test_an_empty_action_is_refused_by_its_place(house: NodeHouse):
    with pytest.raises(MissingOption) as refusal:
        await house.client.nodes.transaction([closed("a"), TransactionAction()])
    assert "actions[1]" in str(refusal.value)


async def test_fields_of_single_calls_are_refused_inside(house: NodeHouse):
    wish = node_pb2.CloseNodeRequest(node_name="a", allow_missing=True)
    with pytest.raises(InvalidArgument) as refusal:
        await house.client.nodes.transaction([TransactionAction(close=wish)])
    assert refusal.value.name == "actions[0].close.allow_missing"


async def test_a_repeated_transaction_happens_once(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="a"))
    request = node_pb2.RunTransactionRequest(actions=[closed("a")], request_id="c7d6")
    first = await house.nodes.RunTransaction(request)
    assert await house.nodes.RunTransaction(request) == first
    with pytest.raises(NodeNotFound):
        await house.client.nodes.transaction([closed("a")])


# --- reopen ----------------------------------------------------------------------------------------------


async def test_options_of_several_nodes_change_in_one_call(house: NodeHouse):
    for name in ("a", "b"):
        await image(house, name)
    wanted = [qcow2(file(f"{name}.qcow2"), backing=NO_NODE, node_name=name, read_only=True) for name in ("a", "b")]
    nodes = await house.client.nodes.reopen(wanted)
    assert [(node.node_name, node.read_only) for node in nodes] == [("a", True), ("b", True)]


async def test_a_reopen_that_fails_for_one_changes_none(house: NodeHouse):
    await image(house, "a")
    await house.client.nodes.open(memory(MIB, node_name="b"))
    wanted = [qcow2(file("a.qcow2"), node_name="a", read_only=True), memory(2 * MIB, node_name="b")]
    with pytest.raises(InvalidArgument):
        await house.client.nodes.reopen(wanted)
    assert not (await house.client.nodes.get("a")).read_only


async def test_a_reopen_is_checked_without_changing(house: NodeHouse):
    await image(house, "a")
    await house.client.nodes.reopen([qcow2(file("a.qcow2"), node_name="a", read_only=True)], validate_only=True)
    assert not (await house.client.nodes.get("a")).read_only


async def test_a_reopen_is_an_action_among_others(house: NodeHouse):
    await image(house, "a")
    await image(house, "top")
    wish = node_pb2.ReopenNodesRequest(definitions=[qcow2(file("a.qcow2"), node_name="a", labels={"tier": "cold"})])
    told = await house.client.nodes.transaction([overlay("a", "top"), TransactionAction(reopen=wish)])
    assert "a" in told.difference.changed_nodes
    assert dict((await house.client.nodes.get("a")).labels) == {"tier": "cold"}


async def test_an_empty_reopen_is_refused(house: NodeHouse):
    with pytest.raises(MissingOption):
        await house.client.nodes.reopen([])
