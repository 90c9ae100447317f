"""Snapshot tables that lie, names that are no text, and VM states where QEMU has them."""

import struct
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from blockyard.base.errors import BlockError, InvalidArgument
from blockyard.base.units import KIB, MIB
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2.limits import MAX_SNAPSHOTS
from blockyard.node.interface.internal_snapshots import SnapshotWish
from tests.drivers.qcow2.test_qcow2_snapshot_model import shown
from tests.support import peers
from tests.support.ground import Ground
from tests.support.qcow2_images import (
    Surgeon,
    assert_clean,
    driver_of,
    opened,
    qemu_content,
    qemu_create,
    qemu_write,
)

pytestmark = [pytest.mark.peer("qemu-img"), pytest.mark.peer("qemu-io")]

COUNT_AT, OFFSET_AT = 60, 64
"""In the header: number of snapshots, offset of their table."""
NAME_SIZE_AT, EXTRA_SIZE_AT, RECORD = 14, 36, 40
"""In a record: sizes of name and extra data, and of the fixed part."""


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    await ground.leave()


def image(ground: Ground, name: str = "one") -> Path:
    """With one snapshot, whose data the disk has overwritten in part."""
    path = ground.root / "disk"
    qemu_create(path, MIB, "cluster_size=4k")
    qemu_write(path, "write -P 1 0 64k")
    peers.run("qemu-img", "snapshot", "-c", name, path)
    qemu_write(path, "write -P 2 16k 16k")
    return path


def table_of(surgeon: Surgeon) -> int:
    return surgeon.get(OFFSET_AT)


Lie = Callable[[Surgeon], None]
LIES: dict[str, Lie] = {
    "more snapshots than may be": lambda s: s.put(COUNT_AT, MAX_SNAPSHOTS + 1, ">I"),
    "four thousand million snapshots": lambda s: s.put(COUNT_AT, (1 << 32) - 1, ">I"),
    "more snapshots than records": lambda s: s.put(COUNT_AT, 60_000, ">I"),
    "a table past the end": lambda s: s.put(OFFSET_AT, 1 << 40),
    "a table at no cluster": lambda s: s.put(OFFSET_AT, table_of(s) + 8),
    "a table at the end of all offsets": lambda s: s.put(OFFSET_AT, (1 << 64) - 4096),
    "extra data of a gigabyte": lambda s: s.put(table_of(s) + EXTRA_SIZE_AT, 1 << 30, ">I"),
    "a name longer than the table": lambda s: s.put(table_of(s) + NAME_SIZE_AT, 65_535, ">H"),
    "an L1 table of absurd length": lambda s: s.put(table_of(s) + 8, (1 << 32) - 1, ">I"),
    "an L1 table at no cluster": lambda s: s.put(table_of(s), s.get(table_of(s)) + 512),
    "an L1 table past all offsets": lambda s: s.put(table_of(s), 1 << 62),
}
LATER_LIES: dict[str, Lie] = {
    "an L1 table past the end of the file": lambda s: s.put(table_of(s), 1 << 40),
    "a disk of 2^63 bytes": lambda s: s.put(table_of(s) + RECORD + 8, 1 << 63),
    "a disk of half a sector": lambda s: s.put(table_of(s) + RECORD + 8, 256),
    "an L2 table past the end": lambda s: s.put(s.get(table_of(s)), 1 << 40),
    "an L2 table at no cluster": lambda s: s.put(s.get(table_of(s)), 512),
    "the refcount table for an L1 table": lambda s: s.put(table_of(s), s.header.refcount_table_offset),
    "the refcount table for an L2 table": lambda s: s.put(s.get(table_of(s)), s.header.refcount_table_offset),
    "the disk's L1 table": lambda s: s.put(table_of(s), s.header.l1_table_offset),
    "the header for an L1 table": lambda s: s.put(table_of(s), 0),
}
"""What is noticed only when the snapshot is looked at."""


@pytest.mark.parametrize("lie", LIES)
async def test_a_table_that_lies_is_refused_at_opening(lie: str, ground: Ground):
    surgeon = Surgeon(image(ground))
    LIES[lie](surgeon)
    surgeon.save()
    begun = time.monotonic()
    with pytest.raises(BlockError):
        await opened(ground, "disk")
    assert time.monotonic() - begun < 1
    assert surgeon.path.read_bytes() == surgeon.data


