"""What the crash tests do to qcow2 images: one table of scenarios, and the oracle of creation."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blockyard.base.errors import BlockError
from blockyard.base.units import KIB, MIB
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.drivers.qcow2 import Qcow2
from blockyard.node.interface.bitmaps import ImageBitmap
from blockyard.node.interface.driver import BackingReference
from blockyard.node.interface.flags import COMPRESSED, MAY_UNMAP
from blockyard.node.interface.internal_snapshots import SnapshotWish
from tests.support import peers
from tests.support.crash import Guest, QemuCheck, Recorder, open_chain
from tests.support.crash.log import CHANGES
from tests.support.ground import DriverChild, Ground

IMAGE = "disk.qcow2"
BASE = "base.raw"
DATA = "data.raw"


@dataclass(slots=True)
class Scene:
    """An image under test with its guest."""

    recorder: Recorder
    node: DriverChild
    guest: Guest

    @property
    def driver(self) -> Qcow2:
        assert isinstance(self.node.driver, Qcow2)
        return self.node.driver


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is done to which image."""

    steps: Callable[[Scene], Awaitable[None]]
    create: tuple[str, ...] = ("cluster_size=4k",)
    size: int = MIB
    filled: int = 0
    """Bytes of data the image holds from the beginning."""
    base: int = 0
    """Bytes of a raw backing file; 0: none."""
    snapshot: bool = False
    bitmaps: tuple[str, ...] = ()
    """Dirty bitmaps that the image keeps, made when it is filled."""
    options: dict[str, Any] = field(default_factory=dict)
    lazy: bool = False
    data_file: bool = False
    """Guest data is in a file of its own, DATA."""


async def overwrites(scene: Scene) -> None:
    await scene.guest.write(0, 64 * KIB)
    await scene.guest.flush()
    await scene.guest.write(8 * KIB, 20 * KIB)
    await scene.guest.write(512, 512)
    await scene.guest.flush()
    await scene.guest.write(100 * KIB, 1024)


async def random_writes(scene: Scene) -> None:
    numbers = random.Random(5)
    for _ in range(14):
        length = numbers.choice((512, 3 * KIB, 16 * KIB, 40 * KIB))
        await scene.guest.write(numbers.randrange(0, scene.node.size - length, 512), length)
        if numbers.random() < 0.3:
            await scene.guest.flush()
    await scene.guest.flush()
    await scene.driver.close()


async def zeroes_and_discards(scene: Scene) -> None:
    guest = scene.guest
    await guest.zero(0, 64 * KIB)
    await guest.flush()
    await guest.write(16 * KIB, 8 * KIB)
    await guest.discard(32 * KIB, 64 * KIB)
    await guest.flush()
    # The clusters given back are used again.
    await guest.write(512 * KIB, 96 * KIB)
    await guest.zero(520 * KIB, 16 * KIB, MAY_UNMAP)
    await guest.flush()
    await guest.write(522 * KIB, 512)
    await guest.write(700 * KIB, 64 * KIB)
    await guest.flush()
    await scene.driver.close()


async def compressed_writes(scene: Scene) -> None:
    guest = scene.guest

    def text(tag: int, length: int) -> bytes:
        return (bytes([tag, 7, tag]) * length)[:length]

    await guest.write(0, text(1, 32 * KIB), COMPRESSED)
    await guest.flush()
    await guest.write(8 * KIB, text(2, 12 * KIB), COMPRESSED)
    await guest.write(64 * KIB, text(3, 16 * KIB), COMPRESSED)
    await guest.flush()
    await guest.write(66 * KIB, 512)
    await guest.write(128 * KIB, text(4, 64 * KIB), COMPRESSED)
    await guest.flush()
    await guest.write(0, text(5, 16 * KIB), COMPRESSED)
    await guest.flush()
    await scene.driver.close()


