"""Layers of unequal length, and others who use, change or close what a session works on."""

import asyncio
from pathlib import Path

import pytest

from blockyard.base.errors import BlockError, NodeInUse
from blockyard.node.copying.spec import CopyKind, FinishAction, Order, SessionSpec
from blockyard.node.graph import drain, surgery
from blockyard.node.graph.emptying import make_empty
from tests.support import peers
from tests.support.gated import Gates
from tests.support.scenes import GRANULE, chain, holders, job, raw_target
from tests.support.yard import Yard, random_bytes, work_off, yard

SIZE = 8 * GRANULE
EQUAL = (SIZE, SIZE, SIZE)
SHORT_MIDDLE = (SIZE, SIZE // 2, SIZE)


async def test_a_stream_over_a_short_layer_keeps_the_zeroes_past_its_end(ground: Yard) -> None:
    _, _, base = await chain(ground, SHORT_MIDDLE, base=(0, random_bytes(3, SIZE)), middle=(0, b"m" * 512))
    before = await ground.content("top")
    await ground.run(SessionSpec("j", "job/j", CopyKind.STREAM, "top", base=base.name))
    await ground.sessions.finish("j", 1, FinishAction.COMPLETE)
    assert await ground.content("top") == before


async def test_a_commit_of_a_short_layer_keeps_the_zeroes_past_its_end(ground: Yard) -> None:
    _, middle, base = await chain(ground, SHORT_MIDDLE, base=(0, random_bytes(3, SIZE)), middle=(0, b"m" * 512))
    before = await ground.content("top")
    await ground.run(SessionSpec("j", "job/j", CopyKind.COMMIT, middle.name, base.name))
    await ground.sessions.finish("j", 1, FinishAction.COMPLETE)
    assert await ground.content("top") == before


@pytest.mark.parametrize("kind", [CopyKind.MIRROR, CopyKind.BACKUP])
async def test_a_session_whose_filter_finds_no_place_leaves_nothing_behind(ground: Yard, kind: CopyKind) -> None:
    top, middle, _ = await chain(ground, EQUAL)
    await raw_target(ground, SIZE)
    await ground.sessions.create(SessionSpec("s", "job/s", CopyKind.STREAM, "top"), 1)
    before = holders(ground)
    with pytest.raises(BlockError):
        await ground.sessions.create(SessionSpec("j", "job/j", kind, middle.name, "target"), 1)
    assert holders(ground) == before
    assert not middle.bitmaps and not top.bitmaps and not middle.quiesced


async def test_layers_of_a_commit_stay_open_until_it_ends(ground: Yard) -> None:
    _, middle, base = await chain(ground, EQUAL)
    await ground.sessions.create(SessionSpec("j", "job/j", CopyKind.COMMIT, middle.name, base.name), 1)
    with pytest.raises(NodeInUse):
        await ground.graph.close("top")
    await ground.sessions.finish("j", 1, FinishAction.ABORT)
    await ground.graph.close("top")


@pytest.mark.parametrize("is_active", [False, True])
async def test_a_base_that_others_read_too_is_not_committed_into(ground: Yard, is_active: bool) -> None:
    for name, below in (("base", ""), ("a", "base"), ("b", "base"), ("c", "a")):
        backing = {"backing_file": f"{below}.qcow2", "backing_fmt": "qcow2"} if below else {}
        await ground.create_qcow2(f"{name}.qcow2", SIZE, **backing)
    await ground.open("qcow2", "base", "base.qcow2", read_only=True)
    for name in "ab":
        await ground.open("qcow2", name, f"{name}.qcow2", backing="base")
    if not is_active:
        await ground.open("qcow2", "c", "c.qcow2", backing="a")
    before = holders(ground)
    with pytest.raises(NodeInUse, match="node/b"):
        await ground.sessions.create(SessionSpec("j", "job/j", CopyKind.COMMIT, "a", "base"), 1)
    assert holders(ground) == before


@pytest.mark.parametrize("how", ["overlay", "replacement"])
async def test_nothing_comes_between_a_mirror_and_the_node_it_follows(ground: Yard, how: str) -> None:
    for name in ("source", "other"):
        await ground.create_qcow2(f"{name}.qcow2", SIZE)
        await ground.open("qcow2", name, f"{name}.qcow2")
    await raw_target(ground, SIZE)
    await ground.sessions.create(job(CopyKind.MIRROR), 1)
    change = surgery.insert_overlay if how == "overlay" else surgery.replace_node
    with pytest.raises(NodeInUse):
        await change(ground.graph, ground.graph.get("source"), ground.graph.get("other"))


async def test_the_chain_under_a_stream_is_neither_relinked_nor_emptied_by_others(ground: Yard) -> None:
    top, _, base = await chain(ground, EQUAL, middle=(0, b"m" * 512))
    before = await ground.content("top")
    await ground.run(SessionSpec("j", "job/j", CopyKind.STREAM, "top"))
    with pytest.raises(NodeInUse):
        await surgery.set_backing(ground.graph, top, base, None, header=False)
    with pytest.raises(NodeInUse):
        await make_empty(ground.graph, top)
    await ground.sessions.finish("j", 1, FinishAction.COMPLETE)
    assert await ground.content("top") == before


async def test_a_source_is_not_emptied_below_the_filter_of_its_backup(ground: Yard) -> None:
    top, _, _ = await chain(ground, EQUAL, top=(0, b"t" * 512))
    await raw_target(ground, SIZE)
    await ground.sessions.create(SessionSpec("j", "job/j", CopyKind.BACKUP, "top", "target"), 1)
    with pytest.raises(NodeInUse):
        await make_empty(ground.graph, top)


async def test_a_commit_does_not_pivot_while_a_backup_still_reads_the_top(ground: Yard) -> None:
    _, _, base = await chain(ground, EQUAL, base=(0, random_bytes(3, SIZE)))
    start = await ground.content("top")
    await raw_target(ground, SIZE)
    guest = ground.use("top")
    await ground.run(SessionSpec("c", "job/c", CopyKind.COMMIT, "top", base.name))
    backup = await ground.sessions.create(SessionSpec("b", "job/b", CopyKind.BACKUP, "top", "target"), 1)
    with pytest.raises(NodeInUse):
        await ground.sessions.finish("c", 1, FinishAction.COMPLETE)
    await guest.write(0, b"n" * 512)
    await work_off(backup)
    await ground.sessions.finish("b", 1, FinishAction.COMPLETE)
    assert await ground.content("target") == start
    await ground.sessions.finish("c", 1, FinishAction.COMPLETE)
    assert guest.node is base
    ground.graph.release(guest)


async def test_a_backup_holds_the_node_it_reads_when_a_mirror_moves_the_guest_away(
    ground: Yard, gates: Gates
) -> None:
    data = random_bytes(4, SIZE)
    ground.raw_file("source.raw", data)
    ground.raw_file("copy.raw", SIZE)
    await ground.open("raw", "source", "source.raw")
    await ground.open("raw", "copy", "copy.raw")
    await raw_target(ground, SIZE)
    guest = ground.use("source")
    backup = await ground.sessions.create(SessionSpec("b", "job/b", CopyKind.BACKUP, "source", "target"), 1)
    await ground.run(SessionSpec("m", "job/m", CopyKind.MIRROR, "source", "copy"))
    await ground.sessions.finish("m", 1, FinishAction.PIVOT)
    await guest.write(0, b"n" * 512)
    with pytest.raises(NodeInUse, match="job/b"):
        await ground.graph.close("source")
    await work_off(backup)
    await ground.sessions.finish("b", 1, FinishAction.COMPLETE)
    assert await ground.content("target") == data
    assert guest.node.name == "copy"
    ground.graph.release(guest)


async def test_a_mirror_does_not_take_the_node_from_under_another_mirror(ground: Yard) -> None:
    await chain(ground, EQUAL)
    for name in ("first", "second", "saved"):
        ground.raw_file(f"{name}.raw", SIZE)
        await ground.open("raw", name, f"{name}.raw")
    guest = ground.use("top")
    await ground.run(SessionSpec("m", "job/m", CopyKind.MIRROR, "top", "first"))
    await ground.run(SessionSpec("b", "job/b", CopyKind.BACKUP, "top", "saved"))
    await ground.run(SessionSpec("n", "job/n", CopyKind.MIRROR, "top", "second"))
    with pytest.raises(NodeInUse, match="job/m"):
        await ground.sessions.finish("n", 1, FinishAction.PIVOT)
    await guest.write(0, b"n" * 512)
    await ground.sessions.finish("m", 1, FinishAction.PIVOT)
    assert (await ground.content("first"))[:512] == b"n" * 512
    ground.graph.release(guest)


async def test_a_layer_that_leaves_the_chain_while_its_bytes_are_on_their_way_is_read_anew(ground: Yard) -> None:
    """The number of its descriptor belongs to another file by then."""
    data = random_bytes(5, SIZE)
    await chain(ground, EQUAL, base=(0, data))
    await raw_target(ground, SIZE)
    ground.raw_file("other.raw", b"secret" * SIZE)
    backup = await ground.sessions.create(SessionSpec("b", "job/b", CopyKind.BACKUP, "top", "target"), 1)
    stream = await ground.sessions.create(SessionSpec("s", "job/s", CopyKind.STREAM, "top"), 1)
    target = ground.graph.get("target")
    drain.begin(target)
    order = asyncio.create_task(backup.run(Order(1, SIZE)))
    while target.undrained is None:  # until the order has found its bytes and waits for the target
        await asyncio.sleep(0)
    await work_off(stream)
    await ground.sessions.finish("s", 1, FinishAction.COMPLETE)
    for number in range(3):
        await ground.open("raw", f"other{number}", "other.raw", read_only=True)
    drain.end(target)
    assert (await order).failure is None
    await work_off(backup)
    await ground.sessions.finish("b", 1, FinishAction.COMPLETE)
    assert await ground.content("target") == data


@pytest.mark.peer("qemu-img")
async def test_a_base_beneath_another_storage_root_is_named_so_that_it_is_found_again(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        peers.run("qemu-img", "create", "-q", "-f", "qcow2", folder / "base.qcow2", "1M")
    for name, below in (("middle", two / "base.qcow2"), ("top", Path("middle.qcow2"))):
        peers.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", one / f"{name}.qcow2")
    async with yard(one, roots=(one, two)) as ground:
        top = await ground.open("qcow2", "top", "top.qcow2")
        assert top.backing is not None and top.backing.node.backing is not None
        base = top.backing.node.backing.node
        await ground.run(SessionSpec("j", "job/j", CopyKind.STREAM, "top", base=base.name))
        await ground.sessions.finish("j", 1, FinishAction.COMPLETE)
        await ground.graph.close("top")
        top = await ground.open("qcow2", "top", "top.qcow2")
        assert top.backing is not None and top.backing.node.path == str(two / "base.qcow2")
