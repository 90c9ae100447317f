"""What the graph costs: 4 KiB reads in this process through file, raw, qcow2 and throttle, beside a bare preadv."""

import asyncio
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from blockyard.base.units import MIB
from blockyard.node.core.throttle import Rate, ThrottleLimits
from blockyard.node.graph.definition import NodeDefinition
from tests.bench import images
from tests.bench.harness import RUNS, Row, case, faster
from tests.support.graphs import GraphGround

SIZE: Final = 64 * MIB
BLOCK: Final = 4096
COUNT: Final = 50_000


@case("request-path", peers=("qemu-img",))
def request_path(folder: Path) -> list[Row]:
    return asyncio.run(_measure(folder))


async def _measure(folder: Path) -> list[Row]:
    images.random_raw(folder / "a.raw", SIZE)
    images.qcow2_of(folder / "a.qcow2", folder / "a.raw")
    ground = GraphGround(folder)
    ground.graph.environment.throttling.create("high", ThrottleLimits(iops_total=Rate(10**9)))
    nodes = {
        "file": NodeDefinition("file", "file", {"filename": "a.raw"}, read_only=True),
        "raw": NodeDefinition("raw", "raw", children={"file": _file("a.raw")}, read_only=True),
        "qcow2": NodeDefinition("qcow2", "qcow2", children={"file": _file("a.qcow2")}, read_only=True),
        "throttle": NodeDefinition("throttle", "throttle", {"throttle_group": "high"}, {"file": "qcow2"}, True),
    }
    reads: dict[str, Callable[[int, memoryview], object]] = {}
    for name, definition in nodes.items():
        user = ground.use(await ground.graph.open(definition), writable=False)
        await user.read(0, memoryview(bytearray(SIZE)))  # metadata and pages are in memory
        reads[name] = user.read_now
    descriptor = os.open(folder / "a.raw", os.O_RDONLY)
    reads["bare"] = lambda offset, into: os.preadv(descriptor, (into,), offset, os.RWF_NOWAIT)
    times: dict[str, list[float]] = {name: [] for name in reads}
    for _ in range(RUNS):
        for name, read in reads.items():
            times[name].append(_each(read))
    os.close(descriptor)
    await ground.leave()
    median = {name: statistics.median(values) for name, values in times.items()}
    return [faster(f"request-path-{name}", median[name], median["bare"], "preadv", "us") for name in nodes]


def _file(name: str) -> NodeDefinition:
    return NodeDefinition("file", options={"filename": name})


def _each(read: Callable[[int, memoryview], object]) -> float:
    """Microseconds of one read."""
    into = memoryview(bytearray(BLOCK))
    blocks = SIZE // BLOCK
    started = time.perf_counter()
    for index in range(COUNT):
        read(index * 7919 % blocks * BLOCK, into)
    return (time.perf_counter() - started) / COUNT * 1e6
