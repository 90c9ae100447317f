"""Dirty bitmaps that survive a crash, of every format: over the API, and with a real process that is killed."""

import asyncio
import json
import os
import random
import signal
from pathlib import Path

import pytest

from blockyard.base.errors import BitmapInconsistent, BlockError, OperationUnsupported, ResourceNotFound
from blockyard.client import Client
from blockyard.client.definitions import NO_NODE, file, memory, qcow2, raw
from blockyard.node.copying.spec import CopyKind, FinishAction, SessionSpec, SyncMode
from blockyard.node.core.heat import REGION, HeatLog, length_for
from tests.catalogue.test_kill import living
from tests.support import peers
from tests.support.node_calls import NodeHouse, node_house
from tests.support.qcow2_images import assert_clean
from tests.support.yard import work_off

KIB, MIB = 1 << 10, 1 << 20
SIZE = 64 * MIB


def house_at(folder: Path, **options):
    return node_house(folder, state_directory=str(folder / "state"), **options)


async def opened_raw(house: NodeHouse) -> None:
    house.raw_file("disk.raw", SIZE)
    await house.client.nodes.open(raw(file("disk.raw"), node_name="disk"))


async def dirty(client: Client, name: str = "b", node: str = "disk") -> list[tuple[int, int]]:
    return [tuple(extent) async for extent in client.bitmaps.extents(node, name)]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "state" / "bitmaps").iterdir())


async def test_a_bitmap_of_a_raw_file_comes_back_with_its_bits(tmp_path: Path):
    async with house_at(tmp_path) as house:
        await opened_raw(house)
        made = await house.client.bitmaps.add("disk", "b", persistent=True)
        assert made.persistent and not made.inconsistent
        await house.client.data.write("disk", 5 * MIB, b"x")
        await house.client.data.write_zeroes("disk", 20 * MIB, 30 * MIB)
        await house.client.data.discard("disk", 0, 65536)
        before = await dirty(house.client)
        assert before == [(0, 65536), (5 * MIB, 65536), (20 * MIB, 30 * MIB)]
    async with house_at(tmp_path) as house:
        found = await house.client.bitmaps.get("disk", "b")
        assert (found.persistent, found.recording, found.inconsistent) == (True, True, False)
        assert await dirty(house.client) == before
        await house.client.data.write("disk", 10 * MIB, b"x")
    async with house_at(tmp_path) as house:
        assert (10 * MIB, 65536) in await dirty(house.client)


async def test_what_is_done_to_a_guarded_bitmap_comes_back_too(tmp_path: Path):
    async with house_at(tmp_path) as house:
        await opened_raw(house)
        bitmaps = house.client.bitmaps
        for name in ("cleared", "off", "merged", "gone"):
            await bitmaps.add("disk", name, persistent=True, granularity_bytes=4096)
        await house.client.data.write("disk", MIB, b"x")
        await bitmaps.clear("disk", "cleared")
        await bitmaps.record("disk", "off", False)
        await bitmaps.clear("disk", "merged")
        await house.client.data.write("disk", 2 * MIB, b"x")
        await bitmaps.merge(("disk", "merged"), [("disk", "off")])
        await bitmaps.remove("disk", "gone")
    async with house_at(tmp_path) as house:
        assert await dirty(house.client, "cleared") == [(2 * MIB, 4096)]
        assert await dirty(house.client, "off") == [(MIB, 4096)]
        assert await dirty(house.client, "merged") == [(MIB, 4096), (2 * MIB, 4096)]
        assert not (await house.client.bitmaps.get("disk", "off")).recording
        with pytest.raises(ResourceNotFound):
            await house.client.bitmaps.get("disk", "gone")


