"""Attachments and their exports after a restart, and what a catalogue that cannot be written leaves of a change."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.errors import CatalogueNotWritten, ResourceNotFound
from blockyard.client.definitions import file, memory, qcow2, raw
from blockyard.node.graph.attachment import AttachmentDefinition
from blockyard.node.graph.attachments import Attachments
from blockyard.node.graph.catalogue import Catalogue
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.graph import Graph
from blockyard.node.graph.tray import Action
from blockyard.v1 import types_pb2 as types
from tests.support.graphs import GraphGround
from tests.support.kept_graph import MemoryKeeper
from tests.support.node_calls import NodeHouse, node_house

MIB = 1 << 20


def living(folder: Path):
    """One life of the service."""
    return node_house(folder, state_directory=str(folder / "state"), nbd=(f"unix:{folder}/nbd.sock",))


def plain(attachment: types.Attachment) -> types.Attachment:
    """Without what belongs to one life."""
    copy = types.Attachment()
    copy.CopyFrom(attachment)
    for field in ("etag", "create_time", "eject_requested"):
        copy.ClearField(field)
    return copy


async def before_restart(house: NodeHouse) -> list[types.Attachment]:
    client = house.client
    await client.images.create("a.qcow2", MIB, format="qcow2")
    await client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
    await client.nodes.open(memory(MIB, node_name="b"))
    await client.attachments.create(
        "vda", "a", writable=True, logical_block_size_bytes=4096, on_read_error="stop", labels={"vm": "one"}
    )
    await client.attachments.create("cd", "b", removable=True, write_cache=False)
    await client.attachments.create("floppy", removable=True, trayless=True)
    await client.exports.add_nbd("", "disk", attachment="vda", writable=True)
    await client.attachments.open_tray("cd")
    await client.attachments.lock("cd")
    return [plain(each) for each in await client.attachments.list()]


async def test_attachments_come_back_with_their_medium_tray_and_exports(tmp_path: Path):
    async with living(tmp_path) as house:
        before = await before_restart(house)
        uris = (await house.client.exports.get("disk")).uris
        assert house.graph.kept.catalogue.differences() == []
    async with living(tmp_path) as house:
        assert [plain(each) for each in await house.client.attachments.list()] == before
        export = await house.client.exports.get("disk")
        assert (export.attachment, export.node_name, export.uris) == ("vda", "a", uris)
        assert house.graph.kept.catalogue.differences() == []
        assert not (await house.client.catalogue.list(failed_only=True)).entries
        await house.client.exports.remove("disk")
        await house.client.attachments.delete("vda")
    async with living(tmp_path) as house:
        assert [each.name for each in await house.client.attachments.list()] == ["cd", "floppy"]


async def test_an_attachment_whose_node_is_gone_is_listed_and_keeps_nobody_else(tmp_path: Path):
    async with living(tmp_path) as house:
        await before_restart(house)
    (tmp_path / "images" / "a.qcow2").rename(tmp_path / "away")
    async with living(tmp_path) as house:
        assert [each.name for each in await house.client.attachments.list()] == ["cd", "floppy"]
        failed = {(each.kind, each.name): each.reason for each in (await house.client.catalogue.list()).entries}
        assert failed[("attachment", "vda")] == failed[("export", "disk")] == "DEPENDENCY_NOT_RESTORED"
        with pytest.raises(ResourceNotFound):
            await house.client.attachments.get("vda")
        (tmp_path / "away").rename(tmp_path / "images" / "a.qcow2")
        await house.client.catalogue.restore("export", "disk")
        assert (await house.client.attachments.get("vda")).users == ["export/disk"]


async def test_a_medium_that_took_anothers_place_is_the_one_that_comes_back(tmp_path: Path):
    async with living(tmp_path) as house:
        await before_restart(house)
        await house.client.nodes.open(memory(MIB, node_name="copy"))
        await house.client.nodes.replace("a", "copy")
    async with living(tmp_path) as house:
        assert (await house.client.attachments.get("vda")).node_name == "copy"


async def test_a_writer_makes_a_node_writable_that_waits_for_one_and_a_drive_gives_it_back(tmp_path: Path):
    async with living(tmp_path) as house:
        house.raw_file("a.raw", MIB)
        client = house.client
        await client.nodes.open(raw(file("a.raw", auto_read_only=True), node_name="a", auto_read_only=True))
        assert (await client.nodes.get("a")).read_only
        await client.attachments.create("vda", "a", writable=True)
        assert not (await client.nodes.get("a")).read_only
        await client.data.write("", 0, b"x" * 512, attachment="vda")
        await client.attachments.delete("vda")
        assert (await client.nodes.get("a")).read_only
        await client.attachments.create("cd", removable=True, writable=True)
        await client.attachments.change("cd", "a")
        assert not (await client.nodes.get("a")).read_only
        await client.data.write("", 0, b"y" * 512, attachment="cd")
        await client.attachments.open_tray("cd")
        await client.attachments.remove("cd")
        assert (await client.nodes.get("a")).read_only


# --- a catalogue that cannot be written ------------------------------------------------------------------


class Kept:
    """A graph with two nodes whose catalogue a test breaks."""

    def __init__(self, ground: GraphGround) -> None:
        self.ground = ground
        self.keeper = MemoryKeeper()
        ground.graph = Graph(ground.graph.environment, Catalogue(self.keeper))
        self.attachments = Attachments(ground.graph)
        self.told: list[str] = []
        self.attachments.on_change.append(lambda kind, attachment: self.told.append(kind))

    def break_next(self) -> None:
        self.told.clear()
        self.keeper.fail_from(self.keeper.commits + 1)

    @property
    def kept(self) -> dict[str, str]:
        return {key.name: entry.definition for key, entry in self.keeper.rows.items() if key.kind == "attachment"}


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    made = Kept(GraphGround(tmp_path))
    for name in ("a", "b"):
        await made.ground.graph.open(NodeDefinition("memory", name, {"size": MIB}))
    yield made
    made.attachments.close()
    made.keeper.before = lambda number: None
    assert await made.ground.leave() == []


async def test_one_that_cannot_be_kept_is_not_made(kept: Kept):
    kept.break_next()
    with pytest.raises(CatalogueNotWritten):
        await kept.attachments.create(AttachmentDefinition("vda", "a"))
    assert not kept.attachments.all() and not kept.ground.graph.get("a").parents and not kept.told
    await kept.attachments.create(AttachmentDefinition("vda", "a"))
    assert list(kept.kept) == ["vda"]


async def test_one_that_cannot_be_dropped_stays(kept: Kept):
    await kept.attachments.create(AttachmentDefinition("vda", "a"))
    kept.break_next()
    with pytest.raises(CatalogueNotWritten):
        await kept.attachments.delete("vda")
    assert kept.attachments.get("vda").node_name == "a" and not kept.told
    await kept.attachments.delete("vda")
    assert not kept.kept


async def test_a_change_that_cannot_be_kept_is_undone(kept: Kept):
    attachment = await kept.attachments.create(AttachmentDefinition("cd", "a", removable=True, writable=True))
    kept.break_next()
    with pytest.raises(CatalogueNotWritten):
        await kept.attachments.update("cd", {"write_cache": False})
    assert not attachment.user.write_flags
    for action, node_name in ((Action.CHANGE, "b"), (Action.OPEN_TRAY, ""), (Action.LOCK, "")):
        before = attachment.definition
        kept.break_next()
        with pytest.raises(CatalogueNotWritten):
            await kept.attachments.change_medium("cd", action, node_name)
        assert attachment.definition == before and attachment.user.present and not kept.told
    await attachment.user.write(0, b"x" * 512)
    assert not kept.ground.graph.get("a").quiesced and not kept.ground.graph.get("b").parents
    await kept.attachments.change_medium("cd", Action.CHANGE, "b")
    assert kept.ground.graph.kept.catalogue.differences() == []


async def test_a_deletion_waits_for_a_change_of_medium(kept: Kept):
    import asyncio

    attachment = await kept.attachments.create(AttachmentDefinition("cd", "a", removable=True))
    async with attachment.moving:
        deleting = asyncio.create_task(kept.attachments.delete("cd"))
        await asyncio.sleep(0)
        assert kept.attachments.all() == [attachment]
    await deleting
    assert not kept.attachments.all()
