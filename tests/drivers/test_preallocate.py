"""Driver `preallocate`: the file is ahead of the data while somebody grows it, and ends with it afterwards."""

import asyncio
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import InvalidArgument, PermissionConflict
from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.preallocate import PreallocateDriver
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.modes import activate, inactivate
from blockyard.node.graph.node import Node
from blockyard.node.graph.user import RESIZER, User
from blockyard.node.interface.child import Child
from blockyard.node.interface.flags import FUA, NO_FALLBACK, Preallocation, Role
from blockyard.node.interface.permissions import ALL, Permissions
from tests.support import peers
from tests.support.contract import DriverContract
from tests.support.eventually import eventually
from tests.support.graphs import GraphGround, content
from tests.support.ground import DriverChild, Ground

GROWING = Permissions(ALL, ALL)


class PreallocateContract(DriverContract):
    async def prepare(self, ground: Ground) -> None:
        with (ground.root / "a.img").open("wb") as file:
            file.truncate(self.size)

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        return {"file": await ground.open("file", {"filename": "a.img"}, read_only=read_only)}


class TestPreallocateForWhoDoesNotGrow(PreallocateContract):
    """Without permission to write and resize it only passes on."""

    driver = "preallocate"


class TestPreallocate(PreallocateContract):
    driver = "preallocate"

    def options(self) -> dict[str, object]:
        return {"prealloc_align": 64 * KIB, "prealloc_size": 256 * KIB}

    async def node(self, ground: Ground, read_only: bool = False, **changed: object) -> DriverChild:
        node = await super().node(ground, read_only, **changed)
        node.driver.permitted(GROWING)
        return node

    @pytest.mark.parametrize("value", [0, -512, 100, 1 << 50])
    async def test_an_alignment_that_cannot_be_is_refused(self, ground: Ground, value: int):
        with pytest.raises(InvalidArgument) as refusal:
            await self.node(ground, prealloc_align=value)
        assert refusal.value.name == "prealloc_align"

    async def test_a_size_ahead_that_cannot_be_is_refused(self, ground: Ground):
        with pytest.raises(InvalidArgument):
            await self.node(ground, prealloc_size=-1)


# --- in a graph ------------------------------------------------------------------------------------------


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


async def grown(ground: GraphGround, size: int = 100_000, **options: Any) -> tuple[Node, User]:
    """The filter on a file of random bytes, and a user who may make it grow."""
    (ground.root / "a.img").write_bytes(random.Random(1).randbytes(size))
    file = NodeDefinition("file", "file", {"filename": "a.img"})
    options = {"prealloc_align": 64 * KIB, "prealloc_size": MIB, **options}
    node = await ground.graph.open(NodeDefinition("preallocate", "ahead", options, {"file": file}))
    return node, ground.graph.use("ahead", "job", "grower", writable=True, permissions=RESIZER)


def on_disk(ground: GraphGround) -> int:
    return (ground.root / "a.img").stat().st_size


async def append(user: User, data: bytes) -> None:
    """As a format's driver does it: past the end of its file."""
    offset = user.node.driver.size
    if not user.node.write_now(user.node, offset, data, 0):
        await super(User, user).write(offset, data)


async def test_the_file_is_ahead_of_the_data_and_later_writes_are_inline(ground: GraphGround):
    node, user = await grown(ground)
    assert not node.write_now(node, 100_000, b"x", 0)
    await append(user, b"x")
    assert (node.driver.size, on_disk(ground)) == (100_001, 1_179_648)
    assert on_disk(ground) % (64 * KIB) == 0
    assert node.write_now(node, 100_001, b"y" * 4096, 0)
    assert (node.driver.size, on_disk(ground)) == (104_097, 1_179_648)
    assert (await content(user, 100_000))[:2] == b"xy"


async def test_it_shows_only_its_data(ground: GraphGround):
    _, user = await grown(ground)
    await append(user, b"x")
    assert user.size == 100_001
    assert sum(extent.length for extent in await user.block_status(0, 100_001)) == 100_001