async def test_files_go_with_their_bitmaps_and_with_their_node(tmp_path: Path):
    async with house_at(tmp_path) as house:
        await opened_raw(house)
        await house.client.bitmaps.add("disk", "a", persistent=True)
        await house.client.bitmaps.add("disk", "b", persistent=True)
        assert len(files(tmp_path)) == 3
        await house.client.bitmaps.remove("disk", "a")
        assert len(files(tmp_path)) == 2
        await house.client.nodes.close("disk")
        assert files(tmp_path) == []
        await house.client.nodes.open(raw(file("disk.raw"), node_name="disk"))
        await house.client.bitmaps.add("disk", "c", persistent=True)
        await house.client.bitmaps.remove("disk", "c")
        assert files(tmp_path) == []
        assert house.graph.get("disk").guard is None


async def test_files_that_nobody_names_are_swept_away(tmp_path: Path):
    async with house_at(tmp_path) as house:
        await opened_raw(house)
        await house.client.bitmaps.add("disk", "b", persistent=True)
        kept = files(tmp_path)
        (tmp_path / "state/bitmaps/0000aaaa").write_bytes(b"left by a crash")
    async with house_at(tmp_path):
        assert files(tmp_path) == kept


async def test_without_a_state_directory_there_is_nowhere_to_keep_one(house: NodeHouse):
    await opened_raw(house)
    with pytest.raises(OperationUnsupported):
        await house.client.bitmaps.add("disk", "b", persistent=True)
    assert await house.client.bitmaps.list("disk") == ()


async def test_a_bitmap_follows_its_nodes_size_into_the_next_life(tmp_path: Path):
    async with house_at(tmp_path) as house:
        await opened_raw(house)
        await house.client.bitmaps.add("disk", "b", persistent=True, granularity_bytes=512)
        await house.client.nodes.resize("disk", 40 * SIZE)
        await house.client.data.write("disk", 39 * SIZE, b"x")
        await house.client.nodes.resize("disk", SIZE, allow_shrink=True)
        await house.client.nodes.resize("disk", 40 * SIZE)
        await house.client.data.write("disk", 20 * SIZE, b"x")
    async with house_at(tmp_path) as house:
        assert await dirty(house.client) == [(20 * SIZE, 512)]


async def test_a_lost_file_makes_the_bitmap_inconsistent_and_keeps_nobody_else(tmp_path: Path):
    async with house_at(tmp_path) as house:
        await opened_raw(house)
        await house.client.bitmaps.add("disk", "b", persistent=True)
    for path in (tmp_path / "state/bitmaps").iterdir():
        path.unlink()
    async with house_at(tmp_path) as house:
        assert (await house.client.bitmaps.get("disk", "b")).inconsistent
        with pytest.raises(BitmapInconsistent):
            await dirty(house.client)
        await house.client.data.write("disk", 0, b"x")
        await house.client.bitmaps.remove("disk", "b")


async def test_after_a_power_cut_hot_regions_are_dirty_and_no_others(tmp_path: Path):
    async with house_at(tmp_path) as house:
        await opened_raw(house)
        await house.client.bitmaps.add("disk", "b", persistent=True)
        await house.client.data.write("disk", 5 * MIB, b"x")
        heat = house.graph.get("disk").guard.heat.name
    path = tmp_path / "state/bitmaps" / heat
    data = bytearray(path.read_bytes())
    log = HeatLog(memoryview(data)[: length_for(4096)])
    assert log.is_clean
    log.begin(b"another boot of it"[:16], clean=False)
    log.set(7, 3)
    path.write_bytes(data)
    async with house_at(tmp_path) as house:
        assert await dirty(house.client) == [(5 * MIB, 65536), (3 * REGION, REGION)]
    async with house_at(tmp_path) as house:  # and it is so for good
        assert await dirty(house.client) == [(5 * MIB, 65536), (3 * REGION, REGION)]


