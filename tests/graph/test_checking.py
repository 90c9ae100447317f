"""Repair of an open image whose refcounts lie at random: nothing that can be reached is lost, and guests go on."""

import asyncio
import random
from pathlib import Path

import pytest

from blockyard.base.units import MIB
from blockyard.node.graph import internal_snapshots
from blockyard.node.graph.checking import check_node
from blockyard.node.interface.internal_snapshots import SnapshotWish
from blockyard.node.interface.operations import untold
from tests.support.qcow2_images import assert_clean, qemu_check, qemu_content
from tests.support.yard import Yard, random_bytes, yard

pytestmark = pytest.mark.peer("qemu-img")

SIZE = 8 * MIB


async def lied_to(place: Yard, seed: int) -> bytes:
    """An image with a snapshot, some of whose refcounts are anything; its content."""
    await place.create_qcow2("a.qcow2", SIZE, cluster_size=4096)
    node = await place.open("qcow2", "a", "a.qcow2")
    user = place.use("a")
    await user.write(0, random_bytes(seed, 4 * MIB))
    await internal_snapshots.create(place.graph, node, SnapshotWish("one", 0))
    await user.write(MIB, random_bytes(seed + 1, MIB))
    place.graph.release(user)
    content = await place.content("a")
    await place.graph.close("a")
    path, numbers = place.folder / "a.qcow2", random.Random(seed)
    image = bytearray(path.read_bytes())
    table = int.from_bytes(image[48:56], "big")
    block = int.from_bytes(image[table : table + 8], "big")
    # Not those of the first clusters: an image whose header is free for all cannot be opened for writing.
    for entry in numbers.sample(range(40, 1400), 60):
        image[block + 2 * entry : block + 2 * entry + 2] = numbers.choice((0, 1, 2, 7)).to_bytes(2, "big")
    path.write_bytes(image)
    return content


@pytest.mark.parametrize("seed", range(6))
async def test_a_repair_loses_nothing_that_can_be_reached(seed: int, tmp_path: Path):
    async with yard(tmp_path) as place:
        content = await lied_to(place, seed)
        node = await place.open("qcow2", "a", "a.qcow2", options={"repair": True})
        seen = await check_node(place.graph, node, untold)
        told = qemu_check(tmp_path / "a.qcow2")
        assert (seen.corruptions > 0) == (told["corruptions"] > 0)
        report = await check_node(place.graph, node, untold, fix_errors=True)
        assert (report.corruptions, report.leaks, report.check_errors) == (0, 0, 0)
        assert await place.content("a") == content
        user = place.use("a")
        await user.write(6 * MIB, b"n" * MIB)
        await user.write(0, b"o" * MIB)
        place.graph.release(user)
        expected = b"o" * MIB + content[MIB : 6 * MIB] + b"n" * MIB + content[7 * MIB :]
        assert await place.content("a") == expected
        await internal_snapshots.revert(place.graph, node, "one")
        assert (await place.content("a"))[: 4 * MIB] == random_bytes(seed, 4 * MIB)
    assert_clean(tmp_path / "a.qcow2")


@pytest.mark.parametrize("turns", (1, 3, 8, 20, 60, 200))
async def test_a_repair_that_is_cancelled_leaves_an_image_to_go_on_with(turns: int, tmp_path: Path):
    async with yard(tmp_path) as place:
        content = await lied_to(place, 1)
        node = await place.open("qcow2", "a", "a.qcow2", options={"repair": True})
        repair = asyncio.ensure_future(check_node(place.graph, node, untold, fix_errors=True))
        for _ in range(turns):
            await asyncio.sleep(0)
        repair.cancel()
        await asyncio.gather(repair, return_exceptions=True)
        report = await check_node(place.graph, node, untold, fix_errors=True)
        assert (report.corruptions, report.leaks) == (0, 0)
        assert await place.content("a") == content
        user = place.use("a")
        await user.write(5 * MIB, b"n" * MIB)
        place.graph.release(user)
        assert (await place.content("a"))[: 5 * MIB] == content[: 5 * MIB]
    assert_clean(tmp_path / "a.qcow2")
    assert qemu_content(tmp_path / "a.qcow2")[: 4 * MIB] == content[: 4 * MIB]
