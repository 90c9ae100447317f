"""What size costs the graph: memory of 1,000 nodes and of 10,000 requests in flight, and opening a large image."""

import asyncio
import gc
import resource
import statistics
import time
from pathlib import Path
from typing import Final

from blockyard.base.clock import VirtualClock
from blockyard.base.units import GIB, KIB, MIB, TIB
from blockyard.node.graph.definition import NodeDefinition
from tests.bench import images
from tests.bench.harness import RUNS, Row, case, faster
from tests.support.graphs import GraphGround

NODES: Final = 1_000
NODE_KIB: Final = 16.0
"""Of one open node with its driver and descriptor: `docs/limits.md` says a few KiB."""
REQUESTS: Final = 10_000
REQUEST_KIB: Final = 10.0
"""Of one request in flight: its task, its frames in every layer and what is known of it; not its data."""
OPENINGS: Final = 40


@case("graph-memory")
def memory(folder: Path) -> list[Row]:
    return asyncio.run(_memory(folder))


async def _memory(folder: Path) -> list[Row]:
    (folder / "a.raw").write_bytes(bytes(MIB))
    clock = VirtualClock()
    ground = GraphGround(folder, clock=clock)
    await _pairs(ground, 10, "warm")  # modules are loaded, arenas are there
    before = _rss()
    await _pairs(ground, NODES // 2, "n")
    per_node = (_rss() - before) / NODES
    disk = await ground.graph.open(NodeDefinition("null", "disk", {"size": GIB, "latency_ns": 10**9}))
    top = await ground.raw("top", disk)
    user, buffer = ground.use(top), memoryview(bytearray(4096))
    before = _rss()
    tasks = [asyncio.create_task(user.read(index * 4096, buffer)) for index in range(REQUESTS)]
    while len(disk.tracker.requests) < REQUESTS:
        await asyncio.sleep(0)
    per_request = (_rss() - before) / REQUESTS
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    ground.graph.release(user)
    closing = asyncio.create_task(ground.leave())
    while not closing.done():
        await clock.advance(1)
    return [
        faster("memory-of-a-node", per_node / KIB, NODE_KIB, "bound", "KiB"),
        faster("memory-of-a-request-in-flight", per_request / KIB, REQUEST_KIB, "bound", "KiB"),
    ]


async def _pairs(ground: GraphGround, count: int, name: str) -> None:
    """raw over file, each a node."""
    for index in range(count):
        file = NodeDefinition("file", f"{name}{index}f", {"filename": "a.raw"}, read_only=True)
        await ground.graph.open(NodeDefinition("raw", f"{name}{index}", children={"file": file}, read_only=True))


def _rss() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@case("open-terabyte", peers=("qemu-img",))
def opening(folder: Path) -> list[Row]:
    return asyncio.run(_opening(folder))


async def _opening(folder: Path) -> list[Row]:
    """A qcow2 of 1 TiB has an L1 table of 16 KiB; nothing else of it is read."""
    for name, size in (("small", GIB), ("large", TIB)):
        images.empty(folder / f"{name}.qcow2", "qcow2", size)
    ground = GraphGround(folder)
    times: dict[str, list[float]] = {"small": [], "large": []}
    for _ in range(RUNS * OPENINGS):
        for name, found in times.items():
            file = NodeDefinition("file", options={"filename": f"{name}.qcow2"})
            started = time.perf_counter()
            await ground.graph.open(NodeDefinition("qcow2", name, children={"file": file}))
            found.append(time.perf_counter() - started)
            await ground.graph.close(name)
    await ground.leave()
    small, large = (statistics.median(times[name]) * 1e6 for name in ("small", "large"))
    return [faster("open-terabyte", large, small, "1 GiB image", "us")]
