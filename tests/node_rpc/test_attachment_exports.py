"""Exports of attachments: what NBD clients see of block sizes, errors, and a medium that changes."""

import asyncio
import json

import pytest

from blockyard.base.errors import (
    InvalidArgument,
    NoMedium,
    ResourceBusy,
    ResourceNotFound,
)
from blockyard.client.definitions import file, qcow2
from blockyard.node.formats import nbd
from blockyard.v1 import export_pb2 as export
from blockyard.v1 import node_pb2 as node
from blockyard.v1 import types_pb2 as types
from tests.support import peers
from tests.support.attachment_exports import EIO, FULL, MIB, at, guest, qemu_io, served
from tests.support.eventually import eventually
from tests.support.gated import Gates
from tests.support.node_calls import NodeHouse


@pytest.mark.peer("nbdinfo")
async def test_clients_are_told_the_block_sizes(attached: NodeHouse):
    await attached.client.attachments.create(
        "vda", "b", writable=True, logical_block_size_bytes=4096, physical_block_size_bytes=65536
    )
    uri = await served(attached, "vda")
    told = json.loads((await asyncio.to_thread(peers.run, "nbdinfo", "--json", uri)).stdout)["exports"][0]
    assert (told["block_size_minimum"], told["block_size_preferred"], told["export-size"]) == (4096, 65536, 2 * MIB)
    assert (await attached.client.attachments.get("vda")).users == ["export/vda"]
    shown = await attached.client.exports.get("vda")
    assert (shown.attachment, shown.node_name) == ("vda", "b")


@pytest.mark.parametrize("asking", [True, False])
async def test_a_client_that_was_told_is_held_to_the_blocks_and_one_that_did_not_ask_is_not(
    attached: NodeHouse, asking: bool
):
    await attached.client.attachments.create("vda", "b", writable=True, logical_block_size_bytes=4096)
    peer = await guest(attached, "vda", asking=asking)
    refused = nbd.EINVAL if asking else 0
    assert (await peer.write(512, b"x" * 512)).error == refused
    assert (await peer.read(512, 4096)).error == refused
    assert (await peer.ask(nbd.CMD_WRITE_ZEROES, 0, 512)).error == refused
    assert (await peer.ask(nbd.CMD_TRIM, 4096, 512)).error == refused
    assert (await peer.write(4096, b"x" * 4096)).error == (await peer.read(0, 8192)).error == 0
    assert (await peer.ask(nbd.CMD_FLUSH)).error == 0
    await peer.close()


@pytest.mark.peer("qemu-io")
async def test_a_guests_write_to_a_full_disk_simply_continues_when_there_is_room(attached: NodeHouse, gates: Gates):
    await attached.client.attachments.create("vda", "a", writable=True)
    uri = await served(attached, "vda")
    gate = gates.fail("a.raw", "write", FULL)
    guest = asyncio.create_task(
        qemu_io(uri, "aio_write -P 7 0 64k", "aio_write -P 8 1M 64k", "aio_flush", "read -P 7 0 64k", "flush")
    )
    user = attached.running.attachments.get("vda").user
    await eventually(lambda: user.waiting == 2)
    shown = await attached.client.attachments.get("vda")
    assert shown.io_status == types.IO_STATUS_NOSPACE and not guest.done()
    # Nobody else is held up by it: the node is not drained, and a drain does not wait for it.
    assert await attached.client.data.read("a", 0, 512) == bytes(512)
    gates.heal(gate)
    await attached.client.attachments.reset("vda")
    assert "read 65536/65536 bytes" in await guest
    assert await attached.client.data.read("a", MIB, 65536) == b"\x08" * 65536


