"""qcow2 under the load of a guest in a graph: caches that are too small, callers that leave while it grows."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import pytest

from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.qcow2.driver import Qcow2
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.node import Node
from blockyard.node.graph.user import User
from tests.support import peers
from tests.support.gated import Gates
from tests.support.yard import Yard, random_bytes, yard

pytestmark = pytest.mark.peer("qemu-img")


@pytest.fixture
def gates() -> Iterator[Gates]:
    made = Gates()
    with made.registered():
        yield made


@pytest.fixture
async def ground(tmp_path: Path, gates: Gates) -> AsyncIterator[Yard]:
    async with yard(tmp_path) as made:
        yield made


async def opened(ground: Yard, **options: object) -> Node:
    file = NodeDefinition("gated", options={"filename": "disk.qcow2"})
    return await ground.graph.open(NodeDefinition("qcow2", "disk", dict(options), {"file": file}))


async def check(ground: Yard, guest: User, model: bytes) -> None:
    """What the guest wrote is there, for us and for QEMU, in a sound image."""
    await guest.flush()
    assert await ground.content("disk") == model
    ground.graph.release(guest)
    await ground.graph.close("disk")
    image = ground.folder / "disk.qcow2"
    result = peers.run("qemu-img", "check", image, check=False)
    assert result.returncode in (0, 3), result.stdout
    peers.run("qemu-img", "convert", "-O", "raw", image, ground.folder / "seen.raw")
    assert (ground.folder / "seen.raw").read_bytes() == model


@pytest.mark.parametrize("seed", range(2))
async def test_many_writers_over_caches_that_hold_almost_nothing(ground: Yard, seed: int) -> None:
    size, writers = MIB, 16
    await ground.create_qcow2("disk.qcow2", size, cluster_size=512)
    await opened(ground, l2_cache_size=512, refcount_cache_size=512)
    guest, chance, model = ground.use("disk"), Random(seed), bytearray(size)

    async def writer(start: int, room: int) -> None:
        for number in range(40):
            length = chance.choice((100, 512, 600))
            offset = start + chance.randrange(room - length)
            data = bytes(length) if number % 8 == 7 else chance.randbytes(length)
            await (guest.write(offset, data) if any(data) else guest.zero(offset, length))
            model[offset : offset + length] = data
            if number % 16 == 15:
                await guest.flush()

    room = size // writers
    await asyncio.gather(*(writer(number * room, room) for number in range(writers)))
    await check(ground, guest, bytes(model))


async def test_a_writer_who_leaves_while_the_refcount_table_grows_takes_its_room_along(
    ground: Yard, gates: Gates
) -> None:
    await ground.create_qcow2("disk.qcow2", 8 * MIB, cluster_size=512, refcount_bits=64)
    node = await opened(ground)
    assert isinstance(node.driver, Qcow2)
    guest, model, allocator = ground.use("disk"), bytearray(8 * MIB), node.driver.image.allocator

    async def write(offset: int, data: bytes) -> None:
        await guest.write(offset, data)
        model[offset : offset + len(data)] = data

    far = 6 * MIB
    await write(far, b"l" * 512)  # makes the L2 table of the write that will be left
    await write(0, random_bytes(1, 1900 * KIB))
    position = 1900 * KIB
    while allocator.end < 4096:  # what the refcount table of one cluster covers
        await write(position, b"p" * 512)
        position += 512
    await guest.flush()
    gate = gates.hold("disk.qcow2", "flush")
    # With the new table and its block, exactly what the new block covers.
    leaving = asyncio.create_task(guest.write(far + 512, b"z" * 512 * 61))
    await gate.reached.wait()
    leaving.cancel()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert node.driver.image.header.refcount_table_offset == 4097 * 512
    await write(position, b"q" * 4096)
    await check(ground, guest, bytes(model))