async def test_a_frozen_bitmap_comes_back_with_what_was_written_meanwhile(tmp_path: Path):
    async with house_at(tmp_path) as house:
        await opened_raw(house)
        await house.client.bitmaps.add("disk", "b", persistent=True)
        await house.client.data.write("disk", 0, b"x")
        bitmap = house.graph.get("disk").bitmaps["b"]
        bitmap.freeze("job/backup")
        await house.client.data.write("disk", MIB, b"x")
        assert bitmap.bits.count == bitmap.successor.count == 1
    async with house_at(tmp_path) as house:
        assert await dirty(house.client) == [(0, 65536), (MIB, 65536)]
        bitmap = house.graph.get("disk").bitmaps["b"]
        bitmap.freeze("job/backup")
        await house.client.data.write("disk", 2 * MIB, b"x")
        bitmap.thaw(None)
        await bitmap.settle()
    async with house_at(tmp_path) as house:
        assert await dirty(house.client) == [(2 * MIB, 65536)]


async def test_a_hand_over_presumes_that_everything_changes(tmp_path: Path):
    async with house_at(tmp_path) as house:
        await opened_raw(house)
        await house.client.bitmaps.add("disk", "b", persistent=True)
        await house.client.nodes.deactivate("disk")
        await house.client.nodes.activate("disk")
        assert await dirty(house.client) == [(0, SIZE)]


