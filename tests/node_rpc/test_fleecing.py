"""A point in time kept and read by a client: copy-before-write, snapshot-access and an NBD export ("fleecing")."""

import asyncio
import random
import shlex
from pathlib import Path

import pytest

from blockyard.base.errors import (
    InvalidArgument,
    NodeInUse,
    NotImplementedYet,
    OperationUnsupported,
    PermissionConflict,
    PointInTimeLost,
    RangeNotKept,
    ResourceNotFound,
    TransactionFailed,
)
from blockyard.client.definitions import (
    copy_before_write,
    file,
    generic,
    memory,
    qcow2,
    raw,
    snapshot_access,
)
from blockyard.v1 import bitmap_pb2, node_pb2
from blockyard.v1.node_pb2 import TransactionAction
from tests.bench.qsd import storage_daemon
from tests.support import peers
from tests.support.node_calls import NodeHouse, node_house

KIB, MIB = 1 << 10, 1 << 20
GRANULE = 64 * KIB
SIZE = 4 * MIB
OLD = bytes(MIB) + random.Random(3).randbytes(2 * MIB) + bytes(MIB)


def sparse(house: NodeHouse, name: str) -> None:
    """A file of OLD bytes, with holes for its zeroes."""
    with (house.folder / name).open("wb") as made:
        made.seek(MIB)
        made.write(OLD[MIB : 3 * MIB])
        made.truncate(SIZE)


async def disk(house: NodeHouse, name: str = "disk") -> None:
    """A raw disk of OLD bytes, with a guest's export `guest`."""
    sparse(house, f"{name}.raw")
    await house.client.nodes.open(raw(file(f"{name}.raw"), node_name=name))
    await house.client.exports.add_nbd(name, "guest", writable=True, addresses=[address(house)])


def address(house: NodeHouse) -> str:
    return f"unix:{house.folder.parent}/nbd.sock"


def uri(house: NodeHouse, export: str) -> str:
    return f"nbd+unix:///{export}?socket={house.folder.parent}/nbd.sock"


async def fleece(house: NodeHouse, **options: object) -> None:
    """The filter under the disk's users, and its snapshot exported as `past`."""
    target = memory(SIZE, node_name="target")
    definition = copy_before_write("disk", target, node_name="cbw", **options)  # type: ignore[arg-type]
    await house.client.nodes.insert_filter("disk", definition)
    await house.client.nodes.open(snapshot_access("cbw", node_name="past"))
    await house.client.exports.add_nbd("past", "past", addresses=[address(house)])


async def specific(house: NodeHouse, name: str = "cbw") -> dict[str, int]:
    state = await house.client.nodes.get(name)
    return {key: value.int_value or value.bool_value for key, value in state.format_specific.items()}


async def peer(*command: str | Path, check: bool = True) -> str:
    """A program of the field beside the service in this process; what it said."""
    result = await asyncio.to_thread(peers.run, *command, check=check)
    return result.stdout + result.stderr


GUEST = ("write -P 1 1m 100k", "write -z 1500k 300k", "discard 2m 256k", "write -P 2 4190208 4k", "flush")


@pytest.mark.peer("qemu-io", "nbdcopy", "nbdinfo")
async def test_a_backup_by_an_nbd_client_equals_the_disk_before_the_guest_wrote(house: NodeHouse, tmp_path: Path):
    await disk(house)
    await fleece(house)
    commands = [part for command in GUEST for part in ("-c", command)]
    await peer("qemu-io", "-f", "raw", *commands, uri(house, "guest"))
    assert (house.folder / "disk.raw").read_bytes() != OLD
    await peer("nbdcopy", uri(house, "past"), str(tmp_path / "copy.raw"))
    assert (tmp_path / "copy.raw").read_bytes() == OLD
    assert "hole,zero" in await peer("nbdinfo", "--map", uri(house, "past"))
    refused = await peer("qemu-io", "-r", "-f", "raw", "-c", "write 0 512", uri(house, "past"), check=False)
    assert "read-only" in refused or "not permitted" in refused


async def test_a_disk_of_layers_is_kept_whole_and_its_holes_are_told(house: NodeHouse):
    client = house.client
    sparse(house, "base.raw")
    await client.images.create("disk.qcow2", format="qcow2", backing_file="base.raw", backing_format="raw")
    await client.nodes.open(qcow2(file("disk.qcow2"), node_name="disk"))
    await client.images.create("target.qcow2", SIZE, format="qcow2")
    target = qcow2(file("target.qcow2"), node_name="target")
    await client.nodes.insert_filter("disk", copy_before_write("disk", target, node_name="cbw"))
    await client.nodes.open(snapshot_access("cbw", node_name="past"))
    await client.data.write("cbw", MIB - 5, b"x" * 100)
    await client.data.write("cbw", 3 * MIB, b"y" * GRANULE)
    assert await client.data.read("past", 0, SIZE) == OLD
    extents = [(each.offset_bytes, each.zero) async for each in client.data.block_status("past")]
    assert [zero for _, zero in extents] == [True, False, True]
    told = await specific(house)
    assert (told["granularity"], told["left-to-copy"], told["readable"]) == (GRANULE, SIZE - 3 * GRANULE, SIZE)


