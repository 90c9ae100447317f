"""A filter's child may be called otherwise than `file`: whoever walks the graph follows what the class says."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest

from blockyard.base.units import MIB
from blockyard.node.graph import surgery
from blockyard.node.graph.chain import above_filters, below_filters, overlay_above
from blockyard.node.graph.facts import node_info
from blockyard.node.graph.node import Node
from blockyard.node.graph.status import block_status
from blockyard.node.interface.driver import ChildSlot, DriverContext, FilterDriver
from blockyard.node.interface.flags import Role
from tests.support.graphs import GraphGround, content


@dataclass(frozen=True, slots=True)
class PaneOptions:
    """None."""


class PaneDriver(FilterDriver):
    """Passes to a child named `test`."""

    name = "pane"
    Options = PaneOptions
    children: ClassVar[tuple[ChildSlot, ...]] = (ChildSlot("test", Role.FILTERED),)
    primary = "test"

    def __init__(self, context: DriverContext) -> None:
        self.file = context.children["test"]

    @classmethod
    async def open(cls, options: Any, context: DriverContext) -> Self:
        return cls(context)


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    await ground.leave()


async def pane(ground: GraphGround, below: Node, name: str = "pane") -> Node:
    return await ground.adopt(PaneDriver, PaneOptions(), {"test": below}, name)


async def test_walks_follow_the_child_that_a_filter_passes_to(ground: GraphGround):
    base = await ground.memory("base", MIB)
    filter_ = await pane(ground, base)
    overlay = await ground.toycow(await ground.memory("file", MIB), filter_, name="overlay", size=MIB)
    assert filter_.filtered is base
    assert below_filters(filter_) is base
    assert overlay_above(base) is overlay
    filter_.implicit = True
    assert above_filters(base) is filter_


async def test_a_filter_with_another_childs_name_is_put_in_and_taken_out(ground: GraphGround):
    base = await ground.memory("base", MIB)
    user = ground.use(base)
    filter_ = await pane(ground, base)
    await surgery.insert_filter(ground.graph, base, filter_)
    assert user.node is filter_
    await user.write(0, b"through")
    assert await content(user, 0, 7) == b"through"
    assert (await node_info(filter_)).allocated_bytes == 64 * 1024
    assert await surgery.remove_filter(ground.graph, filter_) is base
    assert user.node is base


async def test_a_filter_is_resized_as_its_child_is(ground: GraphGround):
    base = await ground.memory("base", MIB)
    user = ground.use(await pane(ground, base))
    await user.truncate(2 * MIB)
    assert (base.driver.size, user.size) == (2 * MIB, 2 * MIB)


async def test_holes_below_a_filter_are_seen_from_a_raw_node_above_it(ground: GraphGround):
    base = await ground.memory("base", MIB)
    await ground.use(base).write(0, b"x")
    top = await ground.raw("top", await pane(ground, base))
    extents = await block_status(top, 0, MIB)
    assert [(extent.length, extent.zero) for extent in extents] == [(65536, False), (MIB - 65536, True)]
