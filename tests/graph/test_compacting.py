"""Compaction under guests: the file becomes shorter, the content stays, and whoever is in the way is named."""

import asyncio
import random
from pathlib import Path

import pytest

from blockyard.base.errors import ImageCorrupt, NodeInUse, OperationUnsupported
from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.qcow2 import compacting
from blockyard.node.graph import internal_snapshots
from blockyard.node.graph.compacting import compact
from blockyard.node.interface.flags import MAY_UNMAP
from blockyard.node.interface.internal_snapshots import SnapshotWish
from blockyard.node.interface.operations import untold
from tests.support import peers
from tests.support.qcow2_images import assert_clean, qemu_content
from tests.support.yard import Yard, random_bytes, yard

pytestmark = pytest.mark.peer("qemu-img")


async def gaps(place: Yard, size: int = 16 * MIB) -> bytes:
    """Node "a" with data between gaps; its content."""
    await place.create_qcow2("a.qcow2", size)
    await place.open("qcow2", "a", "a.qcow2")
    user = place.use("a")
    await user.write(0, random_bytes(1, size))
    for at in range(0, size, 2 * MIB):
        await user.zero(at, MIB, MAY_UNMAP)
    await user.flush()
    place.graph.release(user)
    return await place.content("a")


async def test_the_file_becomes_shorter_and_shows_the_same(tmp_path: Path):
    async with yard(tmp_path) as place:
        before = await gaps(place)
        size = (tmp_path / "a.qcow2").stat().st_size
        told: list[str] = []
        found = await compact(place.graph, place.graph.get("a"), lambda phase, done, total: told.append(phase))
        after = (tmp_path / "a.qcow2").stat().st_size
        assert after < 9 * MIB and size > 16 * MIB
        assert (found.before, found.after) == (size, after) and found.moved > 0
        assert "moving" in told
        assert await place.content("a") == before
        assert_clean(tmp_path / "a.qcow2")
        again = await compact(place.graph, place.graph.get("a"), untold)
        assert again.moved == 0 and again.after <= after
    assert qemu_content(tmp_path / "a.qcow2") == before


@pytest.mark.parametrize("seed", range(3))
async def test_a_guest_that_writes_meanwhile_loses_nothing(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(compacting, "LEAST_BYTES", 512 * KIB)
    async with yard(tmp_path) as place:
        model = bytearray(await gaps(place))
        user, numbers, done = place.use("a"), random.Random(seed), False

        async def guest() -> None:
            while not done:
                length = numbers.choice((512, 4096, 70_144))
                offset = numbers.randrange(0, len(model) - length, 512)
                if numbers.random() < 0.3:
                    await user.zero(offset, length, MAY_UNMAP)
                    model[offset : offset + length] = bytes(length)
                else:
                    data = numbers.randbytes(length)
                    await user.write(offset, data)
                    model[offset : offset + length] = data
                if numbers.random() < 0.1:
                    await user.flush()
                await asyncio.sleep(0)

        writing = asyncio.ensure_future(guest())
        await compact(place.graph, place.graph.get("a"), untold, detect_zeroes=bool(seed % 2))
        done = True
        await writing
        assert await place.content("a") == bytes(model)
        place.graph.release(user)
    assert_clean(tmp_path / "a.qcow2")
    assert qemu_content(tmp_path / "a.qcow2") == bytes(model)


async def test_stored_zeroes_are_found_and_given_back(tmp_path: Path):
    async with yard(tmp_path) as place:
        await place.create_qcow2("a.qcow2", 8 * MIB)
        await place.open("qcow2", "a", "a.qcow2")
        user = place.use("a")
        await user.write(0, random_bytes(1, 3 * MIB) + bytes(3 * MIB) + random_bytes(2, 2 * MIB))
        place.graph.release(user)
        before = await place.content("a")
        assert (await compact(place.graph, place.graph.get("a"), untold)).zeroed == 0
        found = await compact(place.graph, place.graph.get("a"), untold, detect_zeroes=True)
        assert found.zeroed == 3 * MIB
        assert (tmp_path / "a.qcow2").stat().st_size < 6 * MIB
        assert await place.content("a") == before


async def test_a_compaction_that_is_cancelled_leaves_an_image_that_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(compacting, "LEAST_BYTES", 512 * KIB)
    async with yard(tmp_path) as place:
        before = await gaps(place)
        for turns in (1, 10, 40, 100, 200):
            task = asyncio.ensure_future(compact(place.graph, place.graph.get("a"), untold))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await place.content("a") == before
        await compact(place.graph, place.graph.get("a"), untold)
        assert await place.content("a") == before
    assert_clean(tmp_path / "a.qcow2")


async def test_a_snapshot_that_is_shown_stands_in_the_way_and_one_that_is_not_comes_along(tmp_path: Path):
    async with yard(tmp_path) as place:
        before = await gaps(place)
        node = place.graph.get("a")
        await internal_snapshots.create(place.graph, node, SnapshotWish("one", 0))
        await internal_snapshots.open_node(place.graph, node, "one", "shown")
        with pytest.raises(NodeInUse, match="node/shown"):
            await compact(place.graph, node, untold)
        assert await place.content("shown") == before
        await place.graph.close("shown")
        user = place.use("a")
        await user.discard(0, 16 * MIB)
        place.graph.release(user)
        await compact(place.graph, node, untold)
        await internal_snapshots.open_node(place.graph, node, "one", "shown")
        assert await place.content("shown") == before
    assert_clean(tmp_path / "a.qcow2")


async def test_the_whole_disk_is_discarded_and_its_file_is_nearly_empty_afterwards(tmp_path: Path):
    async with yard(tmp_path) as place:
        await gaps(place)
        user = place.use("a")
        await user.discard(0, 16 * MIB)
        await user.flush()
        assert [(each.zero, each.length) for each in await user.block_status(0, 16 * MIB)] == [(True, 16 * MIB)]
        place.graph.release(user)
        await compact(place.graph, place.graph.get("a"), untold)
        assert (tmp_path / "a.qcow2").stat().st_size < MIB
    assert_clean(tmp_path / "a.qcow2")


async def test_an_image_with_damaged_metadata_is_left_alone(tmp_path: Path):
    async with yard(tmp_path) as place:
        await gaps(place)
        await place.graph.close("a")
        path = tmp_path / "a.qcow2"
        image = bytearray(path.read_bytes())
        table = int.from_bytes(image[48:56], "big")
        block = int.from_bytes(image[table : table + 8], "big")
        image[block + 2 * 25 : block + 2 * 26] = bytes(2)
        path.write_bytes(image)
        node = await place.open("qcow2", "a", "a.qcow2")
        with pytest.raises(ImageCorrupt, match="errors"):
            await compact(place.graph, node, untold)


async def test_what_cannot_be_compacted_is_refused(tmp_path: Path):
    async with yard(tmp_path) as place:
        place.raw_file("a.raw", MIB)
        await place.open("raw", "plain", "a.raw")
        with pytest.raises(OperationUnsupported):
            await compact(place.graph, place.graph.get("plain"), untold)


async def test_qemu_goes_on_with_a_compacted_image(tmp_path: Path):
    async with yard(tmp_path) as place:
        before = await gaps(place)
        await compact(place.graph, place.graph.get("a"), untold)
    path = tmp_path / "a.qcow2"
    peers.run("qemu-img", "snapshot", "-c", "one", path)
    peers.run("qemu-io", "-c", "write -P 7 0 16M", path)
    peers.run("qemu-img", "snapshot", "-a", "one", path)
    peers.run("qemu-img", "snapshot", "-d", "one", path)
    assert_clean(path)
    assert qemu_content(path) == before
