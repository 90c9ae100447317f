"""The mode a node's driver is open in, and the change of it under its users: for reading, for writing, handed over.

Here: nodes that become writable when a writer comes (`auto_read_only`), layers that a job writes to, and the
hand-over of an image to another process (QEMU's bdrv_inactivate and bdrv_activate). Must not change edges or
definitions.

Theory. `definition` says what the client allowed, `context` how the driver is open now; how it gets from one mode
to another is `graph.switching`. Nobody else changes the nodes meanwhile (`graph.claims`). Whoever gains goes
children first, whoever loses parents first: a parent never stands on a child that allows less than it needs, and
the way back from a failure only gives up what was just gained, which cannot fail for a lock.

Invariants
1. A node is drained while its own mode changes. All nodes of a change have the new mode afterwards, or all the old.
2. A node that was handed over holds nothing against other processes; it reads what it still finds, and nothing
else.
3. After activation nothing is believed that was read before it, and no bitmap misses what others wrote meanwhile.
"""

from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from blockyard.base.errors import BlockError, NodeInUse, NodeReadOnly
from blockyard.node.graph import requests
from blockyard.node.graph.chain import subtree
from blockyard.node.graph.claims import alone
from blockyard.node.graph.definition import driver_options
from blockyard.node.graph.drain import drained
from blockyard.node.graph.guarding import presume_dirty
from blockyard.node.graph.permissions import refresh
from blockyard.node.graph.switching import Switching
from blockyard.node.interface.flags import Role
from blockyard.node.interface.permissions import CHANGING

if TYPE_CHECKING:
    from blockyard.node.graph.edge import Edge
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node


# --- reading and writing ---------------------------------------------------------------------------------


async def set_writable(graph: "Graph", node: "Node", writable: bool) -> None:
    """Open a node, and what holds its data, again for writing or for reading only. Users and edges stay.

    Raises what opening raises, NodeReadOnly for a writer that is there, PermissionConflict, NodeInactive; then
    everything is as it was.
    """
    async with alone(node):
        if not node.active:
            raise node.write_refusal()
        # Where the driver is open so already, only the graph had it otherwise.
        below = _below(node, read_only=writable) if node.context.read_only is writable else []
        await _switch(graph, [node, *below], read_only=not writable)


async def ready_to_write(graph: "Graph", node: "Node") -> None:
    """Let a node become writable if it waits for a writer; to be called before one comes.

    Raises NodeReadOnly for a node that may not be written, FileReadOnly or FileBusy for a file that cannot be.
    """
    if node.active and not _read_only(node) and not any(each.claim is not None for each in subtree(node)):
        return
    async with alone(node):
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
    async with alone(node):
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
    async with alone(node):
        if not node.active:
            return
        group = _handed_over_with(node)
        _check_unwritten(node, group)
        for each in group:
            each.resumes_read_only = each.read_only
        for each in group:
            await presume_dirty(each)
        await _switch(graph, group, read_only=True, inactive=True)


async def activate(graph: "Graph", node: "Node") -> None:
    """Take a node, and what is below it, back: locked again, and read anew.

    Raises FileBusy while another process has a file, BackingChanged for a header that names another chain now, and
    what opening raises; then all of it is handed over as before.
    """
    async with alone(node):
        group = [each for each in subtree(node) if not each.active]
        if group:
            await _switch(graph, group, inactive=False)
    for each in group:
        for bitmap in each.bitmaps.values():
            bitmap.resize(each.driver.size)
            if bitmap.recording and not bitmap.in_image:
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
    options = driver_options(type(node.driver), node.definition.options)
    context = replace(before, read_only=read_only, inactive=inactive)
    switching = Switching(node, options, options, context)
    try:
        await switching.let_go()
        await switching.take_up()
    except BaseException:
        await switching.restore()
        raise
