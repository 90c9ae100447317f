"""Ranges and sizes that no one should ask for: every one gets an end."""

import asyncio

import pytest

from blockyard.base.errors import SizeTooLarge
from blockyard.base.ranges import ByteRange
from blockyard.base.units import MIB
from blockyard.node.copying.spec import CopyKind, FinishAction, Order
from blockyard.node.core.dirty import MAX_GRANULARITY
from blockyard.node.graph.definition import NodeDefinition
from tests.support.scenes import GRANULE, job, raw_target
from tests.support.yard import Yard


async def test_an_order_for_part_of_a_granule_moves_the_granule_and_ends(ground: Yard) -> None:
    await raw_target(ground, 4 * GRANULE)
    ground.raw_file("source.raw", 4 * GRANULE)
    await ground.open("raw", "source", "source.raw")
    session = await ground.sessions.create(job(CopyKind.MIRROR), 1)
    report = await asyncio.wait_for(session.run(Order(1, MIB, ByteRange(GRANULE + 512, 1024))), 20)
    assert report.remaining == 3 * GRANULE


async def test_a_large_source_gets_a_coarser_map_instead_of_a_large_one(ground: Yard) -> None:
    for name in ("source", "target"):
        await ground.graph.open(NodeDefinition("memory", name, {"size": 1 << 53}))
    session = await ground.sessions.create(job(CopyKind.MIRROR), 1)
    assert session.work.bits.granularity == MAX_GRANULARITY // 2
    await ground.sessions.finish("j", 1, FinishAction.ABORT)


@pytest.mark.parametrize("kind", [CopyKind.MIRROR, CopyKind.BACKUP])
async def test_a_source_of_an_exbibyte_is_refused_by_its_size(ground: Yard, kind: CopyKind) -> None:
    for name in ("source", "target"):
        await ground.graph.open(NodeDefinition("memory", name, {"size": 1 << 60}))
    with pytest.raises(SizeTooLarge):
        await ground.sessions.create(job(kind), 1)


async def test_block_status_of_an_exbibyte_of_small_answers_holds_nobody_up(ground: Yard) -> None:
    await ground.graph.open(NodeDefinition("memory", "vast", {"size": 1 << 60}))
    user = ground.use("vast")
    others_turns = 0

    async def other() -> None:
        nonlocal others_turns
        while True:
            others_turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    extents = await user.block_status(0, 1 << 60, 10)
    task.cancel()
    assert others_turns > 10
    assert 0 < sum(extent.length for extent in extents) < 1 << 60
    ground.graph.release(user)