# --- processes that die ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["raw", "qcow2"])
async def test_a_killed_node_has_every_write_that_it_acknowledged_and_no_other(form: str, tmp_path: Path):
    numbers, written = random.Random(form), set[int]()
    async with living(tmp_path) as (node, client):
        await client.images.create(f"disk.{form}", SIZE, format=form)
        above = {"raw": raw(file("disk.raw"), node_name="disk"), "qcow2": None}[form]
        await client.nodes.open(above or qcow2(file("disk.qcow2"), backing=NO_NODE, node_name="disk"))
        await client.bitmaps.add("disk", "b", persistent=True, granularity_bytes=4096)
    for _ in range(3):
        async with living(tmp_path) as (node, client):
            assert await granules(client) == written
            under_way: set[int] = set()
            killing = asyncio.create_task(_kill_soon(node.pid, 0.05 + numbers.random() * 0.1))
            with pytest.raises(BlockError):
                while True:
                    granule = numbers.randrange(SIZE // 4096)
                    under_way = {granule}
                    await client.data.write("disk", granule * 4096, b"x" * 4096)
                    written.add(granule)
            await killing
            await node.process.wait()
        async with living(tmp_path) as (node, client):
            found = await granules(client)
            assert written <= found <= written | under_way
            written = found
    assert written


async def granules(client: Client) -> set[int]:
    return {
        granule
        for offset, length in await dirty(client)
        for granule in range(offset // 4096, (offset + length) // 4096)
    }


async def _kill_soon(pid: int, seconds: float) -> None:
    await asyncio.sleep(seconds)
    os.kill(pid, signal.SIGKILL)


async def test_an_image_that_was_stored_is_believed_rather_than_a_file(tmp_path: Path):
    """Killed after its node's bitmaps went to the image: what others do to the image counts."""
    async with house_at(tmp_path) as house:
        await house.client.images.create("disk.qcow2", SIZE, format="qcow2")
        await house.client.nodes.open(qcow2(file("disk.qcow2"), backing=NO_NODE, node_name="disk"))
        await house.client.bitmaps.add("disk", "b", persistent=True)
        await house.client.data.write("disk", 0, b"x")
        assert len(files(tmp_path)) == 2
        await house.client.nodes.deactivate("disk")
        assert files(tmp_path) == []
        await house.client.nodes.activate("disk")
        await house.client.data.write("disk", MIB, b"x")
        assert len(files(tmp_path)) == 2
    async with house_at(tmp_path) as house:
        assert await dirty(house.client) == [(0, 65536), (MIB, 65536)]
        assert len(files(tmp_path)) == 2
        await house.client.nodes.close("disk")
        assert files(tmp_path) == []


async def test_an_incremental_backup_leaves_a_guarded_bitmap_with_what_was_written_since(tmp_path: Path):
    async with house_at(tmp_path) as house:
        await opened_raw(house)
        await house.client.bitmaps.add("disk", "b", persistent=True)
        for number in range(2):
            await house.client.data.write("disk", (4 * number + 1) * MIB, bytes([number + 1]) * 4096)
            house.raw_file(f"target{number}.raw", SIZE)
            await house.client.nodes.open(raw(file(f"target{number}.raw"), node_name=f"target{number}"))
            spec = SessionSpec(
                f"s{number}",
                "job/b",
                CopyKind.BACKUP,
                "disk",
                f"target{number}",
                sync=SyncMode.BITMAP,
                bitmap="b",
            )
            session = await house.running.copies.create(spec, 1)
            await house.client.data.write("disk", (40 + number) * MIB, b"x")
            await work_off(session)
            await house.running.copies.finish(spec.session_id, 1, FinishAction.COMPLETE)
            written = (house.folder / f"target{number}.raw").read_bytes()
            assert written[(4 * number + 1) * MIB] == number + 1
            assert written[(40 + number) * MIB] == 0
            assert await dirty(house.client) == [((40 + number) * MIB, 65536)]
    async with house_at(tmp_path) as house:
        assert await dirty(house.client) == [(41 * MIB, 65536)]


async def killed(node) -> None:
    os.kill(node.pid, signal.SIGKILL)
    await node.process.wait()


def told_by_qemu(path: Path) -> dict[str, list[str]]:
    info = json.loads(peers.run("qemu-img", "info", "-U", "--output=json", path).stdout)
    return {each["name"]: sorted(each["flags"]) for each in info["format-specific"]["data"].get("bitmaps", [])}


@pytest.mark.peer("qemu-img")
async def test_a_bitmap_made_before_a_crash_goes_into_its_image_after_it(tmp_path: Path):
    path = tmp_path / "images" / "disk.qcow2"
    async with living(tmp_path) as (node, client):
        await client.images.create("disk.qcow2", SIZE, format="qcow2")
        await client.nodes.open(qcow2(file("disk.qcow2"), backing=NO_NODE, node_name="disk"))
        await client.bitmaps.add("disk", "b", persistent=True)
        await client.data.write("disk", MIB, b"x")
        await killed(node)
    assert told_by_qemu(path) == {}
    async with living(tmp_path) as (node, client):
        assert await dirty(client) == [(MIB, 65536)]
        await client.nodes.close("disk")
    assert told_by_qemu(path) == {"b": ["auto"]}
    assert_clean(path)


@pytest.mark.peer("qemu-img")
async def test_what_was_merged_into_an_images_bitmap_survives_a_crash_before_any_write(tmp_path: Path):
    async with living(tmp_path) as (node, client):
        await client.images.create("disk.qcow2", SIZE, format="qcow2")
        disk = qcow2(file("disk.qcow2"), backing=NO_NODE, node_name="disk")
        await client.nodes.open(disk)
        await client.bitmaps.add("disk", "b", persistent=True)
        await client.nodes.close("disk")
        await client.nodes.open(disk)
        await client.nodes.open(memory(SIZE, node_name="other"))
        await client.bitmaps.add("other", "o")
        await client.data.write("other", 7 * MIB, b"x")
        await client.bitmaps.merge(("disk", "b"), [("other", "o")])
        await killed(node)
    async with living(tmp_path) as (node, client):
        assert await dirty(client) == [(7 * MIB, 65536)]


@pytest.mark.peer("qemu-img")
async def test_what_others_did_to_a_stopped_services_image_counts(tmp_path: Path):
    path = tmp_path / "images" / "disk.qcow2"
    async with living(tmp_path) as (_, client):
        await client.images.create("disk.qcow2", SIZE, format="qcow2")
        await client.nodes.open(qcow2(file("disk.qcow2"), backing=NO_NODE, node_name="disk"))
        for name in ("b", "gone"):
            await client.bitmaps.add("disk", name, persistent=True)
        await client.data.write("disk", 0, b"x")
    peers.run("qemu-img", "bitmap", "--remove", path, "gone")
    peers.run("qemu-io", "-c", "write 1M 64k", path)
    async with living(tmp_path) as (_, client):
        assert await dirty(client) == [(0, 65536), (MIB, 65536)]
        assert [each.name for each in await client.bitmaps.list("disk")] == ["b"]
