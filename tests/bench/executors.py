"""What executors are for: a disk that is slow on one does not delay a node on another."""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Final

from blockyard.base.units import MIB
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.node import Node
from tests.bench import images
from tests.bench.harness import RUNS, Row, case, faster
from tests.support.graphs import GraphGround

SIZE: Final = 16 * MIB
BLOCK: Final = 4096
READS: Final = 300
THREADS: Final = 4
SLOW_SECONDS: Final = 0.005
"""One request of the slow disk: a seek of a tired one."""
DEPTH: Final = 64


@case("executors", peers=("qemu-img",))
def executors(folder: Path) -> list[Row]:
    return asyncio.run(_measure(folder))


async def _measure(folder: Path) -> list[Row]:
    images.random_raw(folder / "a.raw", SIZE)
    ground = GraphGround(folder)
    for name in ("quick", "slow"):
        ground.graph.executors.create(name, THREADS)
    node = await ground.graph.open(
        NodeDefinition("file", "disk", {"filename": "a.raw"}, read_only=True, executor="quick")
    )
    alone, apart, together = [], [], []
    for _ in range(RUNS):
        alone.append(await _latency(node))
        apart.append(await _beside_slow_disk(ground, node, "slow"))
        together.append(await _beside_slow_disk(ground, node, "quick"))
    await ground.leave()
    median = statistics.median
    return [
        faster("executor-own-beside-a-slow-disk", median(apart), median(alone), "alone", "us"),
        faster("executor-shared-with-a-slow-disk", median(together), median(alone), "alone", "us"),
    ]


async def _beside_slow_disk(ground: GraphGround, node: Node, executor: str) -> float:
    """The latency while a disk on `executor` never has fewer than DEPTH requests."""
    share = ground.graph.executors.share("slow-disk", executor)

    async def keep_busy() -> None:
        while True:
            await share.run(time.sleep, SLOW_SECONDS)

    busy = [asyncio.create_task(keep_busy()) for _ in range(DEPTH)]
    await asyncio.sleep(5 * SLOW_SECONDS)
    try:
        return await _latency(node)
    finally:
        for task in busy:
            task.cancel()
        await asyncio.wait(busy)


async def _latency(node: Node) -> float:
    """Microseconds of a read of one block by way of the threads, the median."""
    into, blocks, times = memoryview(bytearray(BLOCK)), SIZE // BLOCK, []
    for index in range(READS):
        started = time.perf_counter()
        await node.driver.read(index * 7919 % blocks * BLOCK, into)  # type: ignore[attr-defined]
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6
