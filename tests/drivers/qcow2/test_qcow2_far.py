"""Files of holes: references that lie far apart are counted exactly, in work that goes by what the file holds."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from blockyard.node.drivers.qcow2 import tallying
from blockyard.node.interface.driver import CheckReport
from tests.corpus.writer import COPIED, GIB, Bitmap, Image, plain, with_bitmap, with_snapshot
from tests.support.ground import Ground
from tests.support.qcow2_images import driver_of, opened, qemu_check

CLUSTER = 512
FAR = 9 * GIB
"""Past the first window, which is 8 GiB of 512 byte clusters."""


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    await ground.leave()


def far(image: Image, *, refcount: int = 1) -> Image:
    """The second guest cluster lies far away, counted by a refcount block behind it."""
    image.put(image.places["l2"] + 8, FAR | COPIED)
    per_block = CLUSTER // 2
    index = FAR // CLUSTER // per_block
    table = image.append(bytes((index + 1) * 8))
    length = len(image.data) - table
    image.put(table, image.entry("refcount_table"))
    image.put(table + 8 * index, FAR + CLUSTER)
    image.counted(image.places["refcount_table"], CLUSTER, by=-1)
    blocks = Image(bytearray(CLUSTER)).put(0, refcount, 1, form=">H")
    image.far += [(FAR, b"\2" * CLUSTER), (FAR + CLUSTER, bytes(blocks.data))]
    # The table is long: blocks of its own count it.
    used = [(image.places["refcount_block"], 0)]
    while len(used) * per_block < len(image.data) // CLUSTER + 1:
        at = image.append(bytes(CLUSTER))
        image.put(table + 8 * len(used), at)
        used.append((at, len(used)))
    for cluster in range(table // CLUSTER, (table + length) // CLUSTER):
        count(image, used, cluster)
    for at, _ in used[1:]:
        count(image, used, at // CLUSTER)
    return image.header(refcount_table_offset=table, refcount_table_clusters=length // CLUSTER)


def count(image: Image, blocks: list[tuple[int, int]], cluster: int) -> None:
    at = blocks[cluster // 256][0] + 2 * (cluster % 256)
    image.put(at, int.from_bytes(image.data[at : at + 2], "big") + 1, form=">H")


async def checked(ground: Ground, image: Image) -> CheckReport:
    image.save(ground.root / "disk")
    return await driver_of(await opened(ground, "disk", read_only=True)).check(False, False)


@pytest.mark.peer("qemu-img")
@pytest.mark.parametrize(("refcount", "leaks", "corruptions"), [(1, 0, 0), (3, 1, 0), (0, 0, 2)])
async def test_what_lies_past_the_first_window_is_counted_as_qemu_counts_it(
    refcount: int, leaks: int, corruptions: int, ground: Ground
):
    report = await checked(ground, far(plain(cluster_bits=9, size=32768, written=(0,)), refcount=refcount))
    theirs = qemu_check(ground.root / "disk")
    assert (report.leaks, report.image_end_offset) == (theirs["leaks"], theirs["image-end-offset"])
    assert (report.leaks, report.corruptions) == (leaks, theirs["corruptions"] if refcount else corruptions)


@pytest.mark.peer("qemu-img")
async def test_a_leak_past_the_first_window_is_repaired(ground: Ground):
    far(plain(cluster_bits=9, size=32768, written=(0,)), refcount=3).save(ground.root / "disk")
    assert (await driver_of(await opened(ground, "disk")).check(True, False)).leaks_fixed == 1
    await ground.close_all()
    assert qemu_check(ground.root / "disk")["leaks"] == 0


async def test_references_that_are_too_many_for_a_list_are_counted_window_by_window(ground: Ground):
    """A bitmap's table of 1 GiB of holes, far away, and a leak beside it."""
    image = far(with_bitmap(Bitmap(FAR + GIB, 1 << 27), cluster_bits=9, size=32768, written=(0,)), refcount=3)
    image.length = FAR + 2 * GIB
    report = await checked(ground, image)
    assert report.leaks == 1
    assert report.corruptions == (1 << 30) // CLUSTER + 1, "the table, and the COPIED flag of the leak"


async def test_snapshots_that_all_share_one_table_are_counted_each(ground: Ground):
    report = await checked(ground, with_snapshot(plain()))
    assert (report.leaks, report.corruptions, report.check_errors) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_a_list_of_references_adds_up_as_a_dictionary_does(seed: int):
    numbers = random.Random(seed)
    few, wanted = tallying.Few(), Counter()
    for _ in range(200):
        times = numbers.choice((1, 1, 2, 70_000, 1 << 33))
        clusters = [tallying.WINDOW + numbers.randrange(-50, 50) for _ in range(numbers.randrange(40))]
        few.add(np.array(clusters, np.int64), times)
        begin = tallying.WINDOW + numbers.randrange(-20, 40)
        few.add_run((begin, begin + 10), times)
        wanted.update(dict.fromkeys(range(begin, begin + 10), 0))
        for cluster in (*clusters, *range(begin, begin + 10)):
            wanted[cluster] += times
    clusters, counts = few.total()
    kept = {cluster: min(total, tallying.MOST) for cluster, total in wanted.items() if cluster >= tallying.WINDOW}
    assert dict(zip(clusters.tolist(), counts.tolist(), strict=True)) == kept


def test_a_counter_never_wraps_around():
    counts = np.zeros(4, np.uint32)
    for _ in range(3):
        tallying.add(counts, 0, np.array([1, 1], np.int64), 1 << 31)
        tallying.add_run(counts, 0, (2, 4), 1 << 33)
    assert counts.tolist() == [0, tallying.MOST, tallying.MOST, tallying.MOST]
