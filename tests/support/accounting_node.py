"""A node service that speaks WatchAccounting and nothing else: a true server, whose figures the test writes."""

import asyncio

from blockyard.v1 import node_pb2, types_pb2
from blockyard.v1.node_pb2_grpc import NodeServiceServicer

READ, WRITE = types_pb2.REQUEST_TYPE_READ, types_pb2.REQUEST_TYPE_WRITE
BOUNDS = (1_000, 1_000_000)


class SmallNode(NodeServiceServicer):
    """Accounts that the test writes, told to every watcher when the test says `tell`."""

    def __init__(self, instance_id: str = "first") -> None:
        self.instance_id = instance_id
        self.nodes: dict[str, types_pb2.BlockAcctStats] = {}
        self.sample_ns = 0
        self.watchers: list[asyncio.Queue[node_pb2.WatchAccountingResponse]] = []
        self.intervals: list[float] = []

    def count(self, name: str, kind: int = READ, operations: int = 0, size: int = 0, epoch: str = "e1") -> None:
        """Set the counters of a node: every request took 500 us."""
        stats = types_pb2.BlockAcctStats(node_name=name, node_uid=name + epoch, epoch=epoch, driver="qcow2")
        each = stats.operations.add(type=kind, operations=operations, transferred_bytes=size)
        each.total_time.FromNanoseconds(500_000 * operations)
        each.throttle_wait_time.SetInParent()
        each.latency.bounds_ns.extend(BOUNDS)
        each.latency.counts.extend((0, operations, 0))
        stats.idle_time.FromNanoseconds(1)
        stats.sample_time.FromNanoseconds(self.sample_ns)
        self.nodes[name] = stats

    def tell(self) -> None:
        self.sample_ns += 1_000_000_000
        reply = node_pb2.WatchAccountingResponse(instance_id=self.instance_id, stats=self.nodes.values())
        reply.sample_time.FromNanoseconds(self.sample_ns)
        for watcher in self.watchers:
            watcher.put_nowait(reply)

    async def WatchAccounting(self, request, context):  # noqa: N802
        self.intervals.append(request.interval.ToNanoseconds() / 1e9)
        queue: asyncio.Queue[node_pb2.WatchAccountingResponse] = asyncio.Queue()
        self.watchers.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self.watchers.remove(queue)