async def test_the_file_ends_with_the_data_when_the_grower_has_gone_and_others_may_write_then(ground: GraphGround):
    node, user = await grown(ground)
    await append(user, b"x")
    with pytest.raises(PermissionConflict):
        ground.graph.use("file", "session", "other", writable=True)
    ground.graph.release(user)
    assert node.driver.size == 100_001
    await eventually(lambda: on_disk(ground) == 100_001)
    await eventually(lambda: not node.children["file"].permissions.used)
    ground.graph.release(ground.graph.use("file", "session", "other", writable=True))


async def test_a_grower_that_returns_at_once_keeps_what_is_ahead(ground: GraphGround):
    node, user = await grown(ground)
    await append(user, b"x")
    ground.graph.release(user)
    user = ground.graph.use("ahead", "job", "again", writable=True, permissions=RESIZER)
    for _ in range(10):
        await asyncio.sleep(0)
    assert on_disk(ground) > 100_001
    assert node.write_now(node, 100_001, b"y", 0)
    assert await content(user, 100_000, 2) == b"xy"


async def test_closing_cuts_the_file(ground: GraphGround):
    _, user = await grown(ground)
    await append(user, b"x" * 5000)
    ground.graph.release(user)
    await ground.graph.close("ahead")
    assert on_disk(ground) == 105_000


async def test_zeroes_behind_the_data_cost_nothing_but_their_being_noted(ground: GraphGround):
    node, user = await grown(ground)
    file = node.children["file"].node
    await append(user, b"x")
    before = file.write_generation
    await super(User, user).zero(100_001, 50_000)
    assert (node.driver.size, file.write_generation) == (150_001, before)
    await append(user, b"y")
    assert await content(user, 100_000) == b"x" + bytes(50_000) + b"y"


async def test_a_write_among_such_zeroes_is_not_taken_for_zeroes_afterwards(ground: GraphGround):
    _, user = await grown(ground)
    await append(user, b"x")
    await super(User, user).zero(100_001, 50_000)
    await user.write(120_000, b"d" * 100)
    await super(User, user).zero(110_000, 60_000)
    assert await content(user, 100_000) == b"x" + bytes(69_999)


@pytest.mark.parametrize("flags", [0, FUA, NO_FALLBACK])
async def test_zeroes_far_behind_the_data_grow_the_node(ground: GraphGround, flags: int):
    node, user = await grown(ground)
    await super(User, user).zero(100_000, 5 * MIB, flags)
    assert node.driver.size == 100_000 + 5 * MIB
    assert await content(user, 100_000) == bytes(5 * MIB)


async def test_many_growers_at_once_lose_nothing(ground: GraphGround):
    node, user = await grown(ground, prealloc_size=64 * KIB)
    model = bytearray(await content(user))
    numbers, tasks = random.Random(5), []
    places = [100_000 + at * 3000 for at in range(400)]
    model.extend(bytes(places[-1] + 3000 - len(model)))
    numbers.shuffle(places)
    for at in places:
        data = numbers.randbytes(3000)
        model[at : at + 3000] = data
        if not node.write_now(node, at, data, 0):
            tasks.append(asyncio.ensure_future(super(User, user).write(at, data)))
    await asyncio.gather(*tasks)
    assert await content(user) == model
    ground.graph.release(user)
    await ground.graph.close("ahead")
    assert (ground.root / "a.img").read_bytes() == model


async def test_a_file_that_cannot_be_zeroed_ahead_is_written_as_ever(ground: GraphGround):
    disk = await ground.strict("disk", size=8192, can_zero=False, inline=1)
    node = await ground.graph.open(NodeDefinition("preallocate", "ahead", children={"file": "disk"}))
    user = ground.graph.use("ahead", "job", "grower", writable=True, permissions=RESIZER)
    await append(user, b"x" * 100)
    assert node.write_now(node, 8292, b"y" * 100, 0)
    assert disk.driver.size == node.driver.size == 8392
    assert (await content(user))[8192:] == b"x" * 100 + b"y" * 100


async def test_a_full_disk_is_told_by_the_write_and_not_by_growing_ahead(ground: GraphGround):
    disk = await ground.strict("disk", size=8192, inline=0)
    disk.driver.failures = {"zero": 1}  # type: ignore[attr-defined]
    await ground.graph.open(NodeDefinition("preallocate", "ahead", children={"file": "disk"}))
    user = ground.graph.use("ahead", "job", "grower", writable=True, permissions=RESIZER)
    await append(user, b"x" * 100)
    assert (await content(user))[8192:] == b"x" * 100


