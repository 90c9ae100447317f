"""Driver `compress`: clusters are stored compressed whatever the guest's requests look like."""

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.errors import OperationUnsupported
from blockyard.base.units import KIB, MIB
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.node import Node
from blockyard.node.interface.child import Child
from tests.support import peers
from tests.support.contract import DriverContract
from tests.support.graphs import GraphGround, content
from tests.support.ground import Ground


class TestCompress(DriverContract):
    driver = "compress"
    grows_by_writing = False

    async def prepare(self, ground: Ground) -> None:
        (ground.root / "a.qcow2").touch()
        file = await ground.open("file", {"filename": "a.qcow2"})
        await ground.create("qcow2", {"size": self.size, "cluster_size": 4096}, {"file": file})
        await ground.close_all()

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        file = await ground.open("file", {"filename": "a.qcow2"}, read_only=read_only)
        return {"file": await ground.open("qcow2", {}, {"file": file}, read_only=read_only)}

    async def test_it_wants_whole_clusters(self, ground: Ground):
        node = await self.node(ground)
        assert node.limits.request_alignment == 4096
        assert not node.write_now(0, bytes(4096))

    async def test_a_child_that_cannot_compress_is_refused(self, ground: Ground):
        with pytest.raises(OperationUnsupported):
            await ground.open("compress", {}, {"file": await ground.open("memory", {"size": MIB})})


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


async def compressing(ground: GraphGround, size: int = MIB, **options: object) -> Node:
    await ground.qcow2("disk", "disk.qcow2", size, **options)
    return await ground.graph.open(NodeDefinition("compress", "top", children={"file": "disk"}))


def text(seed: int, length: int) -> bytes:
    """Bytes that can be compressed."""
    return random.Random(seed).randbytes(length // 4) + bytes(length - length // 4)


async def close(ground: GraphGround) -> None:
    for name in ("top", "disk"):
        await ground.graph.close(name)


def checked(path: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads(peers.run("qemu-img", "check", "--output=json", path).stdout)
    return found


@pytest.mark.peer("qemu-img")
async def test_small_scattered_writes_are_stored_compressed(ground: GraphGround):
    user = ground.use(await compressing(ground))
    model, numbers = bytearray(MIB), random.Random(3)
    for step in range(40):
        offset, length = numbers.randrange(MIB - 5000), numbers.randrange(1, 5000)
        data = text(step, length)
        if not user.write_now(offset, data):
            await user.write(offset, data)
        model[offset : offset + length] = data
    assert await content(user) == model
    ground.graph.release(user)
    await close(ground)
    check = checked(ground.root / "disk.qcow2")
    assert check["compressed-clusters"] == check["allocated-clusters"] > 0
    assert "corruptions" not in check and "leaks" not in check


@pytest.mark.parametrize("size", [MIB, MIB - 512, 100 * KIB])
async def test_the_last_cluster_may_be_cut_and_the_image_does_not_grow(ground: GraphGround, size: int):
    user = ground.use(await compressing(ground, size))
    await user.write(size - 10, b"x" * 10)
    assert user.size == size
    assert await content(user) == bytes(size - 10) + b"x" * 10
    extents = await user.block_status(0, size)
    assert extents[-1].compressed and extents[-1].offset + extents[-1].length == size


async def test_zeroes_and_discards_pass(ground: GraphGround):
    user = ground.use(await compressing(ground))
    await user.write(0, text(1, 256 * KIB))
    await user.zero(64 * KIB, 64 * KIB)
    await user.discard(128 * KIB, 64 * KIB)
    assert await content(user, 64 * KIB, 128 * KIB) == bytes(128 * KIB)
    assert await content(user, 0, 64 * KIB) == text(1, 256 * KIB)[: 64 * KIB]


@pytest.mark.peer("qemu-img")
@pytest.mark.peer("qemu-io")
async def test_the_same_writes_make_as_many_compressed_clusters_as_with_qemu(ground: GraphGround):
    user = ground.use(await compressing(ground))
    peers.run("qemu-img", "create", "-q", "-f", "qcow2", ground.root / "theirs.qcow2", "1M")
    commands = []
    for at, length in ((0, 65536), (131072, 4096), (262144, 131072), (MIB - 65536, 65536)):
        commands += ["-c", f"write -q -P {at // 65536 + 1} {at} {length}"]
        await user.write(at, bytes([at // 65536 + 1]) * length)
    ground.graph.release(user)
    await close(ground)
    image = f"driver=compress,file.driver=qcow2,file.file.filename={ground.root}/theirs.qcow2"
    peers.run("qemu-io", "--image-opts", *commands, image)
    ours, theirs = checked(ground.root / "disk.qcow2"), checked(ground.root / "theirs.qcow2")
    assert ours["compressed-clusters"] == theirs["compressed-clusters"] == 5
    peers.run("qemu-img", "compare", "-q", ground.root / "disk.qcow2", ground.root / "theirs.qcow2")