async def resizes(scene: Scene) -> None:
    guest = scene.guest
    await guest.write(scene.node.size - 6 * KIB, 6 * KIB)
    await guest.flush()
    await guest.resize(2 * MIB + 512)
    await guest.write(2 * MIB - 4 * KIB, 4 * KIB + 512)
    await guest.flush()
    await guest.resize(768 * KIB + 512)
    await guest.flush()
    await guest.write(0, 64 * KIB)
    await guest.resize(MIB)
    await guest.flush()


async def l1_growth(scene: Scene) -> None:
    guest = scene.guest
    await guest.write(0, 8 * KIB)
    await guest.resize(8 * MIB)
    await guest.write(8 * MIB - 4 * KIB, 4 * KIB)
    await guest.flush()
    await guest.write(0, 2 * KIB)
    await guest.flush()


async def refcount_growth(scene: Scene) -> None:
    guest = scene.guest
    for at in range(0, 3 * MIB, 256 * KIB):
        await guest.write(at, 96 * KIB)
        if at % (512 * KIB) == 0:
            await guest.flush()
    await guest.discard(0, MIB)
    await guest.flush()
    await guest.write(3 * MIB, 256 * KIB)
    await guest.flush()
    await scene.driver.close()


async def subclusters(scene: Scene) -> None:
    """Of clusters that are there already one subcluster after the other."""
    guest = scene.guest
    await guest.write(0, 512)
    await guest.write(32 * KIB, 1024)
    await guest.flush()
    for at in range(2 * KIB, 16 * KIB, 3 * KIB):
        await guest.write(at, 1536)
        await guest.flush()
        await guest.write(32 * KIB + at, 512)
    await guest.zero(4 * KIB, 3 * KIB)
    await guest.flush()
    await guest.write(5 * KIB, 512)
    await guest.zero(32 * KIB, 8 * KIB, MAY_UNMAP)
    await guest.flush()


async def filling_then_detaching(scene: Scene) -> None:
    """What a stream job does: copy what the backing file has, then let go of it."""
    node, guest = scene.node, scene.guest
    for at in range(0, node.size, 64 * KIB):
        await node.write(at, await node.content(at, 64 * KIB))
    await guest.write(20 * KIB, 512)
    await scene.driver.change_backing(None)
    await guest.flush()


async def changing_the_reference(scene: Scene) -> None:
    for name in ("base.raw", "./base.raw", "./" * 150 + "base.raw", "base.raw"):
        await scene.guest.write(20 * KIB, 8 * KIB)
        await scene.driver.change_backing(BackingReference(name, "raw"))


async def background_write_back(scene: Scene) -> None:
    """More dirty tables than may wait, and no guest flush until the end."""
    for at in range(0, 2 * MIB, 96 * KIB):
        await scene.guest.write(at, 8 * KIB)
    await scene.guest.discard(0, 256 * KIB)
    for at in range(0, 2 * MIB, 128 * KIB):
        await scene.guest.write(at, 1024)
    await scene.guest.flush()


async def cancelled_flushes(scene: Scene) -> None:
    """A client that goes away in the middle of a flush; others go on."""
    guest = scene.guest
    for turns in range(2, 22, 2):
        await guest.write(turns * 40 * KIB, 8 * KIB)
        await guest.zero((turns - 2) * 40 * KIB, 4 * KIB)
        flushing = asyncio.ensure_future(scene.driver.flush())
        for _ in range(turns):
            await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
        await guest.write(turns * 40 * KIB + 12 * KIB, 8 * KIB)
        await guest.flush()


async def take_snapshot(scene: Scene, name: str) -> None:
    """What a crash may show of it is judged by `KeptSnapshots`."""
    content = await scene.node.content()
    scene.recorder.log.mark("snapshot", what="begun", name=name, content=content)
    await scene.driver.create_snapshot(SnapshotWish(name, 0))
    scene.recorder.log.mark("snapshot", what="taken", name=name, content=content)


