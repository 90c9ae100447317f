"""Attachments as resources: made, held, told of; their tray and medium."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.errors import (
    AttachmentReadOnly,
    EtagMismatch,
    InvalidArgument,
    LimitReached,
    MediumActionNotAllowed,
    NodeInUse,
    NodeNotFound,
    NodeReadOnly,
    NoMedium,
    RangeOutside,
    ResourceBusy,
    ResourceExists,
    TrayLocked,
)
from blockyard.node.graph import attachments as module
from blockyard.node.graph.attachment import AttachmentDefinition
from blockyard.node.graph.tray import Action
from tests.support.attachment_ground import EIO, MIB, OPERATIONS, Ground, attachment_ground
from tests.support.eventually import eventually


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with attachment_ground(tmp_path) as made:
        yield made


# --- resources -------------------------------------------------------------------------------------------


async def test_it_holds_its_node_until_it_is_deleted(ground: Ground):
    await ground.attach()
    with pytest.raises(NodeInUse) as busy:
        await ground.graph.close("disk")
    assert busy.value.owners == "attachment/vda"
    with ground.attachments.used("vda", "session/7"), pytest.raises(ResourceBusy):
        await ground.attachments.delete("vda")
    await ground.attachments.delete("vda")
    await ground.graph.close("disk")
    await ground.disk()
    assert ground.told == [("added", "attachment/vda"), ("removed", "attachment/vda")]


async def test_names_are_given_once_and_a_writer_needs_a_writable_node(ground: Ground):
    await ground.attach()
    with pytest.raises(ResourceExists):
        await ground.attach()
    await ground.disk("ro", read_only=True)
    with pytest.raises(NodeReadOnly):
        await ground.attach("vdb", "ro")
    with pytest.raises(NodeNotFound):
        await ground.attach("vdb", "nobody")
    assert not ground.graph.get("ro").parents


async def test_there_is_a_bound(ground: Ground, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_ATTACHMENTS", 1)
    await ground.attach()
    with pytest.raises(LimitReached):
        await ground.attach("vdb")


async def test_an_old_etag_is_refused(ground: Ground):
    await ground.attach()
    old = ground.attachments.get("vda").etag
    await ground.attachments.update("vda", {"write_cache": False}, old)
    with pytest.raises(EtagMismatch):
        await ground.attachments.update("vda", {"write_cache": True}, old)
    with pytest.raises(EtagMismatch):
        await ground.attachments.delete("vda", old)


async def test_a_definition_survives_json(ground: Ground):
    import json

    await ground.drive("disk", labels={"a": "b"}, on_read_error="stop", tray_open=True)
    await ground.act(Action.LOCK)
    definition = ground.attachments.get("cd").definition
    again = AttachmentDefinition(**json.loads(json.dumps(definition.as_dict())))
    assert again == definition and again.tray_open and again.locked and again.node_name == "disk"
    await ground.attachments.delete("cd")
    assert (await ground.attachments.create(again)).definition == definition


async def test_users_of_a_replaced_node_take_their_attachment_along(ground: Ground):
    user = await ground.attach()
    await ground.disk("copy")
    from blockyard.node.graph.surgery import replace_node

    await replace_node(ground.graph, ground.graph.get("disk"), ground.graph.get("copy"))
    assert user.node_name == "copy" and ground.attachments.get("vda").definition.node_name == "copy"
    assert ground.told[-1] == ("modified", "attachment/vda")


# --- tray and medium -------------------------------------------------------------------------------------


def kinds(ground: Ground) -> list[str]:
    return [event.kind for event in ground.events]


async def test_without_a_medium_requests_fail_and_the_size_is_nothing(ground: Ground):
    user = await ground.drive()
    assert user.size == 0 and not user.present and user.node_name == ""
    for request in OPERATIONS.values():
        with pytest.raises(NoMedium):
            await request[1](user)
    with pytest.raises(NoMedium):
        await user.block_status(0, 512)
    assert not user.read_now(0, memoryview(bytearray(512)))


async def test_a_medium_goes_in_and_out_through_the_open_tray(ground: Ground):
    user = await ground.drive()
    with pytest.raises(MediumActionNotAllowed) as refused:
        await ground.act(Action.INSERT, "disk")
    assert refused.value.why == "its tray is closed"
    await ground.act(Action.OPEN_TRAY)
    await ground.act(Action.INSERT, "disk")
    assert user.node_name == "disk" and not user.present, "an open tray shows no medium"
    await ground.act(Action.CLOSE_TRAY)
    await user.write(0, b"x" * 512)
    await ground.act(Action.OPEN_TRAY)
    with pytest.raises(NoMedium):
        await user.write(0, b"x" * 512)
    await ground.act(Action.REMOVE)
    assert not ground.graph.get("disk").parents
    assert kinds(ground) == ["tray-moved", "medium-changed", "tray-moved", "tray-moved", "medium-changed"]
    inserted, removed = (event.details for event in ground.events if event.kind == "medium-changed")
    assert (inserted["inserted"], removed["removed"]) == ("disk", "disk")
    assert [event.details["tray_open"] for event in ground.events if event.kind == "tray-moved"] == [
        *("true", "false", "true"),
    ]


async def test_a_locked_tray_asks_the_guest_and_opens_by_force(ground: Ground):
    await ground.drive("disk")
    await ground.act(Action.LOCK)
    with ground.attachments.used("cd", "export/vm"):
        with pytest.raises(TrayLocked) as locked:
            await ground.act(Action.OPEN_TRAY)
        assert locked.value.owner == "export/vm"
    assert kinds(ground) == ["eject-request"]
    assert ground.attachments.get("cd").tray.eject_requested
    with pytest.raises(TrayLocked):
        await ground.act(Action.CHANGE, "disk")
    opened = await ground.act(Action.OPEN_TRAY, force=True)
    assert opened.tray.is_open and not opened.tray.locked and not opened.tray.eject_requested


async def test_a_guest_that_unlocks_lets_the_tray_open(ground: Ground):
    await ground.drive("disk")
    await ground.act(Action.LOCK)
    with pytest.raises(TrayLocked):
        await ground.act(Action.OPEN_TRAY)
    await ground.act(Action.UNLOCK)
    assert (await ground.act(Action.OPEN_TRAY)).tray.is_open


async def test_running_requests_end_on_the_old_medium_and_those_that_come_meanwhile_see_the_new_one(
    ground: Ground,
):
    user = await ground.drive("disk")
    await ground.disk("next", 2 * MIB)
    gate = ground.gates.hold("disk.raw", "write")
    running = asyncio.create_task(user.write(0, b"old" + bytes(509)))
    await gate.reached.wait()
    change = asyncio.create_task(ground.act(Action.CHANGE, "next"))
    await eventually(lambda: ground.graph.get("disk").quiesced)
    coming = asyncio.create_task(user.write(512, b"new" + bytes(509)))
    far = asyncio.create_task(user.read(MIB, memoryview(bytearray(512))))
    await asyncio.sleep(0)
    assert not change.done() and not running.done() and not coming.done()
    gate.open()
    await asyncio.gather(running, change, coming, far)
    ground_of = ground.ground.root
    assert (ground_of / "disk.raw").read_bytes()[:515] == b"old" + bytes(512)
    assert (ground_of / "next.raw").read_bytes()[512:515] == b"new"
    assert user.size == 2 * MIB and kinds(ground) == [
        *("tray-moved", "medium-changed", "medium-changed", "tray-moved"),
    ]


async def test_a_request_that_waited_is_held_to_the_end_of_the_smaller_medium(ground: Ground):
    user = await ground.drive("disk")
    await ground.disk("small", 4096)
    gate = ground.gates.hold("disk.raw", "write")
    running = asyncio.create_task(user.write(0, b"x" * 512))
    await gate.reached.wait()
    change = asyncio.create_task(ground.act(Action.CHANGE, "small"))
    await eventually(lambda: ground.graph.get("disk").quiesced)
    coming = asyncio.create_task(user.write(8192, b"y" * 512))
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(running, change)
    with pytest.raises(RangeOutside):
        await coming
    assert ground.graph.get("small").driver.size == 4096


async def test_a_change_that_is_given_up_changes_nothing(ground: Ground):
    user = await ground.drive("disk")
    await ground.disk("next")
    gate = ground.gates.hold("disk.raw", "write")
    running = asyncio.create_task(user.write(0, b"x" * 512))
    await gate.reached.wait()
    change = asyncio.create_task(ground.act(Action.CHANGE, "next"))
    await eventually(lambda: ground.graph.get("disk").quiesced)
    change.cancel()
    await asyncio.wait((change,))
    assert user.node_name == "disk" and not ground.graph.get("disk").quiesced and not ground.events
    gate.open()
    await running


async def test_a_change_to_nothing_known_changes_nothing(ground: Ground):
    user = await ground.drive("disk")
    with pytest.raises(NodeNotFound):
        await ground.act(Action.CHANGE, "nobody")
    with pytest.raises(InvalidArgument):
        await ground.act(Action.CHANGE)
    with pytest.raises(InvalidArgument):
        await ground.act(Action.REMOVE, "disk")
    assert user.node_name == "disk" and user.present and not ground.events


async def test_a_fixed_medium_does_not_move(ground: Ground):
    await ground.attach()
    for action in Action:
        node_name = "disk" if action in (Action.INSERT, Action.CHANGE) else ""
        with pytest.raises(MediumActionNotAllowed) as refused:
            await ground.act(action, node_name, force=True, name="vda")
        assert refused.value.why == "it is not removable"


async def test_without_a_tray_a_medium_goes_in_and_out_as_it_is(ground: Ground):
    user = await ground.drive("disk", trayless=True)
    assert (await ground.act(Action.OPEN_TRAY)).tray.has_medium
    await user.write(0, b"x" * 512)
    await ground.act(Action.REMOVE)
    assert not user.present
    await ground.act(Action.INSERT, "disk")
    await user.read(0, memoryview(bytearray(512)))
    with pytest.raises(MediumActionNotAllowed):
        await ground.act(Action.LOCK)
    assert kinds(ground) == ["medium-changed", "medium-changed"]


async def test_a_read_only_medium_is_taken_by_a_drive_that_writes_and_cannot_be_written(ground: Ground):
    await ground.disk("ro", read_only=True)
    user = await ground.drive("disk")
    await ground.act(Action.CHANGE, "ro")
    await user.read(0, memoryview(bytearray(512)))
    with pytest.raises(AttachmentReadOnly):
        await user.write(0, b"x" * 512)
    await ground.act(Action.CHANGE, "disk")
    await user.write(0, b"x" * 512)


async def test_what_waits_finds_the_drive_empty_when_the_medium_was_taken(ground: Ground):
    user = await ground.drive("disk", on_write_error="stop")
    gate = ground.fail("write", EIO)
    task = asyncio.create_task(user.write(0, b"x" * 512))
    await eventually(lambda: user.waiting == 1)
    await ground.act(Action.OPEN_TRAY)
    await ground.act(Action.REMOVE)
    ground.gates.heal(gate)
    assert not task.done()
    ground.attachments.reset("cd")
    with pytest.raises(NoMedium):
        await task


async def test_a_frozen_edge_keeps_its_medium(ground: Ground):
    user = await ground.drive("disk", tray_open=True)
    user.frozen_reason = "a job is at work"
    with pytest.raises(NodeInUse):
        await ground.act(Action.REMOVE)
    user.frozen_reason = ""
    await ground.act(Action.REMOVE)
