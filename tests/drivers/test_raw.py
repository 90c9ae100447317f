"""Driver `raw`: a window onto its child, and the child's own size where none is named."""

import pytest

from blockyard.base.errors import BlockError, InvalidArgument, OperationUnsupported
from blockyard.base.units import KIB, MIB
from blockyard.node.interface.child import Child
from blockyard.node.interface.mapping import MapKind
from tests.support.contract import DriverContract
from tests.support.ground import DriverChild, Ground


class TestRaw(DriverContract):
    driver = "raw"

    async def prepare(self, ground: Ground) -> None:
        await ground.create("file", {"filename": "disk", "size": self.size})

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        return {"file": await ground.open("file", {"filename": "disk"}, read_only=read_only)}

    async def test_a_node_follows_its_growing_child(self, ground: Ground):
        node = await self.node(ground)
        await node.context.children["file"].write(3 * MIB, b"x")
        assert node.size == 3 * MIB + 1


class TestRawWindow(DriverContract):
    driver = "raw"
    grows_by_writing = False

    async def prepare(self, ground: Ground) -> None:
        await ground.create("file", {"filename": "disk", "size": 4 * MIB})

    def options(self) -> dict[str, object]:
        return {"offset": 68 * KIB, "size": self.size}

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        return {"file": await ground.open("file", {"filename": "disk"}, read_only=read_only)}

    async def test_a_node_can_be_resized_if_its_driver_says_so(self, ground: Ground):
        with pytest.raises(OperationUnsupported):
            await (await self.node(ground)).truncate(MIB // 2)


@pytest.fixture
async def ground(tmp_path):
    ground = Ground(tmp_path)
    yield ground
    await ground.leave()


async def disk(ground: Ground, size: int = MIB) -> DriverChild:
    return await ground.open("memory", {"size": size})


async def test_every_range_maps_to_the_window_in_the_child(ground: Ground):
    child = await disk(ground)
    node = await ground.open("raw", {"offset": 4096}, {"file": child})
    mapping = node.driver.lookup(100, 5000)
    assert (mapping.kind, mapping.child, mapping.offset, mapping.length, mapping.writable) == (
        MapKind.DATA,
        child,
        4196,
        5000,
        True,
    )


async def test_a_window_without_a_size_reaches_to_the_end(ground: Ground):
    child = await disk(ground)
    node = await ground.open("raw", {"offset": 4096}, {"file": child})
    assert node.size == MIB - 4096
    await child.truncate(2048)
    assert node.size == 0


@pytest.mark.parametrize(
    "options",
    [
        {"offset": -1},
        {"offset": MIB + 1},
        {"size": -1},
        {"size": MIB + 1},
        {"offset": 1, "size": MIB},
    ],
)
async def test_a_window_that_leaves_its_child_is_refused(ground: Ground, options: dict[str, object]):
    with pytest.raises(InvalidArgument):
        await ground.open("raw", options, {"file": await disk(ground)})


async def test_a_window_must_begin_where_the_child_can_be_addressed(ground: Ground):
    child = await disk(ground)
    child.driver.limits.request_alignment = 4096
    with pytest.raises(InvalidArgument) as refusal:
        await ground.open("raw", {"offset": 512}, {"file": child})
    assert refusal.value.name == "offset"


async def test_resizing_moves_the_end_of_the_child(ground: Ground):
    child = await disk(ground)
    node = await ground.open("raw", {"offset": 4096}, {"file": child})
    await node.truncate(8192)
    assert child.size == 12288


async def test_creating_gives_the_child_its_size(ground: Ground):
    child = await disk(ground, 0)
    await ground.create("raw", {"size": 5 * MIB}, {"file": child})
    assert child.size == 5 * MIB
    with pytest.raises(BlockError):
        await ground.create("raw", {"size": -1}, {"file": child})
