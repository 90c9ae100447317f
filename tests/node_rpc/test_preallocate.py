"""A preallocating file over the API: as a file's node, and put in under a running image."""

import pytest

from blockyard.base.errors import InvalidArgument
from blockyard.client.definitions import file, preallocate, qcow2
from tests.support.eventually import eventually
from tests.support.node_calls import NodeHouse

KIB, MIB = 1 << 10, 1 << 20


def on_disk(house: NodeHouse) -> int:
    return (house.folder / "a.qcow2").stat().st_size


async def test_an_image_grows_by_large_steps_and_ends_with_its_data(house: NodeHouse):
    await house.client.images.create("a.qcow2", 64 * MIB, format="qcow2")
    ahead = preallocate(file("a.qcow2"), prealloc_size=8 * MIB, node_name="ahead")
    await house.client.nodes.open(qcow2(ahead, node_name="a"))
    await house.client.data.write("a", 0, b"x" * MIB)
    data = (await house.client.nodes.get("ahead")).size_bytes
    assert data < 2 * MIB < 8 * MIB < on_disk(house)
    await house.client.nodes.close("a")
    await eventually(lambda: on_disk(house) <= data)
    await house.client.nodes.close("ahead")
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
    assert await house.client.data.read("a", 0, MIB) == b"x" * MIB


async def test_it_can_be_put_in_under_an_image_that_is_in_use(house: NodeHouse):
    await house.client.images.create("a.qcow2", 64 * MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("a.qcow2", node_name="f"), node_name="a"))
    async with house.client.data.session("a") as session:
        await session.write(0, b"x" * 64 * KIB)
        await house.client.nodes.insert_filter("f", preallocate("f", prealloc_size=4 * MIB, node_name="ahead"))
        await session.write(MIB, b"y" * 64 * KIB)
        assert on_disk(house) > 4 * MIB
        await house.client.nodes.remove_filter("ahead")
        assert on_disk(house) < MIB
        await session.write(2 * MIB, b"z" * 64 * KIB)
        assert await session.read(MIB, 4) == b"yyyy"


@pytest.mark.parametrize("options", [{"prealloc_align": 100}, {"prealloc_size": -1}])
async def test_options_that_cannot_be_are_refused(house: NodeHouse, options: dict[str, int]):
    house.raw_file("f.raw", MIB)
    with pytest.raises(InvalidArgument):
        await house.client.nodes.open(preallocate(file("f.raw"), **options))
