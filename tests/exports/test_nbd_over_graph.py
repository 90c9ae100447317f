"""The export over the real graph: a qcow2 overlay on a raw file, judged by QEMU on the export and on the files."""

import asyncio
import json
import random

import pytest

from blockyard.base.clock import SystemClock
from blockyard.base.units import KIB, MIB
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.exports.nbd import ExportConfig, NbdServer
from blockyard.node.formats import nbd
from blockyard.node.graph.bitmaps import Bitmap
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.drain import drained
from tests.support import peers
from tests.support.graphs import GraphGround
from tests.support.nbd_peer import NbdPeer

SIZE = 16 * MIB
CLUSTER = 64 * KIB


class Yard:
    """`top.qcow2` over `base.raw`, exported as `disk` with a bitmap `b0`."""

    def __init__(self, ground, server, user, address, base) -> None:
        self.ground = ground
        self.server = server
        self.user = user
        self.address = address
        self.base = base
        self.uri = f"nbd+unix:///disk?socket={address}"

    async def leave(self) -> None:
        await self.server.stop()
        if self.user is not None:
            self.ground.graph.release(self.user)
            self.user = None
            assert await self.ground.leave() == []


@pytest.fixture
async def yard(tmp_path):
    base = random.Random(7).randbytes(SIZE)
    (tmp_path / "base.raw").write_bytes(base)
    top = tmp_path / "top.qcow2"
    peers.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", top)
    ground = GraphGround(tmp_path)
    file = NodeDefinition("file", options={"filename": "top.qcow2"})
    node = await ground.graph.open(NodeDefinition("qcow2", "top", children={"file": file}))
    node.bitmaps["b0"] = Bitmap("b0", DirtyBitmap(SIZE, CLUSTER))
    node.record_bitmaps()
    user = ground.graph.use("top", "export", "disk", writable=True)
    server = NbdServer(SystemClock())
    config = ExportConfig("disk", writable=True, bitmaps=("b0",), allocation_depth=True)
    await server.add_export(config, user)
    await server.start(tmp_path / "nbd.sock")
    yard = Yard(ground, server, user, tmp_path / "nbd.sock", base)
    yield yard
    await yard.leave()


async def run(*command: object) -> str:
    return (await asyncio.to_thread(peers.run, *command)).stdout


@pytest.mark.peer("qemu-img")
async def test_what_guests_wrote_is_in_the_files_afterwards(yard, tmp_path):
    model = bytearray(yard.base)
    chooser = random.Random(1)
    peer = await NbdPeer.open(yard.address, "disk")
    for _ in range(200):
        length = chooser.choice([1, 512, 4096, CLUSTER, 3 * CLUSTER + 5])
        offset = chooser.randrange(SIZE - length)
        if chooser.random() < 0.2:
            assert (await peer.ask(nbd.CMD_WRITE_ZEROES, offset, length)).error == 0
            model[offset : offset + length] = bytes(length)
        else:
            data = chooser.randbytes(length)
            assert (await peer.write(offset, data, chooser.choice([0, nbd.CMD_FLAG_FUA]))).error == 0
            model[offset : offset + length] = data
    assert (await peer.read(0, SIZE)).data == model
    assert (await peer.ask(nbd.CMD_FLUSH)).error == 0
    await peer.close()
    await yard.leave()
    (tmp_path / "model.raw").write_bytes(model)
    await run("qemu-img", "check", "-q", tmp_path / "top.qcow2")
    await run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", tmp_path / "model.raw", tmp_path / "top.qcow2")
    assert (tmp_path / "base.raw").read_bytes() == yard.base


@pytest.mark.peer("qemu-img", "nbdinfo")
async def test_depth_and_dirt_follow_the_writes(yard):
    peer = await NbdPeer.open(yard.address, "disk")
    await peer.write(2 * CLUSTER, b"x" * CLUSTER)
    await peer.ask(nbd.CMD_FLUSH)

    async def mapped(context: str) -> list[tuple[int, int, int]]:
        runs = json.loads(await run("nbdinfo", f"--map={context}", "--json", yard.uri))
        return [(run["offset"] // CLUSTER, run["length"] // CLUSTER, run["type"]) for run in runs]

    rest = SIZE // CLUSTER - 3
    assert await mapped("qemu:allocation-depth") == [(0, 2, 2), (2, 1, 1), (3, rest, 2)]
    assert await mapped("qemu:dirty-bitmap:b0") == [(0, 2, 0), (2, 1, 1), (3, rest, 0)]


@pytest.mark.peer("qemu-img", "qemu-io")
async def test_a_guest_may_zero_fast_what_the_format_can(yard):
    await run("qemu-io", "-f", "raw", yard.uri, "-c", f"write -z -u -n {CLUSTER} {4 * CLUSTER}", "-c", "flush")
    peer = await NbdPeer.open(yard.address, "disk", contexts=("base:allocation",))
    assert (await peer.read(0, 6 * CLUSTER)).data == (
        yard.base[:CLUSTER] + bytes(4 * CLUSTER) + yard.base[5 * CLUSTER : 6 * CLUSTER]
    )
    reply = await peer.ask(nbd.CMD_BLOCK_STATUS, CLUSTER, 4 * CLUSTER)
    assert [status & nbd.STATE_ZERO for _, status in reply.statuses[0]] == [nbd.STATE_ZERO]


@pytest.mark.peer("qemu-img", "fio")
async def test_fio_verifies_while_clusters_are_allocated(yard, tmp_path):
    await run(
        "fio", "--name=v", "--ioengine=nbd", f"--uri={yard.uri}", "--rw=randrw", "--bsrange=4k-128k",
        "--size=16m", "--iodepth=32", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0",
    )  # fmt: skip
    await yard.leave()
    await run("qemu-img", "check", "-q", tmp_path / "top.qcow2")


@pytest.mark.peer("qemu-img")
async def test_requests_wait_while_the_node_is_drained_and_go_on_afterwards(yard):
    peer = await NbdPeer.open(yard.address, "disk")
    node = yard.ground.graph.get("top")
    async with drained(node):
        for cookie in range(100):
            peer.request(nbd.CMD_WRITE, cookie, cookie * 4096, 4096, data=bytes([cookie]) * 4096)
        async with asyncio.timeout(10):
            while yard.server.clients()[0].in_flight < 64:
                await asyncio.sleep(0)
        first = asyncio.ensure_future(peer.reply())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not first.done()
    replies = [await first] + [await peer.reply() for _ in range(99)]
    assert sorted(reply.cookie for reply in replies) == list(range(100))
    assert not any(reply.error for reply in replies)