@pytest.mark.peer("qemu-io")
async def test_a_real_file_size_limit_stops_and_goes_on(house: NodeHouse):
    import resource

    await house.client.images.create("q.qcow2", 64 * MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("q.qcow2"), node_name="q"))
    await house.client.attachments.create("vda", "q", writable=True)
    uri = await served(house, "vda")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    user = house.running.attachments.get("vda").user
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, hard))
    try:
        process = await asyncio.create_subprocess_exec(
            "qemu-io", "-f", "raw", "-c", "write -P 5 0 8M", "-c", "read -P 5 0 8M", uri,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await eventually(lambda: user.stopped)
        assert user.io_status == "nospace"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await house.client.attachments.reset("vda")
    output, _ = await process.communicate()
    assert process.returncode == 0 and b"wrote 8388608/8388608" in output and b"read 8388608/8388608" in output


@pytest.mark.peer("qemu-io")
async def test_a_guest_sees_the_error_that_is_reported_and_none_that_is_ignored(attached: NodeHouse, gates: Gates):
    await attached.client.attachments.create("vda", "a", writable=True, on_write_error="report")
    uri = await served(attached, "vda")
    gates.fail("a.raw", "write", EIO)
    assert "Input/output error" in await qemu_io(uri, "write 0 4k", check=False)
    await attached.client.attachments.update("vda", on_write_error="ignore")
    assert "wrote 4096/4096" in await qemu_io(uri, "write 0 4k")


async def test_a_forced_end_of_a_stopped_export_leaves_nothing(attached: NodeHouse, gates: Gates):
    await attached.client.attachments.create("vda", "a", writable=True, on_write_error="stop")
    gates.fail("a.raw", "write", EIO)
    peer = await guest(attached, "vda")
    for cookie in range(3):
        peer.request(nbd.CMD_WRITE, cookie, cookie * 512, 512, data=b"x" * 512)
    user = attached.running.attachments.get("vda").user
    await eventually(lambda: user.waiting == 3)
    with pytest.raises(ResourceBusy):
        await attached.client.attachments.delete("vda")
    await attached.client.exports.remove("vda", force=True)
    assert not user.waiting and user.stopped
    await attached.client.attachments.delete("vda")
    await attached.client.nodes.close("a")
    await peer.close()


async def test_a_client_that_vanishes_takes_its_waiting_requests_along(attached: NodeHouse, gates: Gates):
    await attached.client.attachments.create("vda", "a", writable=True, on_write_error="stop")
    gate = gates.hold("a.raw", "write")
    peer = await guest(attached, "vda")
    peer.request(nbd.CMD_WRITE, 1, 0, 512, data=b"x" * 512)
    await gate.reached.wait()
    await peer.close()
    gate.error = EIO
    gate.open()
    info = attached.running.exports.info
    await eventually(lambda: not info(attached.running.exports.get("vda")).clients)
    assert not attached.running.attachments.get("vda").user.waiting


async def test_what_a_stopped_guest_sends_waits_in_its_socket_and_takes_no_memory_from_others(
    attached: NodeHouse, gates: Gates
):
    await attached.client.attachments.create("vda", "a", writable=True, on_write_error="stop")
    gate = gates.fail("a.raw", "write", EIO)
    peer = await guest(attached, "vda")
    for cookie in range(16):
        peer.request(nbd.CMD_WRITE, cookie, 0, MIB, data=b"x" * MIB)
    user = attached.running.attachments.get("vda").user
    await eventually(lambda: user.stopped and user.waiting >= 4)
    for _ in range(100):
        await asyncio.sleep(0)
    assert user.waiting <= 5
    gates.heal(gate)
    while user.stopped or user.waiting:
        await attached.client.attachments.reset("vda")
    assert sorted([(await peer.reply()).cookie for _ in range(16)]) == list(range(16))
    await peer.close()


async def test_an_export_survives_a_change_of_medium(attached: NodeHouse):
    client = attached.client
    await client.attachments.create("cd", "a", removable=True, writable=True)
    await client.data.write("a", 0, b"a" * 512)
    await client.data.write("b", 0, b"b" * 512)
    peer = await guest(attached, "cd")
    assert peer.size == 4 * MIB and (await peer.read(0, 512)).data == b"a" * 512
    await client.attachments.change("cd", "b")
    assert (await client.exports.get("cd")).node_name == "b"
    assert (await peer.read(0, 512)).data == b"b" * 512
    assert (await peer.read(3 * MIB, 512)).error == nbd.EINVAL
    assert (await peer.write(3 * MIB, b"x" * 512)).error == nbd.ENOSPC
    assert (await peer.write(512, b"c" * 512)).error == 0
    await client.attachments.open_tray("cd")
    for request in (peer.read(0, 512), peer.write(0, b"x" * 512), peer.ask(nbd.CMD_FLUSH)):
        assert (await request).error == nbd.EIO
    await client.attachments.remove("cd")
    assert (await peer.read(0, 512)).error == nbd.EIO
    await client.nodes.close("b")
    await client.attachments.insert("cd", "a")
    await client.attachments.close_tray("cd")
    assert (await peer.read(0, 512)).data == b"a" * 512
    await peer.close()


@pytest.mark.peer("nbdinfo")
async def test_an_empty_drive_is_an_export_of_no_size(attached: NodeHouse):
    await attached.client.attachments.create("cd", removable=True)
    uri = await served(attached, "cd", writable=False)
    told = json.loads((await asyncio.to_thread(peers.run, "nbdinfo", "--json", uri)).stdout)["exports"][0]
    assert told["export-size"] == 0 and told["is_read_only"] is True
    with pytest.raises(NoMedium):
        await attached.client.data.read("", 0, 512, attachment="cd")


async def test_a_guest_of_an_attachment_that_is_well_is_served_inline(attached: NodeHouse):
    await attached.client.attachments.create("vda", "b", writable=True)
    peer = await guest(attached, "vda", asking=True)
    for at_block in range(100):
        assert (await peer.write(at_block * 4096, bytes([at_block]) * 4096)).error == 0
        assert (await peer.read(at_block * 4096, 4096)).data == bytes([at_block]) * 4096
    # Who awaits takes a ticket; here is the first.
    assert attached.running.attachments.get("vda").user._held.ticket() == 1
    await peer.close()


async def test_bitmaps_are_offered_of_what_stays(attached: NodeHouse):
    await attached.client.bitmaps.add("b", "bits")
    await attached.client.attachments.create("vda", "b", writable=True)
    await attached.client.attachments.create("cd", "b", removable=True)
    with pytest.raises(InvalidArgument):
        await served(attached, "cd", bitmaps=["bits"], writable=False)
    await served(attached, "vda", bitmaps=["bits"])
    assert (await attached.client.bitmaps.get("b", "bits")).owner == "export/vda"
    await attached.client.exports.remove("vda")
    assert not (await attached.client.bitmaps.get("b", "bits")).owner
    assert (await attached.client.attachments.get("vda")).users == []
    assert (await attached.client.attachments.get("cd")).users == []


async def test_without_write_cache_an_export_is_writethrough(attached: NodeHouse):
    await attached.client.attachments.create("vda", "b", writable=True, write_cache=False)
    await served(attached, "vda")
    assert (await attached.client.exports.get("vda")).writethrough


async def test_an_export_of_an_attachment_is_part_of_a_transaction(attached: NodeHouse):
    await attached.client.attachments.create("vda", "b", writable=True)
    wanted = export.Export(
        export_id="x", attachment="vda", writable=True, nbd=export.NbdExport(addresses=at(attached))
    )
    create = node.TransactionAction(create_export=export.CreateExportRequest(export=wanted))
    await attached.client.nodes.transaction([create])
    assert (await attached.client.exports.get("x")).attachment == "vda"
    wanted.export_id, wanted.attachment = "y", "nobody"
    again = node.TransactionAction(create_export=export.CreateExportRequest(export=wanted))
    with pytest.raises(ResourceNotFound):
        await attached.client.nodes.transaction([again])
    assert (await attached.client.attachments.get("vda")).users == ["export/x"]


async def test_an_export_that_fails_lets_the_attachment_go(attached: NodeHouse):
    await attached.client.attachments.create("vda", "b", writable=True)
    with pytest.raises(InvalidArgument):
        await served(attached, "vda", max_connections=5000)
    assert (await attached.client.attachments.get("vda")).users == []


async def test_an_attachment_goes_along_with_an_overlay(attached: NodeHouse):
    await attached.client.attachments.create("vda", "b", writable=True)
    await attached.client.images.create("o.qcow2", 2 * MIB, format="qcow2")
    await attached.client.nodes.open(qcow2(file("o.qcow2"), node_name="o"))
    await attached.client.nodes.insert_overlay("b", "o")
    assert (await attached.client.attachments.get("vda")).node_name == "o"
    await attached.client.data.write("", 0, b"x" * 512, attachment="vda")
    assert await attached.client.data.read("b", 0, 512) == bytes(512)
