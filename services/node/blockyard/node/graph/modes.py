"""The mode a node's driver is open in, and the change of it under its users: for reading, for writing, handed over.

Here: nodes that become writable when a writer comes (`auto_read_only`), layers that a job writes to, and the
hand-over of an image to another process (QEMU's bdrv_inactivate and bdrv_activate). Must not change edges or
definitions.

Theory. `definition` says what the client allowed, `context` how the driver is open now. A file goes from one mode
to another with its locks (`Reconfigurable`); a format is closed and opened again, so that it writes back
everything, or reads everything anew; what keeps its bytes in itself (memory, filters) only learns the new mode.
Whoever gains goes children first, whoever loses parents first: a parent never stands on a child that allows less
than it needs, and the way back from a failure only gives up what was just gained, which cannot fail for a lock.

Invariants
1. A node is drained while its own mode changes. All nodes of a change have the new mode afterwards, or all the old.
2. A node that was handed over holds nothing against other processes; it reads what it still finds, and nothing
else.
3. After activation nothing is believed that was read before it, and no bitmap misses what others wrote meanwhile.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from blockyard.base.errors import BackingChanged, BlockError, NodeInUse, NodeReadOnly
from blockyard.node.graph import requests
from blockyard.node.graph.chain import subtree
from blockyard.node.graph.definition import driver_options
from blockyard.node.graph.drain import drained
from blockyard.node.graph.permissions import refresh, tell
from blockyard.node.interface.abilities import Reconfigurable
from blockyard.node.interface.driver import FormatDriver
from blockyard.node.interface.flags import Role
from blockyard.node.interface.permissions import CHANGING

if TYPE_CHECKING:
    from blockyard.node.graph.edge import Edge
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node
    from blockyard.node.interface.driver import Driver, DriverContext


# --- reading and writing ---------------------------------------------------------------------------------


async def set_writable(graph: "Graph", node: "Node", writable: bool) -> None:
    """Open a node, and what holds its data, again for writing or for reading only. Users and edges stay.

    Raises what opening raises, NodeReadOnly for a writer that is there, PermissionConflict, NodeInactive; then
    everything is as it was.
    """
    async with _alone(node):
        if not node.active:
            raise node.write_refusal()
        # Where the driver is open so already, only the graph had it otherwise.
        below = _below(node, read_only=writable) if node.context.read_only is writable else []
        await _switch(graph, [node, *below], read_only=not writable)


async def ready_to_write(graph: "Graph", node: "Node") -> None:
    """Let a node become writable if it waits for a writer; to be called before one comes.

    Raises NodeReadOnly for a node that may not be written, FileReadOnly or FileBusy for a file that cannot be.
    """
    if node.active and not _read_only(node) and not any(each.mode_lock.locked() for each in subtree(node)):
        return
    async with _alone(node):
        if not node.active:
            raise node.write_refusal()
        found = _read_only(node)
        for each in found:
            if not each.waits_for_writer:
                raise NodeReadOnly(each.name)
        if found:
            await _switch(graph, found, read_only=False)


async def settle(graph: "Graph", node: "Node") -> None:
    """After a writer left: what waits for writers and has none is open for reading only again."""
    async with _alone(node):
        found: list[Node] = []
        for each in (node, *_below(node, read_only=False)):
            needed = any(
                edge.permissions.used & CHANGING and (edge.parent is None or edge.parent not in found)
                for edge in each.parents
            )
            if each.waits_for_writer and each.active and not each.read_only and not needed:
                found.append(each)
        if found and graph.nodes.get(node.name) is node:
            with suppress(BlockError):  # it stays writable, which is what it was
                await _switch(graph, found, read_only=True)


def _read_only(node: "Node") -> "list[Node]":
    return [each for each in (node, *_below(node, read_only=True)) if each.read_only]


@asynccontextmanager
async def _alone(node: "Node") -> AsyncIterator[None]:
    """Nobody else changes the mode of the node or of anything below it. Locks are taken in one order by all."""
    async with AsyncExitStack() as held:
        for each in sorted(subtree(node), key=lambda each: each.uid):
            await held.enter_async_context(each.mode_lock)
        yield


def _below(node: "Node", *, read_only: bool) -> "list[Node]":
    """What holds a node's data, parents first, as far as it is in this mode. Backing files are others' data.

    A child that has other parents stays as they need it, unless more is asked of it.
    """
    found: list[Node] = []
    pending = list(node.children.values())
    while pending:
        edge = pending.pop()
        child = edge.node
        if edge.role in (Role.BACKING, Role.TARGET) or child in found:
            continue
        shared = any(other.parent is not edge.parent for other in child.parents)
        if child.read_only is read_only and (read_only or not shared):
            found.append(child)
        pending.extend(child.children.values())
    return found


# --- hand-over -------------------------------------------------------------------------------------------


async def inactivate(graph: "Graph", node: "Node") -> None:
    """Hand a node's files over: flushed, written back, and open for whoever comes next.

    Nodes below go with it as far as nothing active stands on them. Raises NodeInUse that names who writes or stands
    above; then nothing has changed.
    """
    async with _alone(node):
        if not node.active:
            return
        group = _handed_over_with(node)
        _check_unwritten(node, group)
        for each in group:
            each.resumes_read_only = each.read_only
        await _switch(graph, group, read_only=True, inactive=True)


async def activate(graph: "Graph", node: "Node") -> None:
    """Take a node, and what is below it, back: locked again, and read anew.

    Raises FileBusy while another process has a file, BackingChanged for a header that names another chain now, and
    what opening raises; then all of it is handed over as before.
    """
    async with _alone(node):
        group = [each for each in subtree(node) if not each.active]
        if group:
            await _switch(graph, group, inactive=False)
    for each in group:
        for bitmap in each.bitmaps.values():
            bitmap.resize(each.driver.size)
            if bitmap.recording:
                bitmap.mark(0, each.driver.size)
    graph.changed(*group)


def _handed_over_with(node: "Node") -> "list[Node]":
    group: list[Node] = []
    for each in subtree(node):
        stays = any(
            edge.parent is not None and edge.parent.active and edge.parent not in group for edge in each.parents
        )
        if each is node or (each.active and not stays):
            group.append(each)
    return group


def _check_unwritten(node: "Node", group: "list[Node]") -> None:
    inside: set[Edge] = {edge for each in group for edge in each.children.values()}
    for each in group:
        against = [
            edge.holder
            for edge in each.parents
            if edge not in inside
            and (edge.permissions.used & CHANGING or (edge.parent is not None and edge.parent.active))
        ]
        against += [edge.frozen_reason for edge in each.children.values() if edge.frozen_reason]
        if against:
            raise NodeInUse(each.name, "hand over", ", ".join(against))


# --- the change itself -----------------------------------------------------------------------------------


async def _switch(
    graph: "Graph", nodes: "list[Node]", *, read_only: bool | None = None, inactive: bool = False
) -> None:
    """Change the mode of nodes, parents first in the list. `read_only` None is what each was before a hand-over."""
    wanted = {node.uid: node.resumes_read_only if read_only is None else read_only for node in nodes}
    gains = read_only is None or not read_only
    with ExitStack() as failing:
        _look_ahead(nodes, wanted, failing, gains=gains)
        await _change_all(nodes, wanted, inactive, gains=gains)
        failing.pop_all()
    graph.changed(*nodes)


def _look_ahead(nodes: "list[Node]", wanted: dict[str, bool], failing: ExitStack, *, gains: bool) -> None:
    """Whether permissions allow it. Who gains has the flags at once, for its driver opens with them."""
    before = {node.uid: node.read_only for node in nodes}

    def flags(values: dict[str, bool]) -> None:
        for node in nodes:
            node.read_only = values[node.uid]

    def restore() -> None:
        flags(before)
        refresh(*nodes)

    flags(wanted)
    try:
        refresh(*nodes)
    except BlockError:
        flags(before)
        raise
    if gains:
        failing.callback(restore)
    else:
        restore()


async def _change_all(nodes: "list[Node]", wanted: dict[str, bool], inactive: bool, *, gains: bool) -> None:
    changed: list[tuple[Node, bool, bool, bool]] = []
    try:
        for node in reversed(nodes) if gains else nodes:
            before, read_only = node.context, wanted[node.uid]
            # Noted first: a change that its caller did not wait for may have been made.
            changed.append((node, node.read_only, before.read_only, before.inactive))
            async with drained(node):
                if not gains:
                    await requests.flush(node)
                await _take_up(node, read_only or inactive, inactive)
                node.read_only = read_only or inactive
        if not gains:
            refresh(*nodes)  # a writer may have come meanwhile
    except BaseException:
        for node, flag, read_only, was_inactive in reversed(changed):
            async with drained(node):
                node.read_only = flag
                await _take_up(node, read_only, was_inactive)
        refresh(*nodes)
        raise


async def _take_up(node: "Node", read_only: bool, inactive: bool) -> None:
    """Bring one driver into a mode; it stays as it was if that fails."""
    before = node.context
    if (before.read_only, before.inactive) == (read_only, inactive):
        return
    context = replace(before, read_only=read_only, inactive=inactive)
    if isinstance(node.driver, Reconfigurable):
        await node.driver.reconfigure(context)
    elif isinstance(node.driver, FormatDriver):
        await _open_again(node, context)
    else:
        before.read_only, before.inactive = read_only, inactive
        return
    node.context = context
    node.adopt_driver()
    tell(node)


async def _open_again(node: "Node", context: "DriverContext") -> None:
    class_, old = type(node.driver), node.driver
    options = driver_options(class_, node.definition.options)
    if node.context.read_only:
        # It has nothing to write back, so the new one is open before it goes.
        node.driver = await _opened(node, class_, options, context)
        await old.close()
        return
    await old.close()
    try:
        node.driver = await _opened(node, class_, options, context)
    except BaseException:
        node.driver = await class_.open(options, node.context)
        node.adopt_driver()
        raise


async def _opened(node: "Node", class_: "type[Driver]", options: object, context: "DriverContext") -> "Driver":
    driver = await class_.open(options, context)
    if isinstance(driver, FormatDriver) and node.context.inactive and not context.inactive:
        found, was = driver.backing(), cast("FormatDriver", node.driver).backing()
        if found != was:
            await driver.close()
            shown = [reference.filename if reference else "none" for reference in (was, found)]
            raise BackingChanged(node.filename or node.name, *shown)
    return driver
