"""Modes of nodes over the API: waiting for writers, handed over, ephemeral, ioctls, sizes that change."""

import os
import struct
from pathlib import Path

import pytest

from blockyard.base.errors import (
    FileBusy,
    InvalidArgument,
    IoctlsDisabled,
    IoError,
    NodeInactive,
    NodeInUse,
    NodeNotFound,
    NodeReadOnly,
    OperationUnsupported,
)
from blockyard.client.definitions import file, memory, qcow2, raw
from tests.support import peers
from tests.support.command import Cli
from tests.support.node_calls import NodeHouse, node_house
from tests.support.qemu_io import qemu_io

MIB = 1 << 20


async def disk(house: NodeHouse, **common) -> None:
    await house.client.images.create("disk.qcow2", MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("disk.qcow2"), node_name="disk", **common))


async def write(house: NodeHouse, name: str, data: bytes, offset: int = 0) -> None:
    await house.client.data.write(name, offset, data)


async def read(house: NodeHouse, name: str, length: int) -> bytes:
    return (await house.client.data.read(name))[:length]


@pytest.fixture
def cli(house: NodeHouse, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(f"unix:{tmp_path}/node.sock", capsysbinary)


# --- waiting for a writer --------------------------------------------------------------------------------


@pytest.mark.peer("qemu-io")
async def test_qemu_reads_with_us_until_a_writer_comes(house: NodeHouse):
    await disk(house, auto_read_only=True)
    node = await house.client.nodes.get("disk")
    assert node.read_only and node.auto_read_only
    path = house.folder / "disk.qcow2"
    with qemu_io(path, "qcow2", "-r"):
        with pytest.raises(FileBusy):
            await write(house, "disk", b"x")
        assert (await house.client.nodes.get("disk")).read_only
    await write(house, "disk", b"new")
    assert not (await house.client.nodes.get("disk")).read_only
    assert peers.run("qemu-io", "-r", "-f", "qcow2", "-c", "read 0 512", path, check=False).returncode


async def test_an_export_makes_a_node_writable_for_as_long_as_it_is_there(house: NodeHouse, tmp_path: Path):
    await disk(house, auto_read_only=True)
    address = f"unix:{tmp_path}/nbd"
    await house.client.exports.add_nbd("disk", "e", writable=True, addresses=[address])
    assert not (await house.client.nodes.get("disk")).read_only
    await house.client.exports.remove("e")
    assert (await house.client.nodes.get("disk")).read_only


# --- hand-over -------------------------------------------------------------------------------------------


@pytest.mark.peer("qemu-io")
async def test_a_node_is_handed_to_qemu_and_taken_back(house: NodeHouse, cli: Cli):
    await disk(house)
    await write(house, "disk", b"ours")
    ran = await cli("node", "deactivate", "disk")
    assert ran.code == 0 and "handed over" in ran.out
    assert not (await house.client.nodes.get("disk")).active
    with qemu_io(house.folder / "disk.qcow2", "qcow2") as peer:
        assert "wrote" in peer.do("write -P 7 64k 64k")
        assert (await cli("node", "activate", "disk")).code != 0
    with pytest.raises(NodeInactive):
        await write(house, "disk", b"x")
    assert await read(house, "disk", 4) == b"ours"
    assert (await cli("node", "activate", "disk")).code == 0
    assert (await house.client.data.read("disk"))[65536:131072] == b"\7" * 65536
    await write(house, "disk", b"back")
    await house.client.nodes.close("disk")
    peers.run("qemu-img", "check", "-q", house.folder / "disk.qcow2")


async def test_a_node_in_use_is_not_handed_over(house: NodeHouse):
    await disk(house)
    user = house.graph.use("disk", "session", "writer", writable=True)
    with pytest.raises(NodeInUse, match="session/writer"):
        await house.client.nodes.deactivate("disk")
    house.graph.release(user)
    with pytest.raises(NodeNotFound):
        await house.client.nodes.activate("nobody")


# --- ephemeral -------------------------------------------------------------------------------------------


async def test_writes_to_an_ephemeral_node_are_gone_with_it(house: NodeHouse):
    house.raw_file("disk.raw", b"kept" * 256)
    await house.client.nodes.open(raw(file("disk.raw"), node_name="it", ephemeral=True))
    await write(house, "it", b"gone")
    assert await read(house, "it", 8) == b"gonekept"
    node = await house.client.nodes.get("it")
    assert (node.driver, node.read_only, node.filename, node.exact_filename) == ("qcow2", False, "", "")
    below = {child.name: await house.client.nodes.get(child.node_name) for child in node.children}
    assert below["backing"].driver == "raw" and below["backing"].read_only and below["backing"].implicit
    assert below["file"].implicit and not below["file"].filename
    assert {path.name for path in house.folder.iterdir()} == {"disk.raw"}
    assert len(await house.client.nodes.close("it")) == 4
    assert (house.folder / "disk.raw").read_bytes() == b"kept" * 256
    await house.client.nodes.open(raw(file("disk.raw"), node_name="it", ephemeral=True))
    assert await read(house, "it", 4) == b"kept"


@pytest.mark.peer("qemu-io")
async def test_an_ephemeral_node_keeps_nobody_from_reading(house: NodeHouse):
    await disk(house)
    await house.client.nodes.close("disk")
    await house.client.nodes.open(qcow2(file("disk.qcow2"), node_name="it", ephemeral=True))
    with qemu_io(house.folder / "disk.qcow2", "qcow2", "-r"):
        await write(house, "it", b"ours alone")
    assert await read(house, "it", 10) == b"ours alone"


async def test_an_ephemeral_node_of_an_odd_size_is_whole_sectors(house: NodeHouse):
    house.raw_file("disk.raw", b"x" * 1000)
    node = await house.client.nodes.open(raw(file("disk.raw"), ephemeral=True))
    assert node.size_bytes == 1024
    assert await house.client.data.read(node.node_name) == b"x" * 1000 + bytes(24)


async def test_what_is_ephemeral_is_for_writing(house: NodeHouse):
    house.raw_file("disk.raw", 1024)
    with pytest.raises(InvalidArgument, match="ephemeral"):
        await house.client.nodes.open(raw(file("disk.raw"), ephemeral=True, read_only=True))


async def test_the_temporary_directory_may_be_elsewhere(tmp_path: Path):
    elsewhere = tmp_path / "scratch"
    elsewhere.mkdir()
    async with node_house(tmp_path, temporary_directory=str(elsewhere)) as house:
        house.raw_file("disk.raw", MIB)
        await house.client.nodes.open(raw(file("disk.raw"), node_name="it", ephemeral=True))
        node = house.graph.get("it").children["file"].node
        found = Path(f"/proc/self/fd/{node.driver.descriptor()}").readlink()
        assert found.is_relative_to(elsewhere)
    assert not list(elsewhere.iterdir())


async def test_an_ephemeral_node_is_opened_from_the_command_line(house: NodeHouse, cli: Cli):
    house.raw_file("disk.raw", MIB)
    ran = await cli("node", "open", "disk.raw", "--format", "raw", "--name", "it", "--ephemeral")
    assert ran.code == 0
    await write(house, "it", b"x")
    assert (house.folder / "disk.raw").read_bytes() == bytes(MIB)
    ran = await cli("node", "open", "disk.raw", "--format", "raw", "--name", "w", "--auto-read-only")
    assert ran.code == 0 and "until a writer comes" in ran.out


# --- ioctls ----------------------------------------------------------------------------------------------

FIGETBSZ = 2


async def test_ioctls_are_off_unless_the_operator_allows_them(house: NodeHouse):
    house.raw_file("disk.raw", MIB)
    await house.client.nodes.open(file("disk.raw", node_name="it"))
    with pytest.raises(IoctlsDisabled):
        await house.client.nodes.ioctl("it", FIGETBSZ, bytes(4))


async def test_an_ioctl_goes_through_raw_to_the_file(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]):
    async with node_house(tmp_path, allow_ioctl=True) as house:
        house.raw_file("disk.raw", MIB)
        await house.client.nodes.open(raw(file("disk.raw", node_name="file"), node_name="it"))
        answer = await house.client.nodes.ioctl("it", FIGETBSZ, bytes(4))
        assert (answer.result, struct.unpack("=i", answer.argument)[0]) == (0, os.statvfs(house.folder).f_bsize)
        cli = Cli(f"unix:{tmp_path}/node.sock", capsysbinary)
        ran = await cli("io", "ioctl", "it", "2", "--argument", "00000000")
        assert ran.out.split() == ["0", answer.argument.hex()]
        assert (await cli("io", "ioctl", "it", "two")).code == 2
        with pytest.raises(IoError):
            await house.client.nodes.ioctl("it", 0x5331)
        with pytest.raises(InvalidArgument, match="BLKROGET"):
            await house.client.nodes.ioctl("it", 0x7777)
        with pytest.raises(InvalidArgument):
            await house.client.nodes.ioctl("it", -1)
        await house.client.nodes.open(memory(512, node_name="memory"))
        with pytest.raises(OperationUnsupported):
            await house.client.nodes.ioctl("memory", FIGETBSZ, bytes(4))
        assert not (await house.client.nodes.get("file")).scsi_generic
        await house.client.nodes.deactivate("it")
        with pytest.raises(NodeInactive):
            await house.client.nodes.ioctl("it", FIGETBSZ, bytes(4))


