"""What the graph costs: 4 KiB reads in this process through file, raw, qcow2 and throttle, beside a bare preadv."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from blockyard.base.units import MIB
from blockyard.node.core.throttle import Rate, ThrottleLimits
from blockyard.node.graph.definition import NodeDefinition
from tests.bench import images
from tests.bench.harness import Row, case, faster
from tests.support.graphs import GraphGround

Read = Callable[[int, memoryview], object]
SIZE: Final = 64 * MIB
BLOCK: Final = 4096
SLICE: Final = 1_500
"""Reads of one measurement: some milliseconds, so that in many of them nothing else ran."""
SLICES: Final = 80


OWN_US: Final = 10.0
"""What a request may cost beyond the system call."""
FILTER_US: Final = 1.0
"""What each filter may add."""


@case("request-path", peers=("qemu-img",))
def request_path(folder: Path) -> list[Row]:
    return asyncio.run(_measure(folder))


async def _measure(folder: Path) -> list[Row]:
    images.random_raw(folder / "a.raw", SIZE)
    images.qcow2_of(folder / "a.qcow2", folder / "a.raw")
    ground = GraphGround(folder)
    ground.graph.environment.throttling.create("group", ThrottleLimits(iops_total=Rate(avg=10**9)))
    reads: dict[str, Read] = {}
    for definition in (*_LAYERS, *_FILTERS):
        user = ground.use(await ground.graph.open(definition), writable=False)
        await user.read(0, memoryview(bytearray(SIZE)))  # metadata and pages are in memory
        assert user.read_now(0, memoryview(bytearray(BLOCK))), f"{definition.driver} serves no read inline"
        reads[definition.node_name] = user.read_now
    descriptor = os.open(folder / "a.raw", os.O_RDONLY)
    reads["bare"] = lambda offset, into: os.preadv(descriptor, (into,), offset, os.RWF_NOWAIT)
    times: dict[str, list[float]] = {name: [] for name in reads}
    for _ in range(SLICES):
        for name, read in reads.items():
            times[name].append(_each(read))
    os.close(descriptor)
    await ground.leave()
    # The least: what else the machine does only ever adds.
    return _rows({name: min(values) for name, values in times.items()})


def _rows(cost: dict[str, float]) -> list[Row]:
    names = [node.node_name for node in _LAYERS]
    rows = [faster(f"request-path-{name}", cost[name], cost["bare"], "preadv", "us") for name in names]
    rows.append(faster("request-path-throttle-own", cost["throttle"] - cost["bare"], OWN_US, "bound", "us"))
    for node in _FILTERS:
        extra = max(0.001, cost[node.node_name] - cost[str(next(iter(node.children.values())))])
        rows.append(faster(f"filter-{node.node_name}", extra, FILTER_US, "bound", "us"))
    return rows


def _file(name: str) -> NodeDefinition:
    return NodeDefinition("file", options={"filename": name})


_LAYERS: Final = (
    NodeDefinition("file", "file", {"filename": "a.raw"}, read_only=True),
    NodeDefinition("raw", "raw", children={"file": _file("a.raw")}, read_only=True),
    NodeDefinition("qcow2", "qcow2", children={"file": _file("a.qcow2")}),
)
_FILTERS: Final = (
    NodeDefinition("throttle", "throttle", {"throttle_group": "group"}, {"file": "qcow2"}),
    NodeDefinition("copy-on-read", "copy-on-read", children={"file": "qcow2"}),
    NodeDefinition("blkdebug", "blkdebug", children={"image": "qcow2"}),
    NodeDefinition("preallocate", "preallocate", children={"file": "file"}, read_only=True),
)
"""Each above what it is compared with. `compress` is not here: like QEMU's it takes whole clusters only."""


def _each(read: Read) -> float:
    """Microseconds of one read, of this thread alone: others are kept out of the figure."""
    into = memoryview(bytearray(BLOCK))
    blocks = SIZE // BLOCK
    started = time.thread_time()
    for index in range(SLICE):
        read(index * 7919 % blocks * BLOCK, into)
    return (time.thread_time() - started) / SLICE * 1e6
