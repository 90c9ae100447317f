"""The write threshold: told once, by the first write that goes past it, in whatever form."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.errors import InvalidArgument
from blockyard.base.units import KIB, MIB
from blockyard.node.graph.graph import NodeReport
from blockyard.node.graph.node import Node
from blockyard.node.graph.threshold import set_write_threshold
from tests.support.graphs import GraphGround


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


def reports(ground: GraphGround) -> list[dict[str, str]]:
    return [
        dict(change.resource.details)
        for change in ground.graph.hub._history
        if isinstance(change.resource, NodeReport) and change.resource.kind == "write-threshold"
    ]


@pytest.fixture
async def node(ground: GraphGround) -> Node:
    return await ground.memory("disk", MIB)


async def test_a_write_up_to_the_threshold_is_no_news(ground: GraphGround, node: Node):
    set_write_threshold(ground.graph, node, 64 * KIB)
    assert ground.use(node).write_now(0, b"x" * 64 * KIB)
    assert reports(ground) == []
    assert node.threshold is not None


@pytest.mark.parametrize("form", ["inline", "awaited", "zeroes", "through raw"])
async def test_the_first_write_past_it_is_told_once_with_how_far_it_went(
    ground: GraphGround, node: Node, form: str
):
    set_write_threshold(ground.graph, node, 64 * KIB)
    user = ground.use(await ground.raw("raw", node) if form == "through raw" else node)
    for length in (4096, 8192):
        if form == "zeroes":
            await user.zero(62 * KIB, length)
        elif form == "awaited":
            await user.write(62 * KIB, b"x" * length, 1)
        else:
            assert user.write_now(62 * KIB, b"x" * length)
    assert reports(ground) == [{"node-name": "disk", "amount-exceeded": "2048", "write-threshold": "65536"}]
    assert node.threshold is None and not node.watched


async def test_reads_and_discards_write_nothing(ground: GraphGround, node: Node):
    set_write_threshold(ground.graph, node, 4096)
    user = ground.use(node)
    await user.read(0, memoryview(bytearray(MIB)))
    await user.discard(0, MIB)
    assert reports(ground) == [] and node.write_highest == 0


async def test_it_can_be_moved_set_again_and_switched_off(ground: GraphGround, node: Node):
    user = ground.use(node)
    set_write_threshold(ground.graph, node, 4096)
    set_write_threshold(ground.graph, node, 8192)
    user.write_now(0, b"x" * 8192)
    assert reports(ground) == []
    user.write_now(0, b"x" * 8193)
    set_write_threshold(ground.graph, node, 8192)
    user.write_now(0, b"x" * 8194)
    set_write_threshold(ground.graph, node, 8192)
    set_write_threshold(ground.graph, node, 0)
    user.write_now(0, b"x" * 8195)
    assert [each["amount-exceeded"] for each in reports(ground)] == ["1", "2"]


@pytest.mark.parametrize("offset", [-1, 2**63])
async def test_an_offset_that_cannot_be_is_refused(ground: GraphGround, node: Node, offset: int):
    with pytest.raises(InvalidArgument):
        set_write_threshold(ground.graph, node, offset)
