"""Ephemeral nodes: a temporary overlay takes the name, and what the client defined is below it, only read.

QEMU's `snapshot=on` (bdrv_append_temp_snapshot): a qcow2 overlay in a file without a name, which nobody flushes,
for it is gone at close. Must not open anything; `graph.opening` does, and asks here what.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blockyard.base.ranges import align_up
from blockyard.base.units import SECTOR
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.interface.flags import DetectZeroes

if TYPE_CHECKING:
    from blockyard.node.interface.driver import DriverContext


def overlay_of(definition: NodeDefinition) -> NodeDefinition:
    """What is opened for an ephemeral definition."""
    below = replace(definition, node_name="", ephemeral=False, labels={}, detect_zeroes=DetectZeroes.OFF)
    return NodeDefinition(
        "qcow2",
        definition.node_name,
        children={
            "file": NodeDefinition(
                "file", options={"temporary": True}, no_flush=True, executor=definition.executor
            ),
            "backing": _only_read(below),
        },
        no_flush=True,
        discard=definition.discard,
        detect_zeroes=definition.detect_zeroes,
        labels=definition.labels,
        executor=definition.executor,
    )


async def make_overlay(class_: Any, context: "DriverContext") -> None:
    """Format the nameless file, as large as what is below it."""
    size = align_up(context.children["backing"].size, SECTOR)
    await class_.create(class_.CreateOptions(size=size), context)


def _only_read(definition: NodeDefinition) -> NodeDefinition:
    children = {
        name: _only_read(child) if isinstance(child, NodeDefinition) else child
        for name, child in definition.children.items()
    }
    return replace(definition, read_only=True, auto_read_only=False, children=children)
