"""AttachmentService over the API, calls and sessions through attachments, and what watchers are told."""

import asyncio

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from blockyard.base.errors import (
    AttachmentReadOnly,
    DeadlinePassed,
    EtagMismatch,
    InvalidArgument,
    MediumActionNotAllowed,
    NodeInUse,
    NodeNotFound,
    RangeMisaligned,
    ResourceBusy,
    ResourceExists,
    ResourceNotFound,
    TrayLocked,
)
from blockyard.client.definitions import file, memory, qcow2
from blockyard.node.copying.spec import CopyKind, FinishAction, SessionSpec
from blockyard.v1 import control_pb2 as control
from blockyard.v1 import node_pb2 as node
from blockyard.v1 import types_pb2 as types
from tests.support.attachment_exports import EIO, MIB, at, served
from tests.support.eventually import eventually
from tests.support.gated import Gates
from tests.support.node_calls import NodeHouse
from tests.support.yard import work_off

# --- the resource ----------------------------------------------------------------------------------------


async def test_an_attachment_is_made_shown_listed_and_deleted(attached: NodeHouse):
    client = attached.client.attachments
    made = await client.create("vda", "a", writable=True, labels={"vm": "one"}, physical_block_size_bytes=4096)
    assert (made.name, made.node_name, made.logical_block_size_bytes, made.physical_block_size_bytes) == (
        *("vda", "a", 512, 4096),
    )
    assert made.write_cache and made.writable and not made.removable and made.labels == {"vm": "one"}
    assert (made.on_read_error, made.on_write_error) == (types.ON_ERROR_REPORT, types.ON_ERROR_ENOSPC)
    assert made.io_status == types.IO_STATUS_OK and made.create_time.seconds
    assert await client.get("vda") == made and await client.list() == (made,)
    state = await attached.client.nodes.get("a")
    assert list(state.attachments) == [made]
    assert [(holder.kind, holder.name) for holder in state.holders] == [("attachment", "vda")]
    assert types.PERMISSION_WRITE in state.holders[0].permissions
    with pytest.raises(NodeInUse) as busy:
        await attached.client.nodes.close("a")
    assert busy.value.owners == "attachment/vda"
    await client.delete("vda")
    await client.delete("vda", allow_missing=True)
    with pytest.raises(ResourceNotFound):
        await client.delete("vda")
    await attached.client.nodes.close("a")


async def test_a_repeated_call_is_harmless_and_a_check_makes_nothing(attached: NodeHouse):
    client = attached.client.attachments
    await client.create("vda", "a", validate_only=True)
    assert await client.list() == () and attached.users("a") == []
    made = await client.create("vda", "a", request_id="once")
    assert await client.create("vda", "a", request_id="once") == made
    with pytest.raises(ResourceExists):
        await client.create("vda", "a")


async def test_a_raw_message_leaves_the_cache_on(attached: NodeHouse):
    wanted = types.Attachment(name="vda", node_name="a")
    made = await attached.attachments.CreateAttachment(control.CreateAttachmentRequest(attachment=wanted))
    assert made.write_cache and made.HasField("write_cache")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"node_name": "nobody"}, NodeNotFound),
        ({"node_name": ""}, InvalidArgument),
        ({"logical_block_size_bytes": 513}, InvalidArgument),
        ({"logical_block_size_bytes": -512}, InvalidArgument),
        ({"on_write_error": 77}, InvalidArgument),
        ({"labels": {"x": "y" * 2000}}, InvalidArgument),
        ({"name": "a b"}, InvalidArgument),
    ],
)
async def test_what_cannot_be_made_is_refused_and_leaves_nothing(attached: NodeHouse, fields, error):
    wanted = types.Attachment(**{"name": "vda", "node_name": "a", **fields})
    with pytest.raises(error):
        await attached.attachments.CreateAttachment(control.CreateAttachmentRequest(attachment=wanted))
    assert await attached.client.attachments.list() == () and attached.users("a") == []


