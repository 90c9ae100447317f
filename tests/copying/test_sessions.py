"""Copy sessions over real images: what ends up where, and what readers and guests see meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from blockyard.base.errors import BlockError, InvalidArgument, NodeInUse, OwnerMismatch, ResourceExists
from blockyard.base.units import KIB, MIB
from blockyard.node.copying.session import Session
from blockyard.node.copying.spec import CopyKind, CopyMode, FinishAction, Order, SessionSpec, SyncMode
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.graph.bitmaps import Bitmap
from blockyard.node.graph.user import User
from tests.support import peers
from tests.support.yard import Yard, random_bytes, work_off, yard

SIZE = 8 * MIB


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Yard]:
    async with yard(tmp_path) as made:
        yield made


async def two_raws(ground: Yard) -> bytes:
    data = random_bytes(1, SIZE)
    ground.raw_file("source.raw", data)
    ground.raw_file("target.raw", SIZE)
    await ground.open("raw", "source", "source.raw")
    await ground.open("raw", "target", "target.raw")
    return data


async def chain(ground: Yard) -> bytes:
    """base <- middle <- top, each with a part of its own; the guest's view is returned."""
    view = bytearray(random_bytes(2, SIZE // 2) + bytes(SIZE // 2))
    base = await ground.create_qcow2("base.qcow2", SIZE // 2)
    for name, below in (("middle", "base"), ("top", "middle")):
        await ground.create_qcow2(f"{name}.qcow2", SIZE, backing_file=f"{below}.qcow2", backing_fmt="qcow2")
    assert base.exists()
    await fill(ground, "base", 0, bytes(view[: SIZE // 2]))
    for number, name in enumerate(("middle", "top")):
        offset = MIB + number * 3 * MIB + 12345
        piece = random_bytes(10 + number, 2 * MIB)
        view[offset : offset + len(piece)] = piece
        await fill(ground, name, offset, piece)
    await ground.open("qcow2", "top", "top.qcow2")
    return bytes(view)


async def fill(ground: Yard, name: str, offset: int, data: bytes) -> None:
    await ground.open("qcow2", "filling", f"{name}.qcow2")
    user = ground.use("filling")
    await user.write(offset, data)
    await user.flush()
    ground.graph.release(user)
    await ground.graph.close("filling")


async def write_at_random(user: User, model: bytearray, seed: int, count: int) -> None:
    """A guest: writes, zeroes and discards anywhere, at any alignment."""
    chance = Random(seed)
    for number in range(count):
        length = chance.choice((1, 512, 4096, 70_000))
        offset = chance.randrange(len(model) - length)
        if number % 5 == 4:
            await user.zero(offset, length)
            model[offset : offset + length] = bytes(length)
        else:
            piece = chance.randbytes(length)
            await user.write(offset, piece)
            model[offset : offset + length] = piece
        await asyncio.sleep(0)


async def test_a_mirror_under_writes_pivots_to_identical_bytes(ground: Yard) -> None:
    for mode in CopyMode:
        model = bytearray(await two_raws(ground))
        guest = ground.use("source")
        session = await ground.sessions.create(
            SessionSpec(f"m{mode}", "job/m", CopyKind.MIRROR, "source", "target", copy_mode=mode), 1
        )
        await asyncio.gather(write_at_random(guest, model, mode, 200), work_off(session, 64 * KIB))
        await ground.sessions.finish(f"m{mode}", 1, FinishAction.PIVOT)
        assert guest.node.name == "target"
        await write_at_random(guest, model, 99, 20)
        assert await ground.content("target") == bytes(model)
        ground.graph.release(guest)
        await ground.graph.close("source")
        await ground.graph.close("target")


async def test_a_detached_mirror_is_a_copy_of_that_instant(ground: Yard) -> None:
    model = bytearray(await two_raws(ground))
    guest = ground.use("source")
    session = await ground.run(SessionSpec("m", "job/m", CopyKind.MIRROR, "source", "target"))
    await write_at_random(guest, model, 3, 30)
    await ground.sessions.finish(session.spec.session_id, 1, FinishAction.DETACH)
    frozen = bytes(model)
    await write_at_random(guest, model, 4, 10)
    assert guest.node.name == "source"
    assert await ground.content("target") == frozen
    assert await ground.content("source") == bytes(model)


async def test_a_backup_under_writes_has_the_bytes_of_its_start(ground: Yard) -> None:
    start = await two_raws(ground)
    model = bytearray(start)
    guest = ground.use("source")
    session = await ground.sessions.create(SessionSpec("b", "job/b", CopyKind.BACKUP, "source", "target"), 1)
    await asyncio.gather(write_at_random(guest, model, 5, 200), work_off(session, 64 * KIB))
    await ground.sessions.finish("b", 1, FinishAction.COMPLETE)
    assert await ground.content("target") == start
    assert await ground.content("source") == bytes(model)
    assert guest.node.name == "source"


async def test_an_incremental_backup_copies_what_the_bitmap_says_and_clears_it(ground: Yard) -> None:
    await two_raws(ground)
    source = ground.graph.get("source")
    source.bitmaps["b0"] = bitmap = Bitmap("b0", DirtyBitmap(SIZE, 64 * KIB))
    source.record_bitmaps()
    guest = ground.use("source")
    await guest.write(3 * MIB, b"x" * 100_000)
    spec = SessionSpec("b", "job/b", CopyKind.BACKUP, "source", "target", sync=SyncMode.BITMAP, bitmap="b0")
    session = await ground.run(spec)
    await guest.write(5 * MIB, b"y" * 1000)
    await ground.sessions.finish("b", 1, FinishAction.COMPLETE)
    assert session.work.total.copied == 128 * KIB
    assert [tuple(item) for item in bitmap.bits.extents()] == [(5 * MIB, 64 * KIB)]
    assert (await ground.content("target"))[3 * MIB : 3 * MIB + 100_000] == b"x" * 100_000


async def test_a_failed_incremental_backup_leaves_the_bitmap_as_it_would_have_been(ground: Yard) -> None:
    await two_raws(ground)
    source = ground.graph.get("source")
    source.bitmaps["b0"] = bitmap = Bitmap("b0", DirtyBitmap(SIZE, 64 * KIB))
    source.record_bitmaps()
    guest = ground.use("source")
    await guest.write(0, b"x")
    spec = SessionSpec("b", "job/b", CopyKind.BACKUP, "source", "target", sync=SyncMode.BITMAP, bitmap="b0")
    await ground.run(spec)
    await guest.write(5 * MIB, b"y")
    await ground.sessions.finish("b", 1, FinishAction.ABORT)
    assert [item.offset for item in bitmap.bits.extents()] == [0, 5 * MIB]
    assert bitmap.owner == ""


@pytest.mark.peer("qemu-img")
async def test_a_stream_under_writes_leaves_no_backing_file_and_the_same_bytes(ground: Yard) -> None:
    model = bytearray(await chain(ground))
    guest = ground.use("top")
    session = await ground.sessions.create(SessionSpec("s", "job/s", CopyKind.STREAM, "top"), 1)
    await asyncio.gather(write_at_random(guest, model, 6, 100), work_off(session, 64 * KIB))
    await ground.sessions.finish("s", 1, FinishAction.COMPLETE)
    assert await ground.content("top") == bytes(model)
    ground.graph.release(guest)
    assert await ground.graph.close("top") and not ground.graph.nodes
    info = peers.run("qemu-img", "info", ground.folder / "top.qcow2").stdout
    assert "backing file" not in info
    peers.run("qemu-img", "check", ground.folder / "top.qcow2")


@pytest.mark.peer("qemu-img")
async def test_a_stream_to_a_base_keeps_the_base(ground: Yard) -> None:
    model = await chain(ground)
    top = ground.graph.get("top")
    base = top.children["backing"].node.children["backing"].node
    await ground.run(SessionSpec("s", "job/s", CopyKind.STREAM, "top", base=base.name))
    await ground.sessions.finish("s", 1, FinishAction.COMPLETE)
    assert top.children["backing"].node is base
    assert await ground.content("top") == model
    await ground.graph.close("top")
    info = peers.run("qemu-img", "info", ground.folder / "top.qcow2").stdout
    assert "backing file: base.qcow2" in info


@pytest.mark.peer("qemu-img")
async def test_a_commit_of_the_middle_goes_into_the_base_under_a_writing_guest(ground: Yard) -> None:
    model = bytearray(await chain(ground))
    top = ground.graph.get("top")
    middle = top.children["backing"].node
    base = middle.children["backing"].node
    guest = ground.use("top")
    spec = SessionSpec("c", "job/c", CopyKind.COMMIT, middle.name, base.name)
    session = await ground.sessions.create(spec, 1)
    await asyncio.gather(write_at_random(guest, model, 7, 60), work_off(session, 64 * KIB))
    await ground.sessions.finish("c", 1, FinishAction.COMPLETE)
    assert top.children["backing"].node is base and base.read_only
    assert await ground.content("top") == bytes(model)
    ground.graph.release(guest)
    await ground.graph.close("top")
    for name in ("top", "base"):
        peers.run("qemu-img", "check", ground.folder / f"{name}.qcow2")
    assert "backing file: base.qcow2" in peers.run("qemu-img", "info", ground.folder / "top.qcow2").stdout


async def test_a_commit_of_the_active_layer_moves_the_guest_to_the_base(ground: Yard) -> None:
    model = bytearray(await chain(ground))
    top = ground.graph.get("top")
    base = top.children["backing"].node.children["backing"].node
    guest = ground.use("top")
    session = await ground.sessions.create(SessionSpec("c", "job/c", CopyKind.COMMIT, "top", base.name), 1)
    await asyncio.gather(write_at_random(guest, model, 8, 60), work_off(session, 64 * KIB))
    await ground.sessions.finish("c", 1, FinishAction.COMPLETE)
    assert guest.node is base
    await write_at_random(guest, model, 9, 20)
    assert await ground.content(base.name) == bytes(model)


@pytest.mark.parametrize("kind", list(CopyKind))
async def test_an_aborted_session_leaves_the_graph_as_it_was(ground: Yard, kind: CopyKind) -> None:
    model = bytearray(await chain(ground))
    ground.raw_file("target.raw", SIZE)
    await ground.open("raw", "target", "target.raw")
    guest = ground.use("top")
    source, target = ("top", "target")
    if kind is CopyKind.COMMIT:
        middle = ground.graph.get("top").children["backing"].node
        source, target = middle.name, middle.children["backing"].node.name
    before = {name: sorted(node.holders()) for name, node in ground.graph.nodes.items()}
    session = await ground.sessions.create(
        SessionSpec("a", "job/a", kind, source, "" if kind is CopyKind.STREAM else target), 1
    )
    await session.run(Order(1, 64 * KIB))
    await write_at_random(guest, model, 10, 10)
    await ground.sessions.finish("a", 1, FinishAction.ABORT)
    assert {name: sorted(node.holders()) for name, node in ground.graph.nodes.items()} == before
    assert guest.node.name == "top"
    assert await ground.content("top") == bytes(model)


async def test_sync_none_mirrors_new_writes_only(ground: Yard) -> None:
    data = await two_raws(ground)
    guest = ground.use("source")
    spec = SessionSpec("m", "job/m", CopyKind.MIRROR, "source", "target", sync=SyncMode.NONE)
    session = await ground.run(spec)
    assert session.work.total.copied == 0
    await guest.write(0, b"new")
    await ground.sessions.finish(session.spec.session_id, 1, FinishAction.DETACH)
    assert await ground.content("target") == b"new" + data[3 : 64 * KIB] + bytes(SIZE - 64 * KIB)


async def test_sync_top_copies_what_the_top_layer_holds(ground: Yard) -> None:
    await chain(ground)
    await ground.create_qcow2("copy.qcow2", SIZE, backing_file="middle.qcow2", backing_fmt="qcow2")
    await ground.open("qcow2", "copy", "copy.qcow2")
    session = await ground.run(SessionSpec("m", "job/m", CopyKind.MIRROR, "top", "copy", sync=SyncMode.TOP))
    await ground.sessions.finish(session.spec.session_id, 1, FinishAction.DETACH)
    assert session.work.total.copied < 3 * MIB
    assert await ground.content("copy") == await ground.content("top")


async def test_a_compressed_backup_is_smaller_and_equal(ground: Yard) -> None:
    data = (random_bytes(1, 4096) + bytes(60 * KIB)) * (SIZE // (64 * KIB))
    ground.raw_file("source.raw", data)
    await ground.open("raw", "source", "source.raw")
    path = await ground.create_qcow2("target.qcow2", SIZE)
    await ground.open("qcow2", "target", "target.qcow2")
    session = await ground.run(SessionSpec("b", "job/b", CopyKind.BACKUP, "source", "target", compress=True))
    await ground.sessions.finish("b", 1, FinishAction.COMPLETE)
    assert session.work.total.copied == SIZE
    assert await ground.content("target") == data
    assert path.stat().st_size < SIZE // 4


async def test_a_sparse_source_costs_its_data_and_not_its_size(ground: Yard) -> None:
    await ground.create_qcow2("source.qcow2", 1 << 40)
    await ground.create_qcow2("target.qcow2", 1 << 40)
    await ground.open("qcow2", "source", "source.qcow2")
    await ground.open("qcow2", "target", "target.qcow2")
    guest = ground.use("source")
    await guest.write(700 << 30, b"x" * MIB)
    session = await ground.sessions.create(SessionSpec("m", "job/m", CopyKind.MIRROR, "source", "target"), 1)
    orders = 0
    while (await session.run(Order(1, 8 * MIB))).remaining:
        orders += 1
        assert orders < 10
    await ground.sessions.finish(session.spec.session_id, 1, FinishAction.PIVOT)
    assert session.work.total.copied == MIB
    data = bytearray(MIB)
    await guest.read(700 << 30, memoryview(data))
    assert data == b"x" * MIB


async def test_an_older_incarnation_of_the_owner_is_refused(ground: Yard) -> None:
    await two_raws(ground)
    spec = SessionSpec("m", "job/m", CopyKind.MIRROR, "source", "target")
    await ground.sessions.create(spec, 5)
    await ground.sessions.create(spec, 7)
    with pytest.raises(OwnerMismatch):
        await ground.sessions.finish("m", 5, FinishAction.PIVOT)


async def test_the_same_id_for_another_session_is_refused(ground: Yard) -> None:
    await two_raws(ground)
    await ground.sessions.create(SessionSpec("m", "job/m", CopyKind.MIRROR, "source", "target"), 1)
    with pytest.raises(ResourceExists):
        await ground.sessions.create(SessionSpec("m", "job/m", CopyKind.BACKUP, "source", "target"), 1)


async def test_a_repeated_finish_gets_the_same_answer(ground: Yard) -> None:
    await two_raws(ground)
    await ground.run(SessionSpec("m", "job/m", CopyKind.MIRROR, "source", "target"))
    first = await ground.sessions.finish("m", 1, FinishAction.PIVOT)
    again = await ground.sessions.finish("m", 1, FinishAction.PIVOT)
    assert first is again and again.finished is FinishAction.PIVOT


async def refused(ground: Yard, spec: SessionSpec) -> BlockError:
    before = {name: sorted(node.holders()) for name, node in ground.graph.nodes.items()}
    with pytest.raises(BlockError) as problem:
        await ground.sessions.create(spec, 1)
    assert {name: sorted(node.holders()) for name, node in ground.graph.nodes.items()} == before
    return problem.value


async def test_a_target_that_is_too_small_is_refused(ground: Yard) -> None:
    await two_raws(ground)
    ground.raw_file("small.raw", SIZE // 2)
    await ground.open("raw", "small", "small.raw")
    problem = await refused(ground, SessionSpec("m", "job/m", CopyKind.MIRROR, "source", "small"))
    assert isinstance(problem, InvalidArgument) and problem.name == "target_node_name"


async def test_a_base_that_is_not_in_the_chain_is_refused(ground: Yard) -> None:
    await chain(ground)
    await two_raws(ground)
    problem = await refused(ground, SessionSpec("s", "job/s", CopyKind.STREAM, "top", base="source"))
    assert isinstance(problem, InvalidArgument) and problem.name == "base_node_name"


async def test_two_jobs_cannot_change_one_chain(ground: Yard) -> None:
    await chain(ground)
    await ground.sessions.create(SessionSpec("s", "job/s", CopyKind.STREAM, "top"), 1)
    problem = await refused(ground, SessionSpec("s2", "job/s2", CopyKind.STREAM, "top"))
    assert isinstance(problem, NodeInUse) and "job/s" in problem.owners


async def test_two_backups_of_one_source_end_in_any_order(ground: Yard) -> None:
    start = await two_raws(ground)
    ground.raw_file("second.raw", SIZE)
    await ground.open("raw", "second", "second.raw")
    guest, model = ground.use("source"), bytearray(start)
    sessions: list[Session] = []
    for name, target in (("b1", "target"), ("b2", "second")):
        sessions.append(
            await ground.sessions.create(SessionSpec(name, f"job/{name}", CopyKind.BACKUP, "source", target), 1)
        )
    await write_at_random(guest, model, 11, 40)
    for name, session in (("b1", sessions[0]), ("b2", sessions[1])):
        await work_off(session)
        await ground.sessions.finish(name, 1, FinishAction.COMPLETE)
        await write_at_random(guest, model, 12, 10)
    assert await ground.content("target") == start
    assert await ground.content("second") == start
    assert guest.node.name == "source" and not guest.node.implicit
