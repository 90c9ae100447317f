"""The guard of bitmaps that survive: when a write waits for the disk, when not, and what a broken vault costs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.errors import VaultUnusable
from blockyard.base.units import KIB, MIB
from blockyard.node.core.heat import REGION
from blockyard.node.graph import recording
from blockyard.node.graph.bitmaps import Bitmap
from blockyard.node.graph.catalogue import Catalogue
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.environment import Environment
from blockyard.node.graph.graph import Graph
from blockyard.node.graph.node import Node
from blockyard.node.graph.user import User
from tests.support.ground import Ground
from tests.support.kept_graph import MemoryKeeper

SLOTS = 4
SIZE = 64 * MIB


class MemoryFile:
    """A file of a vault in memory that counts syncs, and can hold them or fail."""

    def __init__(self, vault: "MemoryVault", name: str) -> None:
        self.name = name
        self.vault = vault
        self.syncs = 0
        self.buffer = bytearray()

    def room(self, length: int) -> memoryview:
        if self.vault.is_full and length > len(self.buffer):
            raise VaultUnusable(self.name, "No space left on device")
        self.buffer = self.buffer[:length] + bytes(length - len(self.buffer[:length]))
        return memoryview(self.buffer)

    async def sync(self) -> None:
        self.syncs += 1
        await self.vault.gate.wait()
        if self.vault.is_broken:
            raise VaultUnusable(self.name, "Input/output error")

    def close(self) -> None:
        return


class MemoryVault:
    boot = b"sixteen bytes..."

    def __init__(self) -> None:
        self.files: dict[str, MemoryFile] = {}
        self.is_broken = self.is_full = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def create(self, length: int) -> MemoryFile:
        file = MemoryFile(self, f"f{len(self.files)}")
        file.room(length)
        self.files[file.name] = file
        return file

    async def open(self, name: str) -> MemoryFile:
        return self.files[name]

    def remove(self, name: str) -> None:
        self.files.pop(name, None)

    def sweep(self, kept: set[str]) -> None:
        return


class Scene:
    """A node in memory with a guarded bitmap."""

    def __init__(self, graph: Graph, vault: MemoryVault, node: Node, user: User, bitmap: Bitmap) -> None:
        self.graph, self.vault, self.node, self.user, self.bitmap = graph, vault, node, user, bitmap

    @property
    def heat(self) -> MemoryFile:
        return self.vault.files["f0"]

    @property
    def bits(self) -> MemoryFile:
        return self.vault.files["f1"]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    ground, vault = Ground(tmp_path), MemoryVault()
    environment = Environment(ground.storage, ground.pool, ground.clock, vault=vault, hot_bytes=SLOTS * REGION)
    graph = Graph(environment, Catalogue(MemoryKeeper()))
    node = await graph.open(NodeDefinition("memory", "m", {"size": SIZE}))
    bitmap = await recording.create_durably(graph, node, "b", 64 * KIB, persistent=True)
    user = graph.use("m", "test", "guest", writable=True)
    yield Scene(graph, vault, node, user, bitmap)
    vault.gate.set()
    graph.release(user)
    await graph.close_all()
    await ground.leave()


async def test_the_first_write_to_a_region_waits_for_the_log_and_the_next_ones_do_not(scene: Scene):
    assert not scene.user.write_now(0, b"x")
    await scene.user.write(0, b"x")
    syncs = scene.heat.syncs
    for offset in range(0, REGION, 64 * KIB):
        assert scene.user.write_now(offset, b"x" * 512)
    assert scene.heat.syncs == syncs


async def test_no_byte_reaches_the_node_before_its_region_is_durably_hot(scene: Scene):
    await scene.user.write(0, b"x")
    scene.vault.gate.clear()
    writing = asyncio.create_task(scene.user.write(10 * REGION, b"y"))
    for _ in range(20):
        await asyncio.sleep(0)
    content = bytearray(1)
    await scene.user.read(10 * REGION, memoryview(content))
    assert content == b"\0"
    scene.vault.gate.set()
    await writing
    await scene.user.read(10 * REGION, memoryview(content))
    assert content == b"y"


async def test_all_who_wait_share_one_sync_of_the_log(scene: Scene):
    await scene.user.write(0, b"x")
    scene.vault.gate.clear()
    before = scene.heat.syncs
    writers = [asyncio.create_task(scene.user.write(REGION * 2 + at * 64 * KIB, b"x")) for at in range(20)]
    for _ in range(20):
        await asyncio.sleep(0)
    scene.vault.gate.set()
    await asyncio.gather(*writers)
    assert scene.heat.syncs == before + 1


async def test_what_is_dirty_already_is_written_without_a_sync_wherever_it_is(scene: Scene):
    for offset in range(0, SIZE, REGION):
        await scene.user.write(offset, b"x")
    heat, bits = scene.heat.syncs, scene.bits.syncs
    for offset in range(0, SIZE, REGION):
        assert scene.user.write_now(offset, b"y")
    assert (scene.heat.syncs, scene.bits.syncs) == (heat, bits)


async def test_no_more_regions_are_hot_than_the_bound_allows(scene: Scene):
    guard = scene.node.guard
    assert guard is not None
    for offset in range(0, SIZE, REGION):
        await scene.user.write(offset, b"x")
        assert len(guard._hot) <= SLOTS
        assert len(guard._log.regions()) <= SLOTS


async def test_a_write_over_many_regions_is_marked_rather_than_heated(scene: Scene):
    await scene.user.write(0, b"x")
    before = scene.heat.syncs
    await scene.user.zero(REGION, 10 * REGION)
    assert scene.heat.syncs == before
    assert scene.bitmap.bits.dirty_bytes == 10 * REGION + 64 * KIB


async def test_when_the_vault_fails_bitmaps_are_given_up_and_guests_go_on(scene: Scene):
    await scene.user.write(0, b"x")
    scene.vault.is_broken = True
    await scene.user.write(10 * REGION, b"y")
    content = bytearray(1)
    await scene.user.read(10 * REGION, memoryview(content))
    assert content == b"y"
    assert scene.bitmap.inconsistent and not scene.bitmap.recording
    assert scene.node.guard is None and scene.vault.files == {}
    assert scene.user.write_now(11 * REGION, b"z")


async def test_a_node_that_outgrows_its_vault_loses_its_bitmap_and_nothing_else(scene: Scene):
    await scene.user.write(0, b"x")
    scene.vault.is_full = True
    await scene.user.truncate(100 * SIZE)
    assert scene.bitmap.inconsistent
    await scene.user.write(99 * SIZE, b"y")


async def test_a_vault_without_room_refuses_the_bitmap_and_leaves_nothing(scene: Scene):
    scene.vault.is_full = True
    with pytest.raises(VaultUnusable):
        await recording.create_durably(scene.graph, scene.node, "second", 512, persistent=True)
    assert list(scene.node.bitmaps) == ["b"]
    assert list(scene.vault.files) == ["f0", "f1"]
    await scene.user.write(0, b"x")


async def test_a_cancelled_writer_leaves_the_log_usable(scene: Scene):
    await scene.user.write(0, b"x")
    for number in range(1, 12):
        scene.vault.gate.clear()
        writing = asyncio.create_task(scene.user.write(number * REGION, b"y"))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        scene.vault.gate.set()
        await scene.user.write(number * REGION + 64 * KIB, b"z")
    guard = scene.node.guard
    assert guard is not None
    assert len(guard._hot) <= SLOTS and len(guard._hot) + len(guard._free) == 4096


async def test_two_bitmaps_share_one_log(scene: Scene):
    second = await recording.create_durably(scene.graph, scene.node, "c", 4 * KIB, persistent=True)
    await scene.user.write(0, b"x")
    assert len(scene.vault.files) == 3
    before = scene.heat.syncs
    await scene.user.write(REGION, b"x")
    assert scene.heat.syncs == before + 1
    assert scene.bitmap.bits.count == second.bits.count == 2


async def test_a_bitmap_that_does_not_record_makes_nobody_wait(scene: Scene):
    async with recording.changing(scene.graph, scene.node, "b"):
        recording.set_recording(scene.graph, scene.node, "b", False)
    await scene.user.write(0, b"x")
    before = scene.heat.syncs
    await scene.user.write(9 * REGION, b"x")
    assert scene.heat.syncs == before
    assert scene.bitmap.bits.count == 0