async def test_an_update_changes_what_its_mask_says(attached: NodeHouse):
    client = attached.client.attachments
    made = await client.create("vda", "a", on_read_error="stop", labels={"a": "b"})
    changed = await client.update("vda", on_write_error="ignore", etag=made.etag)
    assert (changed.on_read_error, changed.on_write_error) == (types.ON_ERROR_STOP, types.ON_ERROR_IGNORE)
    assert changed.labels == {"a": "b"} and changed.etag != made.etag
    with pytest.raises(EtagMismatch):
        await client.update("vda", write_cache=False, etag=made.etag)
    await client.update("vda", write_cache=False, labels={})
    whole = control.UpdateAttachmentRequest(attachment=types.Attachment(name="vda"))
    reset = await attached.attachments.UpdateAttachment(whole)
    assert reset.write_cache and reset.on_read_error == types.ON_ERROR_REPORT and not reset.labels
    with pytest.raises(InvalidArgument):
        await attached.attachments.UpdateAttachment(
            control.UpdateAttachmentRequest(
                attachment=types.Attachment(name="vda", node_name="b"), update_mask=FieldMask(paths=["node_name"])
            )
        )


async def test_an_action_must_be_one(attached: NodeHouse):
    await attached.client.attachments.create("cd", removable=True)
    with pytest.raises(InvalidArgument):
        await attached.attachments.ChangeMedium(control.ChangeMediumRequest(name="cd"))


async def test_tray_and_medium_move_as_asked(attached: NodeHouse):
    client = attached.client.attachments
    made = await client.create("cd", removable=True)
    assert not made.tray_open and not made.node_name
    with pytest.raises(MediumActionNotAllowed) as refused:
        await client.insert("cd", "b")
    assert refused.value.state == "tray closed, no medium"
    assert (await client.open_tray("cd")).tray_open
    assert (await client.insert("cd", "b")).node_name == "b"
    assert not (await client.close_tray("cd")).tray_open
    assert (await client.lock("cd")).locked
    with pytest.raises(TrayLocked) as locked:
        await client.open_tray("cd")
    assert locked.value.owner == "its guest" and (await client.get("cd")).eject_requested
    assert not (await client.unlock("cd")).locked
    assert (await client.change("cd", "a", request_id="x")).node_name == "a"
    assert (await client.change("cd", "a", request_id="x")).node_name == "a"
    await client.lock("cd")
    opened = await client.open_tray("cd", force=True)
    assert opened.tray_open and not opened.locked and not opened.eject_requested
    assert (await client.remove("cd")).node_name == "" and attached.users("a") == []


# --- calls and sessions ----------------------------------------------------------------------------------


async def test_calls_go_through_an_attachment(attached: NodeHouse):
    await attached.client.attachments.create("vda", "b", writable=True)
    data = attached.client.data
    await data.write("", 512, b"x" * 1024, attachment="vda")
    await data.write_zeroes("", 1024, 512, attachment="vda")
    await data.discard("", 4096, 4096, attachment="vda")
    await data.flush("", attachment="vda")
    assert await data.read("", 0, 1536, attachment="vda") == bytes(512) + b"x" * 512 + bytes(512)
    assert (await attached.client.attachments.get("vda")).users == []


async def test_a_copy_on_read_that_fails_asks_the_policy_of_reads(attached: NodeHouse, gates: Gates):
    client = attached.client
    await client.images.create("o.qcow2", 4 * MIB, format="qcow2", backing_file="a.raw", backing_format="raw")
    await client.nodes.open(qcow2(file("o.qcow2"), node_name="o", backing="a"))
    await client.attachments.create("vda", "o", writable=True, on_read_error="stop")
    await client.data.write("a", 0, b"x" * 512)
    gate = gates.fail("a.raw", "read", EIO)
    copying = asyncio.create_task(client.data.prefetch("", 0, 65536, attachment="vda"))
    await eventually(lambda: attached.running.attachments.get("vda").user.waiting)
    gates.heal(gate)
    await client.attachments.reset("vda")
    assert await copying == 65536