async def delete_snapshot(scene: Scene, name: str) -> None:
    scene.recorder.log.mark("snapshot", what="deleting", name=name)
    await scene.driver.delete_snapshot(scene.driver.snapshot_named(name).identifier)
    scene.recorder.log.mark("snapshot", what="deleted", name=name)


async def revert(scene: Scene, name: str, content: bytes) -> None:
    """For the guest as if it had written all of that and flushed."""
    number = scene.guest.begin("write", 0, len(content), content)
    await scene.driver.revert_to_snapshot(scene.driver.snapshot_named(name).identifier)
    scene.guest.acked(number)
    scene.guest.acked(scene.guest.begin("flush"))


async def snapshots(scene: Scene) -> None:
    guest = scene.guest
    await guest.write(8 * KIB, 40 * KIB)
    await take_snapshot(scene, "one")
    first = await scene.node.content()
    await guest.write(16 * KIB, 8 * KIB)
    await guest.write(600 * KIB, 64 * KIB)
    await guest.flush()
    await guest.discard(256 * KIB, 32 * KIB)
    await take_snapshot(scene, "two")
    await guest.write(0, 12 * KIB)
    await revert(scene, "one", first)
    await guest.write(20 * KIB, 512)
    await guest.flush()
    await delete_snapshot(scene, "one")
    await guest.write(12 * KIB, 64 * KIB)
    await take_snapshot(scene, "three")
    await guest.write(300 * KIB, 8 * KIB)
    await delete_snapshot(scene, "two")
    await delete_snapshot(scene, "three")
    await guest.write(0, 96 * KIB)
    await guest.flush()
    await scene.driver.close()


EXTENDED = ("cluster_size=16k", "extended_l2=on")
APART = ("cluster_size=4k", f"data_file={DATA}")
RAW_APART = (*APART, "data_file_raw=on")


class KeptSnapshots:
    """Every snapshot that was taken is there with its content; one under way is there whole or not at all."""

    def problems(self, crash: Any) -> list[str]:
        begun: dict[str, bytes] = {}
        certain: set[str] = set()
        for entry in crash.marks("snapshot"):
            name = entry.detail["name"]
            match entry.detail["what"]:
                case "begun":
                    begun[name] = entry.detail["content"]
                case "taken":
                    certain.add(name)
                case "deleting":
                    certain.discard(name)
                case "deleted":
                    del begun[name]
        path = crash.directory / IMAGE
        told = peers.run("qemu-img", "info", "-U", "--output=json", path, check=False)
        if told.returncode:
            return [f"snapshots cannot be listed: {told.stderr}"]
        present = {item["name"] for item in json.loads(told.stdout).get("snapshots", ())}
        found = [f"snapshot {name} is lost" for name in sorted(certain - present)]
        found += [f"snapshot {name} is there" for name in sorted(present - begun.keys())]
        for name in sorted(present & begun.keys()):
            raw = crash.scratch / "shown"
            convert = ("qemu-img", "convert", "-U", "-f", "qcow2", "-l", name, "-O", "raw", path, raw)
            if peers.run(*convert, check=False).returncode or raw.read_bytes() != begun[name]:
                found.append(f"snapshot {name} has other bytes")
        return found


async def write_tracked(scene: Scene, bitmaps: list[ImageBitmap], offset: int, length: int) -> None:
    """A guest's write as the graph records it."""
    await scene.guest.write(offset, length)
    for bitmap in bitmaps:
        assert bitmap.bits is not None
        bitmap.bits.mark(offset, length)


async def store_bitmaps(scene: Scene, bitmaps: list[ImageBitmap]) -> None:
    """What a crash may show of them is judged by `TrueBitmaps`."""
    await scene.driver.store_bitmaps(bitmaps)
    scene.recorder.log.mark("bitmaps", names=[each.name for each in bitmaps])


