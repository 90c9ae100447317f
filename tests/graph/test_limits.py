"""Limits of nodes: they follow the children, and what arrives at a driver always obeys them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.node.graph.changes import Changes
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.node import Node
from blockyard.node.graph.surgery import replace_node
from tests.support.graphs import GraphGround, content


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


async def stack(ground: GraphGround, below: Node) -> list[Node]:
    """raw on a filter on the node."""
    middle = await ground.graph.open(
        NodeDefinition("mirror-top", "middle", children={"file": below.name, "target": below.name})
    )
    return [middle, await ground.raw("top", middle)]


async def test_limits_follow_a_child_that_is_replaced_all_the_way_up(ground: GraphGround):
    easy = await ground.strict("easy", size=65536, inline=1)
    hard = await ground.strict("hard", size=65536, alignment=4096, memory_alignment=512, max_transfer=8192)
    nodes = await stack(ground, easy)
    assert [node.alignment for node in nodes] == [1, 1]
    await replace_node(ground.graph, easy, hard)
    # The filter is as strict as the disk; raw takes anything, and tells what the disk prefers.
    assert [node.alignment for node in nodes] == [4096, 1]
    assert [node.memory_alignment for node in nodes] == [512, 1]
    assert [node.driver.limits.max_transfer for node in nodes] == [8192, 8192]
    assert nodes[1].driver.limits.opt_transfer == 4096
    user = ground.use(nodes[1])
    data = bytearray(b"x" * 30_001)
    if not user.write_now(77, data):
        await user.write(77, data)
    assert (await content(user))[77 : 77 + 30_001] == data


async def test_watchers_of_every_node_above_learn_of_new_limits(ground: GraphGround):
    easy = await ground.strict("easy", size=65536)
    hard = await ground.strict("hard", size=65536, alignment=4096, max_transfer=8192)
    await stack(ground, easy)
    before = ground.graph.hub.revision
    await replace_node(ground.graph, easy, hard)
    await asyncio.sleep(0)
    told = {change.name for change in ground.graph.hub._history if change.revision > before}
    assert {"middle", "top"} <= told


async def test_a_change_that_is_taken_back_takes_the_limits_back(ground: GraphGround):
    easy = await ground.strict("easy", size=65536)
    hard = await ground.strict("hard", size=65536, alignment=4096)
    middle, _ = await stack(ground, easy)
    changes = Changes()
    changes.move(middle.children["file"], hard)
    assert middle.alignment == 4096
    changes.undo()
    assert middle.alignment == 1


async def test_a_raw_node_on_a_disk_that_becomes_strict_no_longer_skips_its_checks(ground: GraphGround):
    """The shortcut of raw goes to its child's driver, as long as that takes any request."""
    easy = await ground.strict("easy", size=65536, inline=1)
    hard = await ground.strict("hard", size=65536, alignment=4096, inline=1)
    user = ground.use(await ground.raw("top", easy))
    assert user.write_now(5, b"x")
    await replace_node(ground.graph, easy, hard)
    assert not user.write_now(5, b"y")
    await user.write(5, b"y")
    assert await content(user, 0, 10) == bytes(5) + b"y" + bytes(4)


async def test_a_flush_through_filters_reaches_the_disk_once_for_what_was_written_once(ground: GraphGround):
    """A filter always passes on, for it may be newer than a write to the node below; that one knows."""
    disk = await ground.strict("disk", size=65536)
    nodes = await stack(ground, disk)
    user = ground.use(nodes[1])
    for expected in (1, 1, 2):
        if expected != disk.driver.flushes:  # type: ignore[attr-defined]
            await user.write(0, b"x")
        await user.flush()
        assert disk.driver.flushes == expected  # type: ignore[attr-defined]