async def test_a_call_names_one_of_both(attached: NodeHouse):
    await attached.client.attachments.create("vda", "b")
    data = attached.client.data
    with pytest.raises(InvalidArgument):
        await data.read("b", 0, 512, attachment="vda")
    with pytest.raises(InvalidArgument):
        async with data.session("b", attachment="vda"):
            pass
    with pytest.raises(ResourceNotFound):
        await data.read("", 0, 512, attachment="nobody")
    with pytest.raises(InvalidArgument):
        await attached.client.exports.add_nbd("b", "x", attachment="vda", addresses=at(attached))


async def test_whole_blocks_are_asked_for(attached: NodeHouse):
    await attached.client.attachments.create("vda", "b", writable=True, logical_block_size_bytes=4096)
    data = attached.client.data
    for request in (
        data.read("", 512, 4096, attachment="vda"),
        data.write("", 0, b"x" * 512, attachment="vda"),
        data.write_zeroes("", 0, 512, attachment="vda"),
        data.discard("", 0, 512, attachment="vda"),
    ):
        with pytest.raises(RangeMisaligned):
            await request
    async with data.session("", attachment="vda") as session:
        for request in (session.read(512, 4096), session.write(0, b"x" * 512), session.write_zeroes(0, 512)):
            with pytest.raises(RangeMisaligned):
                await request
        await session.write(4096, b"x" * 4096)
        assert await session.read(4096, 4096) == b"x" * 4096
        await session.flush()


async def test_a_reader_may_not_write(attached: NodeHouse):
    await attached.client.attachments.create("vda", "b")
    with pytest.raises(AttachmentReadOnly):
        await attached.client.data.write("", 0, b"x" * 512, attachment="vda")
    with pytest.raises(AttachmentReadOnly):
        await served(attached, "vda")
    async with attached.client.data.session("", attachment="vda") as session:
        with pytest.raises(AttachmentReadOnly):
            await session.write(0, b"x" * 512)


async def test_a_stopped_session_goes_on_after_a_reset(attached: NodeHouse, gates: Gates):
    client = attached.client
    await client.attachments.create("vda", "a", writable=True, on_write_error="stop")
    gate = gates.fail("a.raw", "write", EIO)
    async with client.data.session("", attachment="vda", client_name="vm") as session:
        writes = [asyncio.create_task(session.write(at * 512, bytes([at]) * 512)) for at in range(32)]
        await eventually(lambda: attached.running.attachments.get("vda").user.waiting == 32)
        shown = await client.attachments.get("vda")
        assert shown.stopped and shown.waiting_requests == 32 and shown.io_status == types.IO_STATUS_FAILED
        assert shown.users == ["session/vm"]
        with pytest.raises(ResourceBusy) as busy:
            await client.attachments.delete("vda")
        assert busy.value.owner == "session/vm"
        with pytest.raises(DeadlinePassed):
            await client.data.read("", 0, 512, attachment="vda", timeout=0.2)
        gates.heal(gate)
        assert not (await client.attachments.reset("vda")).stopped
        await asyncio.gather(*writes)
        assert await session.read(0, 16384) == b"".join(bytes([at]) * 512 for at in range(32))
    assert not attached.running.attachments.get("vda").user.waiting


async def test_a_session_that_ends_takes_its_waiting_requests_along(attached: NodeHouse, gates: Gates):
    await attached.client.attachments.create("vda", "a", writable=True, on_write_error="stop")
    gates.fail("a.raw", "write", EIO)
    session = attached.client.data.session("", attachment="vda")
    await session.__aenter__()
    task = asyncio.create_task(session.write(0, b"x" * 512))
    user = attached.running.attachments.get("vda").user
    await eventually(lambda: user.waiting)
    await session.__aexit__(RuntimeError, None, None)
    await asyncio.wait((task,))
    await eventually(lambda: not user.waiting and not attached.running.attachments.get("vda").users)
    await attached.client.attachments.delete("vda")


# --- watching --------------------------------------------------------------------------------------------


async def told(call, count: int) -> list[tuple[str, str, str]]:
    """The next news of attachments: what happened, whose, and its node or the event's detail."""
    found: list[tuple[str, str, str]] = []
    while len(found) < count:
        change = await call.read()
        if change.HasField("event") and "attachment" in change.event.details:
            found.append((change.event.kind, change.event.details["attachment"], change.event.node_name))
        elif change.HasField("attachment"):
            kind = types.ChangeType.Name(change.change).removeprefix("CHANGE_TYPE_").lower()
            found.append((kind, change.attachment.name, change.attachment.node_name))
    return found