async def bitmaps_kept(scene: Scene) -> None:
    found = scene.driver.take_bitmaps()
    scene.recorder.log.mark("bitmaps", names=[each.name for each in found])
    scene.recorder.log.mark("tracked", content=await scene.node.content())
    await write_tracked(scene, found, 0, 8 * KIB)
    await scene.guest.flush()
    await write_tracked(scene, found, 100 * KIB, 40 * KIB)
    await store_bitmaps(scene, found)
    await write_tracked(scene, found, 300 * KIB, 4 * KIB)
    added = ImageBitmap("added", 512, found[0].bits and DirtyBitmap(scene.node.size, 512), True)
    assert added.bits is not None and found[0].bits is not None
    added.bits.merge(found[0].bits)
    await write_tracked(scene, [*found, added], 500 * KIB, 64 * KIB)
    await store_bitmaps(scene, [*found, added])
    await scene.driver.remove_bitmap(found[1].name)
    found = [found[0], added]
    await write_tracked(scene, found, 700 * KIB, 512)
    await store_bitmaps(scene, found)
    await store_bitmaps(scene, [])
    await write_tracked(scene, found, 4 * KIB, 512)
    await store_bitmaps(scene, found)
    await scene.driver.close()


class TrueBitmaps:
    """A bitmap that is not in use covers everything that differs, and what was stored last is there."""

    def problems(self, crash: Any) -> list[str]:
        tracked = crash.marks("tracked")
        if not tracked:
            return []
        stored = crash.marks("bitmaps")[-1]
        written = any(entry.op in CHANGES for entry in crash.log.entries[stored.index : crash.cut])
        try:
            with ThreadPoolExecutor(1) as thread:
                found, content = thread.submit(asyncio.run, _bitmaps_and_content(crash.directory)).result()
        except BlockError as problem:
            return [f"cannot be opened: {problem}"]
        problems = []
        if not written and sorted(stored.detail["names"]) != sorted(
            name for name, bits in found.items() if bits is not None
        ):
            problems.append(f"{stored.detail['names']} were stored, found {sorted(found)}")
        before = tracked[0].detail["content"]
        for name, bits in found.items():
            for at in range(0, len(content), 512):
                if bits is not None and content[at : at + 512] != before[at : at + 512] and not bits.is_dirty(at):
                    problems.append(f"bitmap {name} does not know of the change at {at}")
                    break
        return problems


async def _bitmaps_and_content(place: Path) -> tuple[dict[str, DirtyBitmap | None], bytes]:
    ground = Ground(place, threads=1)
    try:
        node = await open_chain(ground, IMAGE, "qcow2")
        assert isinstance(node.driver, Qcow2)
        return {each.name: each.bits for each in node.driver.take_bitmaps()}, await node.content()
    finally:
        await ground.leave()


BITMAP_SCENARIOS = {
    "bitmaps": Scenario(bitmaps_kept, filled=256 * KIB, bitmaps=("one", "two")),
    "bitmaps of small clusters": Scenario(
        bitmaps_kept, ("cluster_size=512", "refcount_bits=64"), filled=64 * KIB, bitmaps=("one", "two")
    ),
    "bitmaps with lazy refcounts": Scenario(
        bitmaps_kept, ("cluster_size=4k", "lazy_refcounts=on"), bitmaps=("one", "two"), lazy=True
    ),
    "bitmaps over a backing file": Scenario(bitmaps_kept, base=512 * KIB, bitmaps=("one", "two")),
}

SNAPSHOT_SCENARIOS = {
    "snapshots": Scenario(snapshots, filled=256 * KIB),
    "snapshots, version 2": Scenario(snapshots, ("compat=0.10", "cluster_size=4k"), filled=256 * KIB),
    "snapshots over a backing file": Scenario(snapshots, base=512 * KIB),
    "snapshots with lazy refcounts": Scenario(snapshots, ("cluster_size=4k", "lazy_refcounts=on"), lazy=True),
    "snapshots with extended L2": Scenario(snapshots, EXTENDED, filled=256 * KIB),
    "snapshots of small clusters": Scenario(snapshots, ("cluster_size=512", "refcount_bits=64"), filled=64 * KIB),
}

