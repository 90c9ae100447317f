"""Caches of qcow2: sizes as QEMU reads them, what is given back, what is told."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import InvalidArgument
from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.qcow2.caches import sizes
from blockyard.node.drivers.qcow2.options import Qcow2Options
from blockyard.node.formats.qcow2.geometry import Geometry
from tests.support.ground import Ground
from tests.support.qcow2_images import created, driver_of, opened

PLAIN = Geometry(16, 4)


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    await ground.leave()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (32 * MIB, 8 * MIB)),
        ({"l2_cache_size": MIB}, (MIB, 8 * MIB)),
        ({"refcount_cache_size": MIB}, (32 * MIB, MIB)),
        # 64 GiB need 8 MiB of L2 tables.
        ({"cache_size": 16 * MIB}, (8 * MIB, 8 * MIB)),
        ({"cache_size": 2 * MIB}, (2 * MIB - 256 * KIB, 256 * KIB)),
        ({"cache_size": 128 * KIB}, (0, 128 * KIB)),
        ({"cache_size": 4 * MIB, "l2_cache_size": 3 * MIB}, (3 * MIB, MIB)),
        ({"cache_size": 4 * MIB, "refcount_cache_size": 3 * MIB}, (MIB, 3 * MIB)),
    ],
)
def test_sizes_are_divided_as_qemu_divides_them(options: dict[str, int], expected: tuple[int, int]):
    assert sizes(Qcow2Options(**options), PLAIN, 64 << 30) == expected  # type: ignore[arg-type]


def test_extended_entries_need_twice_the_room():
    extended = Geometry(16, 4, extended=True)
    assert sizes(Qcow2Options(cache_size=64 * MIB), extended, 64 << 30).l2 == 16 * MIB


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cache_size", {"cache_size": MIB, "l2_cache_size": MIB, "refcount_cache_size": 0}),
        ("l2_cache_size", {"cache_size": MIB, "l2_cache_size": 2 * MIB}),
        ("refcount_cache_size", {"cache_size": MIB, "refcount_cache_size": 2 * MIB}),
        ("l2_cache_entry_size", {"l2_cache_entry_size": 3000}),
        ("cache_clean_interval", {"cache_clean_interval": -1}),
        ("cache_clean_interval", {"cache_clean_interval": 1 << 32}),
    ],
)
async def test_sizes_that_cannot_be_are_refused_by_name(name: str, options: dict[str, int], ground: Ground):
    await created(ground, "disk", MIB)
    with pytest.raises(InvalidArgument) as refusal:
        await opened(ground, "disk", **options)
    assert refusal.value.name == name


async def test_what_nobody_used_for_an_interval_is_given_back(ground: Ground):
    await created(ground, "disk", 64 * MIB, cluster_size=4 * KIB)
    ground.clock = clock = VirtualClock()
    node = await opened(ground, "disk", cache_clean_interval=30)
    tables = driver_of(node).image.l2.tables
    await node.write(0, b"x" * 4096)
    await node.write(32 * MIB, b"y" * 4096)
    await asyncio.sleep(0)
    await clock.advance(31)
    assert len(tables.items) == 2, "they were used"
    await clock.advance(30)
    assert len(tables.items) == 2, "and are not on disk yet"
    await driver_of(node).flush()
    await node.content(0, 4096)
    await clock.advance(30)
    await node.content(0, 4096)
    await clock.advance(30)
    assert list(tables.items) == [0]
    assert (await driver_of(node).info()).specific["l2-cache-cleaned"] == 1
    assert await node.content(32 * MIB, 4096) == b"y" * 4096
    await ground.close_all()
    assert clock.sleepers == 0


async def test_without_an_interval_nothing_waits(ground: Ground):
    await created(ground, "disk", MIB)
    ground.clock = clock = VirtualClock()
    await opened(ground, "disk", cache_clean_interval=0)
    await asyncio.sleep(0)
    assert clock.sleepers == 0


async def test_statistics_tell_what_is_held_and_what_had_to_go(ground: Ground):
    await created(ground, "disk", 64 * MIB, cluster_size=4 * KIB)
    node = await opened(ground, "disk")
    for at in range(0, 64 * MIB, 2 * MIB):
        await node.write(at, b"x" * 4096)
    await ground.close_all()
    node = await opened(ground, "disk", l2_cache_size=4 * 4 * KIB)
    for at in range(0, 64 * MIB, 2 * MIB):
        await node.content(at, 4096)
    found = (await driver_of(node).info()).specific
    assert (found["l2-cache-size"], found["l2-cache-used"]) == (16 * KIB, 16 * KIB)
    assert (found["l2-cache-loads"], found["l2-cache-evictions"]) == (32, 28)
    assert found["refcount-cache-loads"] == 1
