"""Nodes between modes: writable when a writer comes, and handed over to another process and back."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.base.errors import (
    BackingChanged,
    FileBusy,
    FileReadOnly,
    InvalidArgument,
    NodeInactive,
    NodeInUse,
    NodeReadOnly,
)
from blockyard.base.units import MIB
from blockyard.node.graph import modes, recording, surgery
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.node import Node
from blockyard.node.storage.rooted import RootedStorage
from tests.support import peers
from tests.support.qemu_io import qemu_io
from tests.support.yard import Yard, yard


@pytest.fixture
async def ground(tmp_path: Path):
    async with yard(tmp_path) as made:
        yield made


async def waiting(ground: Yard, filename: str = "disk.qcow2", name: str = "disk") -> Node:
    """A qcow2 node that waits for a writer."""
    await ground.create_qcow2(filename, MIB)
    return await ground.open("qcow2", name, filename, auto_read_only=True)


async def write(ground: Yard, name: str, data: bytes) -> None:
    await modes.ready_to_write(ground.graph, ground.graph.get(name))
    user = ground.use(name)
    await user.write(0, data)
    ground.graph.release(user)


async def first(ground: Yard, name: str, length: int) -> bytes:
    user = ground.graph.use(name, "call", "look", writable=False)
    data = bytearray(length)
    await user.read(0, memoryview(data))
    ground.graph.release(user)
    return bytes(data)


def read_only_nodes(ground: Yard) -> set[str]:
    return {node.driver.name for node in ground.graph.nodes.values() if node.read_only}


# --- waiting for a writer --------------------------------------------------------------------------------


async def test_a_node_that_waits_for_a_writer_keeps_readers_in_and_writers_out(ground: Yard):
    node = await waiting(ground)
    assert node.read_only and node.context.read_only
    assert read_only_nodes(ground) == {"qcow2", "file"}
    with pytest.raises(NodeReadOnly):
        ground.use("disk")
    await ground.open("qcow2", "second", "disk.qcow2", read_only=True)
    await first(ground, "second", 512)


async def test_it_becomes_writable_when_one_comes_and_read_only_when_the_last_left(ground: Yard):
    node = await waiting(ground)
    await write(ground, "disk", b"new")
    assert not read_only_nodes(ground)
    with pytest.raises(FileBusy):
        await ground.open("qcow2", "second", "disk.qcow2", read_only=True)
    user = ground.use("disk")
    await modes.settle(ground.graph, node)
    assert not node.read_only
    ground.graph.release(user)
    await modes.settle(ground.graph, node)
    assert read_only_nodes(ground) == {"qcow2", "file"}
    await ground.open("qcow2", "second", "disk.qcow2", read_only=True)
    assert await first(ground, "second", 3) == b"new"


async def test_the_definition_stays_as_the_client_gave_it(ground: Yard):
    node = await waiting(ground)
    before = node.definition
    await write(ground, "disk", b"x")
    assert node.definition == before and not before.read_only and before.auto_read_only


async def test_a_writer_is_refused_with_the_reason_if_the_file_cannot_be_written(
    ground: Yard, monkeypatch: pytest.MonkeyPatch
):
    node = await waiting(ground)
    real = RootedStorage.open

    def refuse(self, path: str, flags: int, mode: int = 0o600) -> int:
        if flags & os.O_RDWR:
            raise FileReadOnly(path)
        return real(self, path, flags, mode)

    monkeypatch.setattr(RootedStorage, "open", refuse)
    with pytest.raises(FileReadOnly, match=r"disk\.qcow2"):
        await modes.ready_to_write(ground.graph, node)
    assert read_only_nodes(ground) == {"qcow2", "file"}
    assert await first(ground, "disk", 4) == bytes(4)


async def test_a_writer_is_refused_while_someone_else_reads_and_all_stays_as_it_was(ground: Yard):
    node = await waiting(ground)
    other = await ground.open("qcow2", "second", "disk.qcow2", read_only=True)
    with pytest.raises(FileBusy):
        await modes.ready_to_write(ground.graph, node)
    assert node.read_only and node.context.read_only
    assert await first(ground, "disk", 4) == bytes(4)
    await ground.graph.close(other.name)
    await write(ground, "disk", b"x")


async def test_an_image_that_cannot_be_opened_for_writing_gives_the_file_back(ground: Yard):
    await ground.create_qcow2("disk.qcow2", MIB)
    with (ground.folder / "disk.qcow2").open("r+b") as file:  # incompatible feature bit 1: corrupt
        file.seek(79)
        file.write(b"\2")
    node = await ground.open("qcow2", "disk", "disk.qcow2", auto_read_only=True)
    with pytest.raises(Exception, match="corrupt"):
        await modes.ready_to_write(ground.graph, node)
    assert read_only_nodes(ground) == {"qcow2", "file"}
    await ground.open("qcow2", "second", "disk.qcow2", read_only=True)


async def test_a_node_that_is_read_only_by_its_definition_never_becomes_writable(ground: Yard):
    await ground.create_qcow2("disk.qcow2", MIB)
    node = await ground.open("qcow2", "disk", "disk.qcow2", auto_read_only=True, read_only=True)
    with pytest.raises(NodeReadOnly):
        await modes.ready_to_write(ground.graph, node)


async def test_a_writer_of_a_format_makes_a_file_below_writable_that_waits(ground: Yard):
    ground.raw_file("disk.raw", MIB)
    file = await ground.graph.open(replace(ground.file("disk.raw", auto_read_only=True), node_name="file"))
    assert file.read_only
    await ground.graph.open(NodeDefinition("raw", "disk", children={"file": "file"}))
    await write(ground, "disk", b"x")
    assert not file.read_only


async def test_an_overlay_that_waits_is_writable_when_it_takes_over_a_writer(ground: Yard):
    await ground.create_qcow2("base.qcow2", MIB)
    base = await ground.open("qcow2", "base", "base.qcow2")
    user = ground.use("base")
    overlay = await waiting(ground)
    await surgery.insert_overlay(ground.graph, base, overlay)
    await user.write(0, b"above")
    assert await first(ground, "base", 5) == bytes(5)
    ground.graph.release(user)


async def test_a_torn_view_is_for_readers_also_if_they_wait(ground: Yard):
    await ground.create_qcow2("disk.qcow2", MIB)
    with pytest.raises(InvalidArgument, match="force_share"):
        await ground.open("qcow2", "disk", "disk.qcow2", auto_read_only=True, force_share=True)


async def test_two_writers_that_come_at_once_both_find_it_writable(ground: Yard):
    await waiting(ground)

    async def come(number: int) -> None:
        await modes.ready_to_write(ground.graph, ground.graph.get("disk"))
        user = ground.use("disk", user=f"guest{number}")
        await user.write(number * 512, bytes([number + 1]) * 512)
        ground.graph.release(user)
        await modes.settle(ground.graph, ground.graph.get("disk"))

    await asyncio.gather(*(come(number) for number in range(8)))
    assert await first(ground, "disk", 8 * 512) == b"".join(bytes([number + 1]) * 512 for number in range(8))
    assert read_only_nodes(ground) == {"qcow2", "file"}


async def test_memory_keeps_its_bytes_from_mode_to_mode(ground: Yard):
    node = await ground.graph.open(NodeDefinition("memory", "m", {"size": 4096}, auto_read_only=True))
    await write(ground, "m", b"kept")
    await modes.settle(ground.graph, node)
    assert node.read_only and await first(ground, "m", 4) == b"kept"


# --- hand-over -------------------------------------------------------------------------------------------


async def chain(ground: Yard) -> tuple[Node, Node]:
    await ground.create_qcow2("base.qcow2", MIB)
    await ground.create_qcow2("disk.qcow2", MIB, backing_file="base.qcow2", backing_fmt="qcow2")
    top = await ground.open("qcow2", "disk", "disk.qcow2")
    assert top.backing is not None
    return top, top.backing.node


@pytest.mark.peer("qemu-io")
async def test_qemu_writes_an_image_that_was_handed_over_and_we_see_it_afterwards(ground: Yard):
    node, base = await chain(ground)
    await write(ground, "disk", b"ours" * 128)
    await modes.inactivate(ground.graph, node)
    assert not node.active and not base.active
    with qemu_io(ground.folder / "disk.qcow2", "qcow2") as peer:
        assert "wrote" in peer.do("write -P 7 512 64k")
        with pytest.raises(FileBusy, match=r"disk\.qcow2"):
            await modes.activate(ground.graph, node)
        assert not node.active and not base.active
    await modes.activate(ground.graph, node)
    assert node.active and base.active and not node.read_only and base.read_only
    assert await first(ground, "disk", 1024) == b"ours" * 128 + b"\7" * 512
    await write(ground, "disk", b"again")
    await ground.graph.close("disk")
    peers.run("qemu-img", "check", "-q", ground.folder / "disk.qcow2")


async def test_a_node_that_was_handed_over_only_reads(ground: Yard):
    node, _ = await chain(ground)
    await write(ground, "disk", b"old")
    await modes.inactivate(ground.graph, node)
    assert await first(ground, "disk", 3) == b"old"
    for kind, writable in (("call", True), ("export", False), ("job", False)):
        with pytest.raises(NodeInactive):
            ground.graph.use("disk", kind, "someone", writable=writable)
    with pytest.raises(NodeInactive):
        await modes.ready_to_write(ground.graph, node)
    with pytest.raises(NodeInactive):
        await ground.graph.open(NodeDefinition("raw", "above", children={"file": "disk"}))
    with pytest.raises(NodeInactive):
        await ground.graph.resize("disk", 2 * MIB, None)  # type: ignore[arg-type]


async def test_a_writer_keeps_a_node_from_being_handed_over_and_is_named(ground: Yard):
    node, base = await chain(ground)
    user = ground.use("disk", user="vm")
    with pytest.raises(NodeInUse, match="export/vm"):
        await modes.inactivate(ground.graph, node)
    with pytest.raises(NodeInUse, match="node/disk"):
        await modes.inactivate(ground.graph, base)
    assert node.active and base.active
    await user.write(0, b"x")
    ground.graph.release(user)


async def test_a_reader_stays_and_reads(ground: Yard):
    node, _ = await chain(ground)
    user = ground.use("disk", writable=False)
    await modes.inactivate(ground.graph, node)
    await user.read(0, memoryview(bytearray(16)))
    ground.graph.release(user)


async def test_what_others_stand_on_stays(ground: Yard):
    node, base = await chain(ground)
    await ground.create_qcow2("other.qcow2", MIB)
    await ground.open("qcow2", "other", "other.qcow2", backing=base.name)
    await modes.inactivate(ground.graph, node)
    assert not node.active and base.active


async def test_an_image_with_another_backing_file_by_now_is_not_taken_back(ground: Yard):
    node, _ = await chain(ground)
    await ground.create_qcow2("new.qcow2", MIB)
    await modes.inactivate(ground.graph, node)
    command = ("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "new.qcow2")
    peers.run(*command, ground.folder / "disk.qcow2")
    with pytest.raises(BackingChanged, match=r"new\.qcow2"):
        await modes.activate(ground.graph, node)
    assert not node.active


async def test_a_bitmap_knows_that_it_does_not_know_what_others_wrote(ground: Yard):
    node, _ = await chain(ground)
    bitmap = recording.create(ground.graph, node, "b", 65536)
    await modes.inactivate(ground.graph, node)
    assert not bitmap.bits.dirty_bytes
    await modes.activate(ground.graph, node)
    assert bitmap.bits.dirty_bytes == MIB


async def test_handing_over_twice_and_taking_back_twice_is_once(ground: Yard):
    node, _ = await chain(ground)
    for _ in range(2):
        await modes.inactivate(ground.graph, node)
    for _ in range(2):
        await modes.activate(ground.graph, node)
    await write(ground, "disk", b"x")


async def test_a_node_that_was_handed_over_can_be_closed(ground: Yard):
    node, _ = await chain(ground)
    await modes.inactivate(ground.graph, node)
    await ground.graph.close("disk")
    await ground.open("qcow2", "disk", "disk.qcow2")


async def test_a_waiting_node_waits_again_when_it_is_taken_back(ground: Yard):
    node = await waiting(ground)
    await modes.inactivate(ground.graph, node)
    await modes.activate(ground.graph, node)
    assert node.read_only
    await write(ground, "disk", b"x")