# --- sizes -----------------------------------------------------------------------------------------------


async def test_a_torn_view_follows_the_size_of_its_file(house: NodeHouse):
    path = house.raw_file("disk.raw", MIB)
    await house.client.nodes.open(raw(file("disk.raw"), node_name="it", read_only=True, force_share=True))
    before = await house.client.nodes.get("it")
    os.truncate(path, 3 * MIB)
    assert (await house.client.nodes.get("it", full=False)).size_bytes == MIB
    after = await house.client.nodes.get("it")
    assert after.size_bytes == 3 * MIB and after.variable_length and after.etag != before.etag


async def test_a_file_of_our_own_has_no_variable_length(house: NodeHouse):
    path = house.raw_file("disk.raw", MIB)
    await house.client.nodes.open(raw(file("disk.raw"), node_name="it", read_only=True))
    os.truncate(path, 3 * MIB)
    assert (await house.client.nodes.get("it")).size_bytes == MIB
    with pytest.raises(NodeReadOnly):
        await write(house, "it", b"x")


# --- another life ----------------------------------------------------------------------------------------


async def test_what_waits_and_what_is_ephemeral_come_back_as_such(tmp_path: Path):
    state = str(tmp_path / "state")
    async with node_house(tmp_path, state_directory=state) as house:
        await disk(house, auto_read_only=True)
        await write(house, "disk", b"kept")
        house.raw_file("base.raw", b"base" * 256)
        await house.client.nodes.open(raw(file("base.raw"), node_name="scratch", ephemeral=True))
        await write(house, "scratch", b"gone")
    async with node_house(tmp_path, state_directory=state) as house:
        again = await house.client.nodes.get("disk")
        assert again.read_only and again.auto_read_only
        assert await read(house, "disk", 4) == b"kept"
        await write(house, "disk", b"more")
        assert await read(house, "scratch", 4) == b"base"
        await write(house, "scratch", b"gone")
    assert (tmp_path / "images" / "base.raw").read_bytes() == b"base" * 256