SCENARIOS = {
    "overwrites": Scenario(overwrites),
    "random writes": Scenario(random_writes),
    "random writes, version 2": Scenario(random_writes, ("compat=0.10", "cluster_size=4k")),
    "copy on write over a backing file": Scenario(random_writes, base=512 * KIB),
    "copy on write over a snapshot": Scenario(random_writes, filled=256 * KIB, snapshot=True),
    "one-bit refcounts": Scenario(random_writes, ("cluster_size=4k", "refcount_bits=1")),
    "zeroes and discards": Scenario(zeroes_and_discards, filled=256 * KIB),
    "zeroes and discards over a backing file": Scenario(zeroes_and_discards, base=512 * KIB),
    "compressed writes": Scenario(compressed_writes),
    "compressed writes, zstd": Scenario(compressed_writes, ("cluster_size=4k", "compression_type=zstd")),
    "resizes": Scenario(resizes, filled=MIB),
    "resizes over a backing file": Scenario(resizes, base=2 * MIB),
    "L1 growth": Scenario(l1_growth, ("cluster_size=512",)),
    "refcount table growth": Scenario(refcount_growth, ("cluster_size=512", "refcount_bits=64"), size=4 * MIB),
    "filling then detaching": Scenario(filling_then_detaching, base=MIB),
    "changing the reference": Scenario(changing_the_reference, base=256 * KIB),
    "lazy refcounts": Scenario(random_writes, ("cluster_size=4k", "lazy_refcounts=on"), lazy=True),
    "lazy refcounts, discards": Scenario(
        zeroes_and_discards, ("cluster_size=4k", "lazy_refcounts=on"), filled=256 * KIB, lazy=True
    ),
    "subclusters": Scenario(subclusters, EXTENDED),
    "subclusters over a backing file": Scenario(subclusters, EXTENDED, base=512 * KIB),
    "subclusters over a snapshot": Scenario(subclusters, EXTENDED, filled=256 * KIB, snapshot=True),
    "random writes, extended L2": Scenario(random_writes, EXTENDED, base=512 * KIB),
    "zeroes and discards, extended L2": Scenario(zeroes_and_discards, EXTENDED, base=512 * KIB),
    "compressed writes, extended L2": Scenario(compressed_writes, EXTENDED),
    "resizes, extended L2": Scenario(resizes, EXTENDED, base=2 * MIB),
    "data file": Scenario(random_writes, APART, filled=128 * KIB, data_file=True),
    "data file over a backing file": Scenario(random_writes, APART, base=512 * KIB, data_file=True),
    "data file, zeroes and discards": Scenario(zeroes_and_discards, APART, filled=256 * KIB, data_file=True),
    "data file, extended L2": Scenario(subclusters, (*EXTENDED, f"data_file={DATA}"), data_file=True),
    "data file, resizes": Scenario(resizes, APART, filled=MIB, data_file=True),
    "data file, lazy refcounts": Scenario(random_writes, (*APART, "lazy_refcounts=on"), lazy=True, data_file=True),
    "raw data file": Scenario(random_writes, RAW_APART, filled=128 * KIB, data_file=True),
    "raw data file, zeroes and discards": Scenario(zeroes_and_discards, RAW_APART, data_file=True),
    "raw data file, resizes": Scenario(resizes, RAW_APART, filled=MIB, data_file=True),
    "cancelled flushes": Scenario(cancelled_flushes, ("cluster_size=512",)),
    "background write-back": Scenario(
        background_write_back, ("cluster_size=512",), 2 * MIB, options={"l2_cache_size": 16 * 512}
    ),
}


class CreatedOrNothing:
    """Either no qcow2 header yet, or an image that QEMU calls clean or leaking."""

    def problems(self, crash: Any) -> list[str]:
        if (crash.directory / IMAGE).read_bytes()[:4] != b"QFI\xfb":
            return []
        return QemuCheck(IMAGE).problems(crash)