async def test_a_watch_sees_attachments_and_what_happens_to_them(attached: NodeHouse, gates: Gates):
    client = attached.client
    await client.attachments.create("cd", "a", removable=True, writable=True, on_write_error="stop")
    call = attached.watch.WatchNodes(node.WatchNodesRequest())
    assert await told(call, 1) == [("initial", "cd", "a")]
    gate = gates.fail("a.raw", "write", EIO)
    write = asyncio.create_task(client.data.write("", 0, b"x" * 512, attachment="cd"))
    assert await told(call, 2) == [("modified", "cd", "a"), ("io-error", "cd", "a")]
    gates.heal(gate)
    await client.attachments.reset("cd")
    await write
    assert await told(call, 1) == [("modified", "cd", "a")]
    await client.attachments.change("cd", "b")
    assert await told(call, 5) == [
        ("modified", "cd", "b"),
        *((kind, "cd", "b") for kind in ("tray-moved", "medium-changed", "medium-changed", "tray-moved")),
    ]
    await client.attachments.lock("cd")
    with pytest.raises(TrayLocked):
        await client.attachments.open_tray("cd")
    assert await told(call, 3) == [("modified", "cd", "b"), ("modified", "cd", "b"), ("eject-request", "cd", "b")]
    await client.attachments.delete("cd")
    assert await told(call, 1) == [("removed", "cd", "b")]
    call.cancel()


async def test_a_watch_of_some_nodes_sees_their_attachments_come_and_go(attached: NodeHouse):
    client = attached.client
    call = attached.watch.WatchNodes(node.WatchNodesRequest(node_names=["b"]))
    await client.attachments.create("vda", "a")
    await client.attachments.create("cd", "a", removable=True)
    await client.attachments.change("cd", "b")
    assert (await told(call, 1))[0] == ("modified", "cd", "b")
    await client.attachments.change("cd", "a")
    news = await told(call, 3)
    while news[-1] != ("modified", "cd", "a"):
        news += await told(call, 1)
    await client.attachments.update("cd", write_cache=False)
    await client.attachments.create("vdb", "b")
    assert (await told(call, 1))[0] == ("added", "vdb", "b"), "the drive is elsewhere, and that was told once"
    call.cancel()


async def test_a_watch_that_resumes_hears_of_what_left_meanwhile(attached: NodeHouse):
    client = attached.client
    await client.attachments.create("cd", "b", removable=True)
    revision = attached.graph.hub.revision
    await client.attachments.change("cd", "a")
    call = attached.watch.WatchNodes(node.WatchNodesRequest(node_names=["b"], start_revision=revision))
    assert ("modified", "cd", "a") in await told(call, 1)
    call.cancel()


async def test_a_mirror_takes_the_attachment_along_and_watchers_hear_of_it(attached: NodeHouse):
    client = attached.client
    await client.attachments.create("vda", "b", writable=True)
    await client.nodes.open(memory(2 * MIB, node_name="copy"))
    call = attached.watch.WatchNodes(node.WatchNodesRequest())
    assert await told(call, 1) == [("initial", "vda", "b")]
    copies = attached.running.copies
    session = await copies.create(SessionSpec("m", "job/m", CopyKind.MIRROR, "b", "copy"), 1)
    assert (await client.attachments.get("vda")).node_name != "b", "a job's filter is between"
    assert attached.running.attachments.get("vda").definition.node_name == "b"
    await client.data.write("", 0, b"x" * 512, attachment="vda")
    await work_off(session)
    await copies.finish("m", 1, FinishAction.PIVOT)
    assert (await client.attachments.get("vda")).node_name == "copy"
    assert await client.data.read("copy", 0, 512) == b"x" * 512
    while (await told(call, 1))[0] != ("modified", "vda", "copy"):
        pass
    assert [each.name for each in (await client.nodes.get("copy")).attachments] == ["vda"]
    call.cancel()