async def test_a_target_may_be_an_overlay_of_the_disk(house: NodeHouse):
    """The older way of fleecing: what the overlay does not hold is the disk's."""
    await disk(house)
    client = house.client
    await client.images.create("target.qcow2", SIZE, format="qcow2")
    await client.nodes.open(qcow2(file("target.qcow2"), backing="disk", node_name="target"))
    await client.nodes.insert_filter("disk", copy_before_write("disk", "target", node_name="cbw"))
    await client.nodes.open(snapshot_access("cbw", node_name="past"))
    await client.data.write("cbw", MIB, b"x" * 200 * KIB)
    assert await client.data.read("target", 0, SIZE) == OLD
    assert await client.data.read("past", 0, SIZE) == OLD


async def test_a_discard_of_the_snapshot_frees_what_was_read(house: NodeHouse):
    await disk(house)
    await fleece(house)
    await house.client.exports.add_nbd("past", "drop", writable=True, addresses=[address(house)])
    await house.client.data.discard("past", 0, 2 * MIB)
    assert (await specific(house))["left-to-copy"] == 2 * MIB
    with pytest.raises(RangeNotKept) as refused:
        await house.client.data.read("past", 2 * MIB - 1, 2)
    assert refused.value.node_name == "cbw"
    with pytest.raises(OperationUnsupported):
        await house.client.data.write("past", 0, b"x")


async def test_the_filter_stays_while_its_snapshot_is_open(house: NodeHouse):
    await disk(house)
    await fleece(house)
    with pytest.raises(NodeInUse) as refused:
        await house.client.nodes.remove_filter("cbw")
    assert "past" in str(refused.value)
    with pytest.raises(NodeInUse):
        await house.client.nodes.close("cbw")
    assert await house.client.data.read("past", 0, SIZE) == OLD
    await house.client.exports.remove("past")
    await house.client.nodes.close("past")
    await house.client.nodes.remove_filter("cbw")
    assert house.users("disk") == ["export/guest"]


