"""Another backing file under a layer: its guests see the same, by our reading and by QEMU's, live and at rest."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import GraphCycle, InvalidArgument, NodeInUse, OperationUnsupported, ResourceBusy
from blockyard.base.units import KIB, MIB
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.rebasing import rebase
from blockyard.node.interface.operations import untold
from tests.support.qcow2_images import assert_clean, qemu_content, qemu_create, qemu_write
from tests.support.yard import Yard, random_bytes, yard

pytestmark = pytest.mark.peer("qemu-img")

SIZE = 2 * MIB


def patched(base: bytes, seed: int, changes: int = 12) -> bytes:
    """The same with a few other sectors, some of them zero."""
    numbers, content = random.Random(seed), bytearray(base)
    for _ in range(changes):
        at = numbers.randrange(0, len(base) // 512) * 512
        length = min(len(base) - at, numbers.choice((512, 4096, 40_960)))
        content[at : at + length] = bytes(length) if numbers.random() < 0.4 else numbers.randbytes(length)
    return bytes(content)


def chain(place: Yard, old: bytes, new: bytes, *options: str, size: int = SIZE) -> None:
    """Two raw bases, and an overlay of the first with something in it."""
    place.raw_file("old.raw", old)
    place.raw_file("new.raw", new)
    qemu_create(place.folder / "top.qcow2", size, *options, backing=place.folder / "old.raw", fmt="raw")
    qemu_write(place.folder / "top.qcow2", "write -P 7 256k 100k", "write -z 700k 60k", "discard 900k 64k")


async def opened_chain(place: Yard) -> Any:
    below = NodeDefinition("raw", "old", children={"file": place.file("old.raw")}, read_only=True)
    await place.graph.open(NodeDefinition("raw", "new", children={"file": place.file("new.raw")}, read_only=True))
    return await place.open("qcow2", "top", "top.qcow2", backing=below)


@pytest.mark.parametrize(
    "options",
    [("cluster_size=4k",), ("cluster_size=64k",), ("compat=0.10", "cluster_size=4k"), ("cluster_size=512",)],
    ids=("4k", "64k", "version 2", "512"),
)
@pytest.mark.parametrize("lengths", [(SIZE, SIZE), (MIB, SIZE), (SIZE, MIB), (SIZE, 3 * MIB), (MIB + 512, MIB)])
async def test_guests_see_no_change(options: tuple[str, ...], lengths: tuple[int, int], tmp_path: Path):
    async with yard(tmp_path) as place:
        common = random_bytes(1, max(*lengths, SIZE))
        chain(place, common[: lengths[0]], patched(common, 2)[: lengths[1]], *options)
        before = qemu_content(tmp_path / "top.qcow2")
        node = await opened_chain(place)
        await rebase(place.graph, node, place.graph.get("new"), untold)
        assert await place.content("top") == before
        assert (node.backing.node.name, node.backing_filename) == ("new", "new.raw")
    assert_clean(tmp_path / "top.qcow2")
    (tmp_path / "old.raw").unlink()
    assert qemu_content(tmp_path / "top.qcow2") == before


async def test_only_clusters_that_differ_are_copied(tmp_path: Path):
    async with yard(tmp_path) as place:
        old = random_bytes(1, SIZE)
        new = bytearray(old)
        new[MIB + 100] ^= 1
        new[MIB + 8192] ^= 1
        chain(place, old, bytes(new), "cluster_size=4k")
        node = await opened_chain(place)
        assert await rebase(place.graph, node, place.graph.get("new"), untold) == 2 * 4096


async def test_what_two_chains_share_is_not_read(tmp_path: Path):
    """From the middle of a chain to its bottom: only what the middle holds is looked at."""
    async with yard(tmp_path) as place:
        place.raw_file("base.raw", random_bytes(1, SIZE))
        qemu_create(tmp_path / "mid.qcow2", SIZE, backing=tmp_path / "base.raw", fmt="raw")
        qemu_write(tmp_path / "mid.qcow2", "write -P 3 512k 64k")
        qemu_create(tmp_path / "top.qcow2", SIZE, backing=tmp_path / "mid.qcow2")
        before = qemu_content(tmp_path / "top.qcow2")
        base = NodeDefinition("raw", "base", children={"file": place.file("base.raw")}, read_only=True)
        mid = NodeDefinition(
            "qcow2", "mid", children={"file": place.file("mid.qcow2"), "backing": base}, read_only=True
        )
        node = await place.open("qcow2", "top", "top.qcow2", backing=mid)
        base_node = place.graph.get("base")
        copied = await rebase(place.graph, node, base_node, untold)
        assert copied == 64 * KIB
        assert node.backing.node is base_node
        assert await place.content("top") == before


async def test_an_image_is_rebased_to_nothing(tmp_path: Path):
    async with yard(tmp_path) as place:
        old = bytearray(SIZE)
        old[MIB : MIB + 8192] = random_bytes(1, 8192)
        chain(place, bytes(old), b"", "cluster_size=4k")
        before = qemu_content(tmp_path / "top.qcow2")
        node = await opened_chain(place)
        # Zeroes of the old chain are zeroes without it: nothing of them is stored.
        assert await rebase(place.graph, node, None, untold) == 8192
        assert node.backing is None and node.backing_filename == ""
        assert await place.content("top") == before
    assert qemu_content(tmp_path / "top.qcow2") == before


async def test_an_image_without_a_backing_file_gets_one(tmp_path: Path):
    """What it does not hold is zeroes, and stays that over any content, also if it is discarded meanwhile."""
    async with yard(tmp_path) as place:
        place.raw_file("new.raw", random_bytes(1, SIZE))
        qemu_create(tmp_path / "top.qcow2", SIZE, "cluster_size=4k")
        qemu_write(tmp_path / "top.qcow2", "write -P 7 256k 100k")
        before = qemu_content(tmp_path / "top.qcow2")
        node = await place.open("qcow2", "top", "top.qcow2")
        await place.graph.open(
            NodeDefinition("raw", "new", children={"file": place.file("new.raw")}, read_only=True)
        )
        await rebase(place.graph, node, place.graph.get("new"), untold)
        assert await place.content("top") == before
    assert_clean(tmp_path / "top.qcow2")
    assert qemu_content(tmp_path / "top.qcow2") == before


@pytest.mark.parametrize("options", [("cluster_size=4k",), ("compat=0.10", "cluster_size=4k")])
@pytest.mark.parametrize("seed", range(3))
async def test_a_guest_that_writes_zeroes_and_discards_meanwhile_sees_its_own(
    options: tuple[str, ...], seed: int, tmp_path: Path
):
    async with yard(tmp_path) as place:
        old = random_bytes(seed, SIZE)
        chain(place, old, patched(old, seed + 10, 60), *options)
        node = await opened_chain(place)
        model = bytearray(await place.content("top"))
        user = place.use("top")
        numbers = random.Random(seed)

        async def guest() -> None:
            for _ in range(150):
                length = numbers.choice((512, 4096, 20_480))
                offset = numbers.randrange(0, SIZE - length, 512)
                match numbers.randrange(4):
                    case 0:
                        await user.zero(offset, length)
                        model[offset : offset + length] = bytes(length)
                    case 1:
                        await user.discard(offset, length)
                        seen = bytearray(length)
                        await user.read(offset, memoryview(seen))
                        model[offset : offset + length] = seen
                    case _:
                        data = numbers.randbytes(length)
                        await user.write(offset, data)
                        model[offset : offset + length] = data
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(guest())
            group.create_task(rebase(place.graph, node, place.graph.get("new"), untold))
        assert await place.content("top") == bytes(model)
        place.graph.release(user)
    assert qemu_content(tmp_path / "top.qcow2") == bytes(model)


async def test_an_unsafe_rebase_changes_the_name_alone_and_all_of_the_content_may_be_another(tmp_path: Path):
    async with yard(tmp_path) as place:
        old = random_bytes(1, SIZE)
        chain(place, old, patched(old, 3), "cluster_size=4k")
        size = (tmp_path / "top.qcow2").stat().st_size
        node = await opened_chain(place)
        assert await rebase(place.graph, node, place.graph.get("new"), untold, unsafe=True) == 0
        assert (tmp_path / "top.qcow2").stat().st_size == size
        assert (await place.content("top"))[:512] == (tmp_path / "new.raw").read_bytes()[:512]
    assert qemu_content(tmp_path / "top.qcow2")[:512] == (tmp_path / "new.raw").read_bytes()[:512]


async def test_a_rebase_that_is_cancelled_leaves_the_old_chain_and_the_same_content(tmp_path: Path):
    async with yard(tmp_path) as place:
        old = random_bytes(1, SIZE)
        chain(place, old, patched(old, 3, 200), "cluster_size=4k")
        node = await opened_chain(place)
        before = await place.content("top")
        for turns in (1, 5, 20, 60, 150):
            task = asyncio.ensure_future(rebase(place.graph, node, place.graph.get("new"), untold))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert node.backing.node.name == ("old" if task.cancelled() else "new")
            assert await place.content("top") == before
        await rebase(place.graph, node, place.graph.get("new"), untold)
        assert await place.content("top") == before


async def test_what_cannot_be_rebased_is_refused_and_stays(tmp_path: Path):
    async with yard(tmp_path) as place:
        old = random_bytes(1, SIZE)
        chain(place, old, old, "cluster_size=4k")
        node = await opened_chain(place)
        graph = place.graph
        with pytest.raises(GraphCycle):
            await rebase(graph, node, node, untold)
        with pytest.raises(InvalidArgument):
            await rebase(graph, node, None, untold, backing_file="x")
        with pytest.raises(OperationUnsupported):
            await rebase(graph, graph.get("new"), node, untold)
        node.backing.frozen_reason = "job/1 works on this chain"
        with pytest.raises(NodeInUse, match="job/1"):
            await rebase(graph, node, graph.get("new"), untold)
        node.backing.frozen_reason = ""
        first = asyncio.ensure_future(rebase(graph, node, graph.get("new"), untold))
        await asyncio.sleep(0)
        with pytest.raises((NodeInUse, ResourceBusy)):
            await rebase(graph, node, graph.get("new"), untold)
        await first
        assert node.backing.frozen_reason == ""
        assert "#rebase" not in node.bitmaps
