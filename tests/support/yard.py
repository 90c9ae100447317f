"""A real graph over a folder, for tests that need nodes but no network: images are made and opened by name."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

from blockyard.base.clock import SystemClock
from blockyard.node.copying.session import Session
from blockyard.node.copying.sessions import CopySessions
from blockyard.node.copying.spec import Order, SessionSpec
from blockyard.node.core.pool import FairPool
from blockyard.node.drivers.catalogue import driver_class
from blockyard.node.graph.catalogue import Catalogue
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.edge import Edge
from blockyard.node.graph.environment import Environment
from blockyard.node.graph.graph import Graph
from blockyard.node.graph.node import Node
from blockyard.node.graph.restoring import restore_all
from blockyard.node.graph.user import User
from blockyard.node.interface.driver import Creatable, DriverContext
from blockyard.node.interface.flags import Role
from blockyard.node.interface.keeper import Keeper
from blockyard.node.storage.rooted import RootedStorage


class Yard:
    """A graph, its folder, and shorthands in a test's words."""

    def __init__(self, folder: Path, environment: Environment, keeper: Keeper | None = None) -> None:
        self.folder = folder
        self.environment = environment
        self.graph = Graph(environment, Catalogue(keeper))
        self.sessions = CopySessions(self.graph)

    def file(self, filename: str, **options: Any) -> NodeDefinition:
        return NodeDefinition("file", options={"filename": filename}, **options)

    def raw_file(self, name: str, content: bytes | int) -> Path:
        """A raw image file with this content, or so many zero bytes."""
        path = self.folder / name
        with path.open("wb") as file:
            if isinstance(content, int):
                file.truncate(content)
            else:
                file.write(content)
        return path

    async def create_qcow2(self, filename: str, size: int, **options: Any) -> Path:
        self.raw_file(filename, 0)
        node = await self.graph.open(self.file(filename))
        class_ = driver_class("qcow2")
        assert isinstance(class_, Creatable)
        edge = Edge(None, "file", Role.FILE, node)
        context = DriverContext(
            node_name=filename,
            read_only=False,
            children={"file": edge},
            pool=self.environment.pool.share("create"),
            storage=self.environment.storage,
            clock=self.environment.clock,
        )
        await class_.create(class_.CreateOptions(size=size, **options), context)
        edge.detach()
        await self.graph.close(node.name)
        return self.folder / filename

    async def open(self, driver: str, name: str, filename: str, **options: Any) -> Node:
        children: dict[str, Any] = {"file": self.file(filename)}
        if "backing" in options:
            children["backing"] = options.pop("backing")
        return await self.graph.open(NodeDefinition(driver, name, children=children, **options))

    def use(self, name: str, *, writable: bool = True, user: str = "guest") -> User:
        return self.graph.use(name, "export", user, writable=writable)

    async def content(self, name: str) -> bytes:
        """Every byte of a node."""
        user = self.use(name, writable=False, user="content")
        data = bytearray(user.size)
        await user.read(0, memoryview(data))
        self.graph.release(user)
        return bytes(data)

    async def run(self, spec: SessionSpec) -> Session:
        """A session with its work done, not yet finished."""
        session = await self.sessions.create(spec, 1)
        await work_off(session)
        return session


async def work_off(session: Session, max_bytes: int = 8 << 20) -> None:
    """Order until nothing is left; a failing side raises."""
    while True:
        report = await session.run(Order(1, max_bytes))
        if report.failure is not None:
            raise report.failure.error
        if not report.remaining:
            return


def random_bytes(seed: int, length: int) -> bytes:
    return Random(seed).randbytes(length)


@asynccontextmanager
async def yard(
    folder: Path, *, roots: Sequence[Path] = (), keeper: Keeper | None = None, **environment: Any
) -> AsyncIterator[Yard]:
    """A graph whose storage root is the folder; everything is closed at the end, and closing must succeed.

    With a keeper it begins with what that has.
    """
    storage, pool = RootedStorage([os.fspath(root) for root in roots or (folder,)]), FairPool()
    made = Yard(folder, Environment(storage, pool, SystemClock(), **environment), keeper)
    try:
        await restore_all(made.graph)
        yield made
        made.graph.kept.catalogue.hold()
        await made.sessions.abandon_all()
        problems = await made.graph.close_all()
        assert problems == []
    finally:
        await made.graph.close_all()
        await pool.close()
        storage.close()