@pytest.mark.parametrize("preallocation", [Preallocation.OFF, Preallocation.FALLOC, Preallocation.FULL])
async def test_a_resize_counts_from_the_data(ground: GraphGround, preallocation: Preallocation):
    node, user = await grown(ground)
    await append(user, b"x")
    await user.truncate(200_000, preallocation)
    assert node.driver.size == 200_000
    assert await content(user, 100_001) == bytes(99_999)
    allocated = (ground.root / "a.img").stat().st_blocks * 512
    assert preallocation is Preallocation.OFF or allocated >= 200_000
    await user.truncate(50_000)
    await append(user, b"z")
    assert await content(user, 50_000) == b"z"
    ground.graph.release(user)
    await ground.graph.close("ahead")
    assert on_disk(ground) == 50_001


def test_who_may_not_resize_takes_nothing_from_others():
    driver = object.__new__(PreallocateDriver)
    driver._data_end = driver._file_end = 0
    above = Permissions(3, ALL)
    assert driver.child_permissions("file", Role.FILTERED, above, writable=True) == above


@pytest.mark.peer("qemu-img")
async def test_an_image_on_it_survives_a_crash_and_is_exact_after_a_close(ground: GraphGround):
    (ground.root / "a.qcow2").touch()
    peers.run("qemu-img", "create", "-q", "-f", "qcow2", ground.root / "a.qcow2", "64M")
    file = NodeDefinition("file", options={"filename": "a.qcow2"})
    ahead = NodeDefinition("preallocate", "ahead", {"prealloc_size": 8 * MIB}, {"file": file})
    disk = await ground.graph.open(NodeDefinition("qcow2", "disk", children={"file": ahead}))
    user = ground.use(disk)
    model, numbers = bytearray(64 * MIB), random.Random(2)
    for _ in range(60):
        offset = numbers.randrange(63 * MIB)
        data = numbers.randbytes(numbers.randrange(1, 100_000))
        await user.write(offset, data)
        model[offset : offset + len(data)] = data
    await user.flush()
    shutil.copy(ground.root / "a.qcow2", ground.root / "crashed.qcow2")
    (ground.root / "model.raw").write_bytes(model)
    peers.run("qemu-img", "check", "-q", ground.root / "crashed.qcow2")
    peers.run("qemu-img", "compare", "-q", ground.root / "crashed.qcow2", ground.root / "model.raw")
    ground.graph.release(user)
    data_end = ground.graph.get("ahead").driver.size
    assert (ground.root / "a.qcow2").stat().st_size > data_end
    await ground.graph.close("disk")
    if "ahead" in ground.graph.nodes:
        await ground.graph.close("ahead")
    peers.run("qemu-img", "check", "-q", ground.root / "a.qcow2")
    peers.run("qemu-img", "compare", "-q", ground.root / "a.qcow2", ground.root / "model.raw")
    assert (ground.root / "a.qcow2").stat().st_size <= data_end


async def test_a_file_that_is_handed_over_ends_with_its_data_and_grows_again_when_it_is_back(ground: GraphGround):
    (ground.root / "a.qcow2").touch()
    made = await ground.qcow2("made", "a.qcow2", 64 * MIB)
    await ground.graph.close(made.name)
    file = NodeDefinition("file", options={"filename": "a.qcow2"})
    ahead = NodeDefinition("preallocate", "ahead", {"prealloc_size": 8 * MIB}, {"file": file})
    disk = await ground.graph.open(NodeDefinition("qcow2", "disk", children={"file": ahead}))
    user = ground.use(disk)
    await user.write(0, b"x" * MIB)
    ground.graph.release(user)
    await inactivate(ground.graph, disk)
    assert (ground.root / "a.qcow2").stat().st_size < 2 * MIB
    await activate(ground.graph, disk)
    user = ground.use(disk)
    await user.write(MIB, b"y" * MIB)
    assert (ground.root / "a.qcow2").stat().st_size > 8 * MIB
    assert await content(user, 0, 2 * MIB) == b"x" * MIB + b"y" * MIB
