"""The node that an attachment without a medium uses: of size 0, in no graph, never asked for anything.

The seed's BlockDriverState without a driver. With it an attachment always has a node, and no request pays for the
question; `attachment_user` refuses requests before they come here.
"""

from typing import Self

from blockyard.base.errors import NoMedium
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.environment import Environment
from blockyard.node.graph.node import Node
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.driver import DriverContext, ProtocolDriver
from blockyard.node.interface.limits import Limits


class _NoMediumDriver(ProtocolDriver):
    name = ""
    Options = type(None)

    def __init__(self) -> None:
        self.size = 0
        self.limits = Limits()

    @classmethod
    async def open(cls, options: object, context: DriverContext) -> Self:
        return cls()

    async def read(self, offset: int, into: memoryview) -> None:
        raise NoMedium("")

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        raise NoMedium("")

    async def flush(self) -> None:
        raise NoMedium("")


def no_medium(environment: Environment) -> Node:
    """A node without a medium; its name is empty."""
    context = DriverContext(
        node_name="",
        read_only=False,
        children={},
        pool=environment.pool.share(""),
        storage=environment.storage,
        clock=environment.clock,
    )
    return Node("", NodeDefinition(""), _NoMediumDriver(), environment.clock, context=context, read_only=False)
