"""Small writes into an overlay with extended L2 entries, beside qemu-io: 4 KiB at random places, copying nothing.

Ours is the time of a service that runs: the writes and a flush. qemu-io's is that of the command less its start,
which is measured with no writes.
"""

import asyncio
import random
import subprocess
import time
from pathlib import Path
from typing import Final

from blockyard.base.units import KIB, MIB
from blockyard.node.graph.definition import NodeDefinition
from tests.bench import images
from tests.bench.harness import Row, alternate, case, faster
from tests.support.graphs import GraphGround

SIZE: Final = 256 * MIB
BLOCK: Final = 4 * KIB
COUNT: Final = 3000


@case("subclusters", peers=("qemu-img", "qemu-io"))
def subclusters(folder: Path) -> list[Row]:
    images.random_raw(folder / "base.raw", SIZE)
    offsets = [BLOCK * place for place in random.Random(1).sample(range(SIZE // BLOCK), COUNT)]
    rows: list[Row] = []
    for name, options in (("extended-l2", ("-o", "extended_l2=on")), ("plain-l2", ())):
        path = folder / "top.qcow2"

        def fresh(path: Path = path, options: tuple[str, ...] = options) -> Path:
            path.unlink(missing_ok=True)
            images.qemu_img("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", *options, path)
            images.warm(folder / "base.raw")
            return path

        ours, peer = alternate(
            lambda fresh=fresh: asyncio.run(_ours(fresh(), offsets)),
            lambda fresh=fresh: _qemu_io(fresh(), offsets) - _qemu_io(fresh(), []),
        )
        rows.append(
            faster(f"{name}-write-4k-over-backing", ours / COUNT * 1e6, peer / COUNT * 1e6, "qemu-io", "us")
        )
    return rows


async def _ours(path: Path, offsets: list[int]) -> float:
    ground = GraphGround(path.parent)
    file = NodeDefinition("file", options={"filename": path.name})
    base = NodeDefinition("file", options={"filename": "base.raw"}, read_only=True)
    node = await ground.graph.open(NodeDefinition("qcow2", "top", children={"file": file, "backing": base}))
    user, data = ground.use(node, writable=True), bytes(range(256)) * (BLOCK // 256)
    begun = time.perf_counter()
    for offset in offsets:
        await user.write(offset, data)
    await user.flush()
    passed = time.perf_counter() - begun
    await ground.leave()
    return passed


def _qemu_io(path: Path, offsets: list[int]) -> float:
    commands = "".join(f"write -q -P 7 {offset} {BLOCK}\n" for offset in offsets) + "flush\nquit\n"
    command = ["qemu-io", "-t", "writeback", path]
    begun = time.perf_counter()
    subprocess.run(command, input=commands, text=True, check=True, capture_output=True, timeout=300)
    return time.perf_counter() - begun
