"""NBD exports over the API."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from blockyard.base.errors import (
    AddressUnavailable,
    InvalidArgument,
    NodeInUse,
    NodeNotFound,
    NodeReadOnly,
    PathDenied,
    ResourceBusy,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.client.definitions import file, memory, qcow2
from blockyard.v1 import export_pb2 as export
from tests.support import peers
from tests.support.eventually import eventually
from tests.support.node_calls import NodeHouse, node_house

MIB = 1 << 20


@pytest.fixture
async def exporting(house: NodeHouse) -> NodeHouse:
    """With node "m" and an image "a"."""
    await house.client.nodes.open(memory(MIB, node_name="m"))
    await house.client.images.create("a.qcow2", 4 * MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
    return house


def at(house: NodeHouse, name: str = "nbd") -> str:
    return f"unix:{house.folder.parent}/{name}.sock"


def connected(house: NodeHouse, export_name: str, name: str = "nbd") -> socket.socket:
    """A client that went as far as GO."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.setblocking(False)
    client.connect(at(house, name).removeprefix("unix:"))
    go = len(export_name).to_bytes(4, "big") + export_name.encode() + bytes(2)
    client.send((3).to_bytes(4, "big") + b"IHAVEOPT" + (7).to_bytes(4, "big") + len(go).to_bytes(4, "big") + go)
    return client


@pytest.mark.peer("nbdinfo")
async def test_an_export_is_what_a_client_sees(exporting: NodeHouse):
    made = await exporting.client.exports.add_nbd(
        "a", "disk", description="the disk", writable=True, addresses=[at(exporting)]
    )
    assert list(made.uris) == [f"nbd+unix:///disk?socket={exporting.folder.parent}/nbd.sock"]
    assert exporting.users("a") == ["export/disk"]
    found = await asyncio.to_thread(peers.run, "nbdinfo", "--json", made.uris[0])
    told = json.loads(found.stdout)["exports"][0]
    assert (told["export-name"], told["description"], told["export-size"]) == ("disk", "the disk", 4 * MIB)
    assert told["is_read_only"] is False


async def test_the_name_is_the_exports_id_unless_given(exporting: NodeHouse):
    first = await exporting.client.exports.add_nbd("a", "", addresses=[at(exporting)])
    assert first.export_id == first.nbd.name == "export-1"
    second = await exporting.client.exports.add_nbd("m", "two", name="a/b c", addresses=[at(exporting)])
    assert second.uris[0].startswith("nbd+unix:///a%2Fb%20c?socket=")
    assert [each.export_id for each in await exporting.client.exports.list()] == ["export-1", "two"]


async def test_two_exports_share_an_address_until_both_are_gone(exporting: NodeHouse):
    await exporting.client.exports.add_nbd("a", "one", addresses=[at(exporting)])
    await exporting.client.exports.add_nbd("m", "two", addresses=[at(exporting)])
    path = Path(at(exporting).removeprefix("unix:"))
    await exporting.client.exports.remove("one")
    assert path.exists()
    await exporting.client.exports.remove("two")
    assert not path.exists()
    assert exporting.users("a") == exporting.users("m") == []


async def test_an_export_with_clients_is_deleted_only_by_force(exporting: NodeHouse):
    await exporting.client.exports.add_nbd("a", "disk", addresses=[at(exporting)])
    with connected(exporting, "disk"):
        server = exporting.running.exports.info(exporting.running.exports.get("disk"))
        assert server is not None
        await eventually(lambda: exporting.running.exports.info(exporting.running.exports.get("disk")).clients)
        told = await exporting.client.exports.get("disk")
        assert len(told.clients) == 1 and told.clients[0].connect_time.seconds
        with pytest.raises(NodeInUse):
            await exporting.client.exports.remove("disk")
        with pytest.raises(NodeInUse):
            await exporting.client.nodes.close("a")
        await exporting.client.exports.remove("disk", force=True)
    await exporting.client.nodes.close("a")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"node_name": "nobody"}, NodeNotFound),
        ({"node_name": ""}, InvalidArgument),
        ({"export_id": "no spaces"}, InvalidArgument),
        ({"bitmaps": ["nothing"]}, ResourceNotFound),
        ({"name": "x" * 5000}, InvalidArgument),
        ({"max_connections": 1001}, InvalidArgument),
        ({"addresses": ["nowhere"]}, InvalidArgument),
        ({"addresses": ["unix:relative"]}, InvalidArgument),
        ({"addresses": ["unix:/no/such/folder/x.sock"]}, AddressUnavailable),
        ({"addresses": []}, InvalidArgument),
    ],
)
async def test_what_cannot_be_exported_is_refused_and_leaves_nothing(exporting: NodeHouse, fields, error):
    wanted = {"node_name": "a", "export_id": "disk", "addresses": [at(exporting)], **fields}
    node_name, export_id = wanted.pop("node_name"), wanted.pop("export_id")
    with pytest.raises(error):
        await exporting.client.exports.add_nbd(node_name, export_id, **wanted)
    assert await exporting.client.exports.list() == ()
    assert exporting.users("a") == []
    assert not Path(at(exporting).removeprefix("unix:")).exists()


