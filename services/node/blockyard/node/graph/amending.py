"""Changing what an image's file fixes, under its users: the driver says which steps there are, the graph takes
them.

A step runs while the node is drained; a change of size is a resize like any other. What readers see never changes.
"""

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any, Final

from blockyard.base.errors import InvalidArgument, OperationUnsupported
from blockyard.node.graph.drain import drained
from blockyard.node.graph.internal_snapshots import check_none_shown
from blockyard.node.graph.modes import ready_to_write
from blockyard.node.graph.user import WRITER, User
from blockyard.node.interface.driver import FormatDriver
from blockyard.node.interface.flags import Preallocation
from blockyard.node.interface.operations import Amendable, AmendStep, Progress
from blockyard.node.interface.options import options_from

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node

_REFERENCE: Final = {"backing_file", "backing_fmt"}
"""Options that change what an image's header names."""


async def amend(
    graph: "Graph",
    node: "Node",
    options: Mapping[str, Any],
    progress: Progress,
    *,
    force: bool = False,
    validate_only: bool = False,
) -> None:
    """Change options. Raises OperationUnsupported, InvalidArgument, UnknownOption, NodeReadOnly; then nothing has
    changed. An error of a later step leaves the earlier ones made."""
    driver = node.driver
    if not isinstance(driver, Amendable):
        raise OperationUnsupported(node.name, driver.name, "amend an image's options")
    if not options:
        raise InvalidArgument("options", "at least one option", "none")
    wanted = options_from(f"amendment of driver {driver.name}", driver.AmendOptions, options)
    if validate_only:
        driver.amendment(wanted, force)
        return
    await ready_to_write(graph, node)
    assert isinstance(node.driver, Amendable)
    user = User("call", "AmendImage", node, True, WRITER)
    try:
        steps = node.driver.amendment(wanted, force)
        for number, step in enumerate(steps):
            progress(step.name, number, len(steps))
            await _make(graph, node, step, options.keys(), progress)
    finally:
        user.detach()
        graph.changed(node)


async def _make(graph: "Graph", node: "Node", step: AmendStep, wanted: Set[str], progress: Progress) -> None:
    if step.run is None:
        await graph.resize(node.name, step.size, Preallocation.OFF)
        return
    if step.online:
        await step.run(progress)
        return
    before = _reference(node)
    async with graph.snapshot_lock, drained(node):
        check_none_shown(node, "amend")
        if _REFERENCE & wanted:
            # The present link is kept from before the header names another one (see `surgery.set_backing`).
            await graph.kept.keep_link(node)
        try:
            await step.run(progress)
        finally:
            if (found := _reference(node)) != before:
                node.backing_filename, node.backing_format = found


def _reference(node: "Node") -> tuple[str, str]:
    found = node.driver.backing() if isinstance(node.driver, FormatDriver) else None
    return (found.filename, found.format) if found is not None else ("", "")
