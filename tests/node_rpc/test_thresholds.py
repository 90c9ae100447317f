"""Write thresholds over the API."""

import pytest

from blockyard.base.errors import InvalidArgument, NodeNotFound
from blockyard.client.definitions import memory
from blockyard.v1 import node_pb2 as node
from tests.support.node_calls import NodeHouse

MIB = 1 << 20


async def test_a_watcher_gets_the_event_once_and_the_state_says_when_it_is_over(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="a"))
    assert (await house.client.nodes.set_write_threshold("a", 4096)).write_threshold_bytes == 4096
    call = house.watch.WatchNodes(node.WatchNodesRequest())
    await call.read(), await call.read()
    await house.client.data.write("a", 0, b"x" * 5000)
    await house.client.data.write("a", 0, b"x" * 6000)
    event = (await call.read()).event
    assert (event.kind, event.node_name) == ("write-threshold", "a")
    assert dict(event.details) == {"node-name": "a", "amount-exceeded": "904", "write-threshold": "4096"}
    assert (await call.read()).node.write_threshold_bytes == 0
    assert (await house.client.nodes.get("a")).write_threshold_bytes == 0
    call.cancel()


async def test_what_cannot_be_set_is_refused(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="a"))
    with pytest.raises(InvalidArgument):
        await house.client.nodes.set_write_threshold("a", -1)
    with pytest.raises(NodeNotFound):
        await house.client.nodes.set_write_threshold("nobody", 1)