async def test_a_kind_must_be_named(exporting: NodeHouse):
    with pytest.raises(InvalidArgument):
        await exporting.exports.CreateExport(
            export.CreateExportRequest(export=export.Export(export_id="x", node_name="a"))
        )


async def test_a_read_only_node_is_exported_read_only(exporting: NodeHouse):
    await exporting.client.nodes.open(memory(MIB, node_name="r", read_only=True))
    with pytest.raises(NodeReadOnly):
        await exporting.client.exports.add_nbd("r", "x", writable=True, addresses=[at(exporting)])
    assert not (await exporting.client.exports.add_nbd("r", "x", addresses=[at(exporting)])).writable


async def test_ids_and_names_are_given_once(exporting: NodeHouse):
    add = exporting.client.exports.add_nbd
    first = await add("a", "disk", addresses=[at(exporting)], request_id="one")
    assert await add("a", "disk", addresses=[at(exporting)], request_id="one") == first
    with pytest.raises(ResourceExists):
        await add("m", "disk", name="other", addresses=[at(exporting)])
    with pytest.raises(ResourceExists):
        await add("m", "other", name="disk", addresses=[at(exporting)])
    assert exporting.users("m") == []


async def test_an_exported_bitmap_is_busy_until_the_export_ends(exporting: NodeHouse):
    await exporting.client.bitmaps.add("a", "b")
    await exporting.client.exports.add_nbd("a", "disk", bitmaps=["b"], writable=True, addresses=[at(exporting)])
    assert (await exporting.client.bitmaps.get("a", "b")).owner == "export/disk"
    with pytest.raises(ResourceBusy):
        await exporting.client.bitmaps.remove("a", "b")
    await exporting.client.data.write("a", 0, b"x")
    assert (await exporting.client.bitmaps.get("a", "b")).dirty_bytes == 65536, "it goes on recording"
    await exporting.client.exports.remove("disk")
    await exporting.client.bitmaps.remove("a", "b")


async def test_validate_only_exports_nothing(exporting: NodeHouse):
    add = exporting.client.exports.add_nbd
    await add("a", "disk", addresses=[at(exporting)], validate_only=True)
    with pytest.raises(ResourceNotFound):
        await add("a", "disk", bitmaps=["nothing"], addresses=[at(exporting)], validate_only=True)
    assert await exporting.client.exports.list() == ()
    assert exporting.users("a") == []


async def test_a_missing_export_is_not_found_unless_allowed(exporting: NodeHouse):
    with pytest.raises(ResourceNotFound):
        await exporting.client.exports.get("nothing")
    with pytest.raises(ResourceNotFound):
        await exporting.client.exports.remove("nothing")
    await exporting.client.exports.remove("nothing", allow_missing=True)


async def test_configured_addresses_serve_every_export(tmp_path: Path):
    async with node_house(tmp_path, nbd=("127.0.0.1:0",), export_addresses=False) as house:
        await house.client.nodes.open(memory(MIB, node_name="m"))
        made = await house.client.exports.add_nbd("m", "disk")
        assert made.uris[0].startswith("nbd://127.0.0.1:") and made.uris[0].endswith("/disk")
        with pytest.raises(PathDenied):
            await house.client.exports.add_nbd("m", "two", addresses=[at(house)])
        await house.client.exports.remove("disk")
        again = await house.client.exports.add_nbd("m", "disk")
        assert again.uris == made.uris


@pytest.mark.peer("qemu-io", "qemu-img")
async def test_a_guest_writes_and_the_image_is_sound(exporting: NodeHouse):
    made = await exporting.client.exports.add_nbd("a", "disk", writable=True, addresses=[at(exporting)])
    await asyncio.to_thread(
        peers.run, "qemu-io", "-f", "raw", "-c", "write -P 7 1M 64k", "-c", "read -P 7 1M 64k", made.uris[0]
    )
    assert await exporting.client.data.read("a", MIB, 65536) == b"\7" * 65536
    await exporting.client.exports.remove("disk")
    await exporting.client.nodes.close("a")
    peers.run("qemu-img", "check", exporting.folder / "a.qcow2")


async def test_an_exported_node_can_be_replaced_under_its_clients(exporting: NodeHouse):
    await exporting.client.nodes.open(memory(4 * MIB, node_name="copy"))
    await exporting.client.exports.add_nbd("a", "disk", addresses=[at(exporting)])
    await exporting.client.nodes.replace("a", "copy")
    assert (await exporting.client.exports.get("disk")).node_name == "copy"
    await exporting.client.nodes.close("a")