async def test_a_reopen_that_would_lose_the_point_in_time_is_refused(house: NodeHouse):
    await disk(house)
    await fleece(house)
    reopen = house.client.nodes.reopen
    await house.client.nodes.open(memory(SIZE, node_name="other"))
    for definition, name in (
        (copy_before_write("disk", "other", node_name="cbw"), "cbw.target"),
        (copy_before_write("disk", "target", node_name="cbw", cbw_timeout=3), "cbw.cbw_timeout"),
        (snapshot_access("other", node_name="past"), "past.file"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await reopen([definition])
        assert refused.value.name == name
    await reopen([copy_before_write("disk", "target", node_name="cbw", labels={"for": "backup"})])
    await house.client.data.write("cbw", MIB, b"x")
    assert await house.client.data.read("past", 0, SIZE) == OLD


async def test_another_filter_above_leaves_the_snapshot_where_it_is(house: NodeHouse):
    await disk(house)
    await fleece(house)
    await house.client.nodes.insert_filter("cbw", generic("copy-on-read", {}, {"file": "cbw"}, node_name="upper"))
    assert "export/guest" in house.users("upper")
    await house.client.data.write("upper", MIB, b"x")
    assert await house.client.data.read("past", 0, SIZE) == OLD


async def test_nobody_writes_the_disk_past_the_filter(house: NodeHouse):
    await disk(house)
    await fleece(house)
    with pytest.raises(PermissionConflict) as refused:
        await house.client.data.write("disk", 0, b"x")
    assert "cbw" in str(refused.value)
    with pytest.raises(OperationUnsupported):
        await house.client.nodes.resize("cbw", MIB, allow_shrink=True)
    assert (await house.client.nodes.resize("cbw", 2 * SIZE)).size_bytes == 2 * SIZE
    assert (await house.client.nodes.get("past")).size_bytes == SIZE


async def test_a_filter_keeps_what_a_bitmap_of_the_same_transaction_marks(house: NodeHouse):
    client = house.client
    await disk(house)
    await client.bitmaps.add("disk", "since", granularity_bytes=GRANULE)
    await client.data.write("disk", GRANULE, b"x" * GRANULE)
    filter_ = copy_before_write("disk", memory(SIZE), node_name="cbw", bitmap_node="disk", bitmap_name="copy")
    merge = bitmap_pb2.MergeBitmapsRequest(
        target=bitmap_pb2.BitmapReference(node_name="disk", name="copy"),
        sources=[bitmap_pb2.BitmapReference(node_name="disk", name="since")],
    )
    create = bitmap_pb2.CreateBitmapRequest(node_name="disk", name="copy", granularity_bytes=GRANULE, disabled=True)
    insert = node_pb2.InsertFilterRequest(node_name="disk", filter=filter_)
    steps: list[TransactionAction] = [
        TransactionAction(create_bitmap=create),
        TransactionAction(merge_bitmaps=merge),
        TransactionAction(insert_filter=insert),
    ]
    with pytest.raises(TransactionFailed, match="no bitmap named 'copy'"):
        await client.nodes.transaction(steps[::-1])
    await client.nodes.transaction(steps)
    kept = (await client.nodes.get("cbw")).format_specific["left-to-copy"].int_value
    assert kept == GRANULE


async def test_the_bitmap_and_the_filter_change_at_one_instant(house: NodeHouse):
    """What a guest wrote before is in the backup, what it writes afterwards in the bitmap."""
    await disk(house)
    client = house.client
    await client.bitmaps.add("disk", "since", granularity_bytes=GRANULE)
    await client.data.write("disk", MIB, b"before")
    filter_ = copy_before_write("disk", memory(SIZE), node_name="cbw", bitmap_node="disk", bitmap_name="since")
    insert = node_pb2.InsertFilterRequest(node_name="disk", filter=filter_)
    clear = bitmap_pb2.ClearBitmapRequest(node_name="disk", name="since")
    await client.nodes.transaction([TransactionAction(insert_filter=insert), TransactionAction(clear_bitmap=clear)])
    await client.nodes.open(snapshot_access("cbw", node_name="past"))
    await client.data.write("cbw", MIB, b"after!")
    await client.data.write("cbw", 2 * MIB, b"after!")
    assert await client.data.read("past", MIB, 6) == b"before"
    with pytest.raises(RangeNotKept):
        await client.data.read("past", 2 * MIB, 6)
    (bitmap,) = await client.bitmaps.list("disk")
    assert bitmap.dirty_bytes == 2 * GRANULE


async def test_a_broken_snapshot_is_told_and_the_guest_goes_on(house: NodeHouse):
    await disk(house)
    client = house.client
    house.raw_file("t.raw", SIZE)
    rule = {"event": "pwritev", "errno": 28}
    broken = generic("blkdebug", {"inject-error": [rule]}, {"image": file("t.raw")}, node_name="target")
    filter_ = copy_before_write("disk", broken, node_name="cbw", on_cbw_error="break-snapshot")
    await client.nodes.insert_filter("disk", filter_)
    await client.nodes.open(snapshot_access("cbw", node_name="past"))
    await client.data.write("cbw", MIB, b"new")
    assert await client.data.read("disk", MIB, 3) == b"new"
    with pytest.raises(PointInTimeLost) as lost:
        await client.data.read("past", 0, 1)
    assert lost.value.node_name == "cbw"
    assert (await specific(house))["lost"] is True


async def test_bad_definitions_are_refused_before_anything_changes(house: NodeHouse):
    await disk(house)
    open_ = house.client.nodes.open
    await open_(memory(SIZE, node_name="target"))
    for definition, error in (
        (copy_before_write("disk", "disk"), InvalidArgument),
        (copy_before_write("disk", memory(SIZE - 1)), InvalidArgument),
        (copy_before_write("disk", "target", bitmap_name="b"), InvalidArgument),
        (copy_before_write("disk", "target", bitmap_node="disk", bitmap_name="b"), ResourceNotFound),
        (copy_before_write("disk", "target", min_cluster_size=5), InvalidArgument),
        (snapshot_access("disk"), OperationUnsupported),
        (generic("mirror-top", {}, {"file": "disk", "target": "target"}), NotImplementedYet),
    ):
        with pytest.raises(error):
            await open_(definition)
    assert house.users("disk") == ["export/guest"]
    assert house.users("target") == []


async def test_after_a_restart_the_snapshot_is_lost_by_name_and_the_guest_is_not(tmp_path: Path):
    kept = {"state_directory": str(tmp_path / "state")}
    async with node_house(tmp_path, **kept) as house:
        await disk(house)
        await house.client.bitmaps.add("disk", "since")
        await fleece(house, bitmap_node="disk", bitmap_name="since")
        await house.client.data.write("cbw", 0, b"first")
    async with node_house(tmp_path, **kept) as house:
        assert house.graph.kept.catalogue.failed == {}
        assert (await specific(house))["lost"] is True
        await house.client.data.write("cbw", 5, b"second")
        assert await house.client.data.read("disk", 0, 11) == b"firstsecond"
        with pytest.raises(PointInTimeLost) as lost:
            await house.client.data.read("past", 0, 1)
        assert "restarted" in lost.value.failure
        assert "export/guest" in house.users("cbw")


# --- beside QEMU -------------------------------------------------------------------------------------------------

GRANULES = SIZE // GRANULE


def scene(seed: int) -> tuple[list[str], list[tuple[int, int]]]:
    """A guest's commands for qemu-io, and ranges that the snapshot is asked for afterwards."""
    numbers = random.Random(seed)
    commands, looks = [], []
    for at in range(25):
        offset = numbers.randrange(0, SIZE - 512, 512)
        length = min(SIZE - offset, numbers.randrange(512, 300 * KIB, 512))
        kind = numbers.choice((f"write -P {at + 1}", "write -z", f"write -P {at + 1}"))
        commands.append(f"{kind} {offset} {length}")
    for _ in range(40):
        offset = numbers.randrange(0, SIZE - 512, 512)
        looks.append((offset, min(SIZE - offset, numbers.choice((512, 4096, 3 * GRANULE)))))
    return commands, looks


async def answers(folder: Path, socket: Path, commands: list[str], looks: list[tuple[int, int]]) -> list[str]:
    """What qemu-io hears of a snapshot after it was a guest: the bytes of each look, or the error."""
    guest, past = (f"nbd+unix:///{name}?socket={socket}" for name in ("guest", "past"))
    await peer("qemu-io", "-f", "raw", *(part for each in commands for part in ("-c", each)), guest)
    script = folder / "looks"
    script.write_text("".join(f"read -v {offset} {length}\n" for offset, length in looks))
    command = f"qemu-io -r -f raw {shlex.quote(past)} < {shlex.quote(str(script))}"
    told = await peer("sh", "-c", command, check=False)
    return [line for line in told.splitlines() if "ops; " not in line and "bytes at offset" not in line]


@pytest.mark.peer("qemu-storage-daemon", "qemu-io")
@pytest.mark.parametrize("with_bitmap", [False, True])
async def test_qemu_shows_the_same_bytes_and_refuses_the_same_reads(tmp_path: Path, with_bitmap: bool):
    commands, looks = scene(5 + with_bitmap)
    marks = [f"write -P 77 {at * 512 * KIB} 512" for at in (1, 3, 4)] if with_bitmap else []
    async with node_house(tmp_path) as house:
        await disk(house)
        options = {}
        if with_bitmap:
            await house.client.bitmaps.add("disk", "b", granularity_bytes=GRANULE)
            await peer("qemu-io", "-f", "raw", *(p for each in marks for p in ("-c", each)), uri(house, "guest"))
            options = {"bitmap_node": "disk", "bitmap_name": "b"}
        await fleece(house, **options)
        ours = await answers(tmp_path, tmp_path / "nbd.sock", commands, looks)
    theirs = await _answers_of_qemu(tmp_path / "qemu", commands, looks, marks)
    assert ours == theirs
    assert any("failed" in line for line in ours) is with_bitmap


async def _answers_of_qemu(
    folder: Path, commands: list[str], looks: list[tuple[int, int]], marks: list[str]
) -> list[str]:
    folder.mkdir()
    (folder / "disk.raw").write_bytes(OLD)
    (folder / "target.raw").write_bytes(bytes(SIZE))
    with storage_daemon(folder) as qmp:
        qmp("nbd-server-start", addr={"type": "unix", "data": {"path": f"{folder}/nbd.sock"}})
        for name in ("disk", "target"):
            qmp.open(name, folder / f"{name}.raw", "raw")
        options = {}
        if marks:
            qmp("block-dirty-bitmap-add", node="disk", name="b", granularity=GRANULE)
            qmp("block-export-add", type="nbd", id="early", name="early", node_name="disk", writable=True)
            early = f"nbd+unix:///early?socket={folder}/nbd.sock"
            await peer("qemu-io", "-f", "raw", *(part for each in marks for part in ("-c", each)), early)
            qmp("block-export-del", id="early")
            options = {"bitmap": {"node": "disk", "name": "b"}}
        qmp("blockdev-add", driver="copy-before-write", node_name="cbw", file="disk", target="target", **options)
        qmp("blockdev-add", driver="snapshot-access", node_name="past", file="cbw")
        qmp("block-export-add", type="nbd", id="guest", name="guest", node_name="cbw", writable=True)
        qmp("block-export-add", type="nbd", id="past", name="past", node_name="past")
        return await answers(folder, folder / "nbd.sock", commands, looks)
