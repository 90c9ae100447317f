"""Copy sessions over files that a test can hold back: the scenes of `tests/copying`."""

from typing import Any

from blockyard.base.units import KIB
from blockyard.node.copying.spec import CopyKind, CopyMode, SessionSpec
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.node import Node
from tests.support.yard import Yard, random_bytes

GRANULE = 64 * KIB


async def open_gated(ground: Yard, driver: str, name: str, filename: str) -> Node:
    """A node over a file with gates (see `tests.support.gated`)."""
    file = NodeDefinition("gated", options={"filename": filename})
    return await ground.graph.open(NodeDefinition(driver, name, children={"file": file}))


async def source_and_target(ground: Yard, size: int = 4 * GRANULE) -> bytes:
    """Two raw nodes over gated files, `source` with random bytes and `target` with zeroes; the bytes."""
    data = random_bytes(1, size)
    ground.raw_file("source.raw", data)
    ground.raw_file("target.raw", size)
    await open_gated(ground, "raw", "source", "source.raw")
    await open_gated(ground, "raw", "target", "target.raw")
    return data


async def chain(ground: Yard, sizes: tuple[int, int, int], **data: tuple[int, bytes]) -> tuple[Node, Node, Node]:
    """base <- middle <- top with these sizes and, in a layer, bytes (offset, data); top, middle, base."""
    below = ""
    for size, name in zip(sizes, ("base", "middle", "top"), strict=True):
        backing = {"backing_file": f"{below}.qcow2", "backing_fmt": "qcow2"} if below else {}
        await ground.create_qcow2(f"{name}.qcow2", size, **backing)
        if name in data:
            await ground.open("qcow2", "filling", f"{name}.qcow2")
            user = ground.use("filling")
            await user.write(*data[name])
            ground.graph.release(user)
            await ground.graph.close("filling")
        below = name
    top = await ground.open("qcow2", "top", "top.qcow2")
    assert top.backing is not None and top.backing.node.backing is not None
    return top, top.backing.node, top.backing.node.backing.node


async def raw_target(ground: Yard, size: int) -> None:
    """An empty raw node `target`."""
    ground.raw_file("target.raw", size)
    await ground.open("raw", "target", "target.raw")


def holders(ground: Yard) -> dict[str, list[str]]:
    """Who holds which node."""
    return {name: sorted(node.holders()) for name, node in ground.graph.nodes.items()}


def job(kind: CopyKind, mode: CopyMode = CopyMode.BACKGROUND, **options: Any) -> SessionSpec:
    """Session `j` from `source` to `target`."""
    return SessionSpec("j", "job/j", kind, "source", "target", copy_mode=mode, **options)