@pytest.mark.parametrize("verb", ("create", "delete", "revert"))
@pytest.mark.parametrize("lie", LATER_LIES)
async def test_a_snapshot_that_lies_harms_neither_the_disk_nor_metadata(lie: str, verb: str, ground: Ground):
    """It is refused, or what is asked can be done; then the image is not worse than it was."""
    path = image(ground)
    before = qemu_content(path)
    surgeon = Surgeon(path)
    LATER_LIES[lie](surgeon)
    surgeon.save()
    begun = time.monotonic()
    done = False
    try:
        node = await opened(ground, "disk")
        driver = driver_of(node)
        calls = {
            "create": lambda: driver.create_snapshot(SnapshotWish("two", 0)),
            "delete": lambda: driver.delete_snapshot("1"),
            "revert": lambda: driver.revert_to_snapshot("1"),
        }
        await calls[verb]()
        done = True
    except BlockError:
        pass
    assert time.monotonic() - begun < 1
    await ground.close_all()
    if verb != "revert" or not done:
        read = peers.run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, f"{path}.raw", check=False)
        assert read.returncode != 0 or Path(f"{path}.raw").read_bytes() == before


async def test_names_that_are_no_text_are_kept_and_found_by_id(ground: Ground):
    surgeon = Surgeon(image(ground, "nine-byte"))
    at = surgeon.data.index(b"nine-byte", table_of(surgeon))
    surgeon.data[at : at + 9] = b"\xff\xfe\x80 tail\xc3"
    surgeon.save()
    node = await opened(ground, "disk")
    await driver_of(node).create_snapshot(SnapshotWish("two", 0))
    assert await shown(ground, "1") == b"\1" * 64 * KIB + bytes(MIB - 64 * KIB)
    assert b"\xff\xfe\x80 tail\xc3" in surgeon.path.read_bytes()
    await driver_of(node).delete_snapshot("1")
    assert [each.name for each in driver_of(node).snapshots()] == ["two"]
    await ground.close_all()
    assert_clean(surgeon.path)


# --- VM states -------------------------------------------------------------------------------------------


def with_size(path: Path, size: int) -> None:
    """The same image with another size of the disk: what was VM state is then the guest's, and the reverse."""
    with path.open("r+b") as file:
        file.seek(hdr.SIZE_AT)
        file.write(struct.pack(">Q", size))


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 100_000):
        yield data[at : at + 100_000]


def start_of(cluster: int, size: int = MIB) -> int:
    """qcow2_vm_state_offset: the next L1 entry after the disk."""
    reach = cluster * (cluster // 8)
    return -(-size // reach) * reach


@pytest.mark.parametrize("cluster", (4 * KIB, 64 * KIB))
async def test_qemu_finds_our_vm_state_behind_the_disk(cluster: int, ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, MIB, f"cluster_size={cluster}")
    node = await opened(ground, "disk")
    state = bytes(range(1, 256)) * 5000
    assert await driver_of(node).save_vm_state(pieces(state)) == len(state)
    await driver_of(node).create_snapshot(SnapshotWish("one", 0, vm_state_bytes=len(state)))
    await driver_of(node).revert_to_snapshot("1")
    await ground.close_all()
    assert_clean(path)
    start = start_of(cluster)
    with_size(path, start + -(-len(state) // 512) * 512)
    assert qemu_content(path)[start : start + len(state)] == state


@pytest.mark.parametrize("cluster", (4 * KIB, 64 * KIB))
async def test_we_find_a_vm_state_that_qemu_wrote_behind_the_disk(cluster: int, ground: Ground):
    path = ground.root / "disk"
    start = start_of(cluster)
    qemu_create(path, start + MIB, f"cluster_size={cluster}")
    qemu_write(path, f"write -P 7 {start} 300k", f"write -P 8 {start + 300 * KIB} 1k")
    with_size(path, MIB)
    node = await opened(ground, "disk")
    found = b"".join([piece async for piece in driver_of(node).load_vm_state("", 301 * KIB)])
    assert found == b"\7" * 300 * KIB + b"\10" * KIB
    with pytest.raises(InvalidArgument):
        async for _ in driver_of(node).load_vm_state("", 1 << 50):
            pass
