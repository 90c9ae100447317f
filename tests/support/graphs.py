"""A graph over one directory for tests, and a way to put nodes of test drivers into it."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from blockyard.base.clock import Clock, SystemClock
from blockyard.node.core.pool import FairPool
from blockyard.node.drivers.catalogue import driver_class
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.edge import Edge
from blockyard.node.graph.environment import Environment
from blockyard.node.graph.graph import Graph
from blockyard.node.graph.node import Node
from blockyard.node.graph.permissions import refresh
from blockyard.node.graph.user import User
from blockyard.node.interface.driver import Driver, DriverContext
from blockyard.node.interface.flags import DetectZeroes, Role
from blockyard.node.storage import RootedStorage
from tests.support.strict import StrictDriver, StrictOptions
from tests.support.toycow import ToyCowDriver, ToyCowOptions


class GraphGround:
    """A graph with storage in `root`. Leave it, and every node is closed."""

    def __init__(self, root: Path, clock: Clock | None = None, **settings: Any) -> None:
        self.root = root
        self.storage = RootedStorage([root])
        self.pool = FairPool(2)
        self.clock = clock or SystemClock()
        self.graph = Graph(Environment(self.storage, self.pool, self.clock, **settings))
        self._numbers = itertools.count(1)

    async def leave(self) -> list[str]:
        """Close everything; what went wrong."""
        problems = await self.graph.close_all()
        await self.graph.executors.close()
        await self.pool.close()
        self.storage.close()
        return problems

    # --- nodes of real drivers ---------------------------------------------------------------------------

    async def memory(self, name: str, size: int, **settings: Any) -> Node:
        return await self.graph.open(NodeDefinition("memory", name, {"size": size}, **settings))

    async def raw(self, name: str, child: Node | NodeDefinition, **options: Any) -> Node:
        below = child.name if isinstance(child, Node) else child
        return await self.graph.open(NodeDefinition("raw", name, options, {"file": below}))

    def file(self, name: str, size: int) -> NodeDefinition:
        """The definition of a fresh file of that size."""
        with (self.root / name).open("wb") as file:
            file.truncate(size)
        return NodeDefinition("file", options={"filename": name})

    async def qcow2(self, name: str, filename: str, size: int, **options: Any) -> Node:
        """A fresh qcow2 image, made and opened by our driver."""
        class_: Any = driver_class("qcow2")
        self.file(filename, 0)
        definition = NodeDefinition("file", options={"filename": filename})
        below = await self.graph.open(replace(definition, node_name="fresh"))
        edge = Edge(None, "file", Role.FILE, below)
        await class_.create(class_.CreateOptions(size=size, **options), self._context("fresh", {"file": edge}))
        edge.detach()
        await self.graph.close("fresh")
        return await self.graph.open(NodeDefinition("qcow2", name, children={"file": definition}))

    # --- nodes of test drivers ---------------------------------------------------------------------------

    async def strict(self, name: str = "", detect_zeroes: DetectZeroes = DetectZeroes.OFF, **options: Any) -> Node:
        return await self.adopt(StrictDriver, StrictOptions(**options), {}, name, detect_zeroes=detect_zeroes)

    async def toycow(
        self,
        file: Node,
        backing: Node | None = None,
        name: str = "",
        detect_zeroes: DetectZeroes = DetectZeroes.OFF,
        **options: Any,
    ) -> Node:
        children = {"file": file} | ({"backing": backing} if backing is not None else {})
        made = ToyCowOptions(**options)
        return await self.adopt(ToyCowDriver, made, children, name, detect_zeroes=detect_zeroes)

    async def adopt(
        self, driver: type[Driver], options: Any, children: dict[str, Node], name: str = "", **settings: Any
    ) -> Node:
        """What `Graph.open` does, for a driver that is in no catalogue."""
        name = name or f"{driver.name}{next(self._numbers)}"
        slots = {slot.name: slot.role for slot in driver.children}
        edges = {key: Edge(None, key, slots[key], child) for key, child in children.items()}
        context = self._context(name, edges)
        opened = await driver.open(options, context)
        definition = NodeDefinition(driver.name, name, **settings)
        node = Node(name, definition, opened, self.clock, context, read_only=context.read_only)
        for key, edge in edges.items():
            edge.parent = node
            node.children[key] = edge
        try:
            refresh(node)
        except BaseException:
            for edge in edges.values():
                edge.detach()
            raise
        self.graph.nodes[name] = node
        return node

    def _context(self, name: str, children: Mapping[str, Edge]) -> DriverContext:
        return DriverContext(
            node_name=name,
            read_only=False,
            children=dict(children),
            pool=self.graph.executors.share(name),
            storage=self.storage,
            clock=self.clock,
        )

    def use(self, node: Node, name: str = "test", *, writable: bool = True) -> User:
        return self.graph.use(node.name, "session", name, writable=writable)


async def content(user: User, offset: int = 0, length: int | None = None) -> bytes:
    """Bytes of a range, of the whole node by default."""
    buffer = bytearray(user.size - offset if length is None else length)
    await user.read(offset, memoryview(buffer))
    return bytes(buffer)
