"""One driver on its way to another mode or other options, under its users, and back if need be.

Must not change edges or definitions, nor judge permissions: `graph.modes` and `graph.reopening` do, and say in
which order nodes go.

Theory. A driver whose options stay and that can change its mode while it is open (`Reconfigurable`) does that: a
file goes from one mode to another with its locks. A format is closed and opened again, so that it writes back
everything, or reads everything anew; one that has nothing to write back stays open until its successor is. What
keeps its bytes in itself (memory, filters) only learns the new mode.
"""

from contextlib import AsyncExitStack
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from blockyard.base.errors import BackingChanged
from blockyard.node.graph import requests
from blockyard.node.graph.drain import drained
from blockyard.node.graph.permissions import tell
from blockyard.node.graph.persisting import adopt, store
from blockyard.node.interface.abilities import Reconfigurable
from blockyard.node.interface.driver import FormatDriver

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node
    from blockyard.node.interface.driver import Driver, DriverContext


class Switching:
    """From `present` options and the node's context to `options` and another context."""

    def __init__(self, node: "Node", present: Any, options: Any, context: "DriverContext") -> None:
        self.node = node
        self._present = present
        self._options = options
        self._context = context
        self._before = node.context
        self._values = replace(node.context)
        """What it says now: a driver that keeps it finds the new values in it."""
        class_ = type(node.driver)
        keeps_options = bool(present == options)
        self._changes = not keeps_options or context != node.context
        may_open = class_.reopens and (not keeps_options or issubclass(class_, FormatDriver))
        self._opens_again = self._changes and may_open
        self._is_open = True
        self._opened = False
        """Its successor is, or was."""
        self._held = AsyncExitStack()
        """Requests are held at the node while its driver cannot serve them, and no longer: parents need it."""

    async def let_go(self) -> None:
        """Close it, if it has to be before it is opened again: it writes back to children that are as they were."""
        if self._opens_again and not self._before.read_only:
            await self._hold()
            await self._close()

    async def take_up(self) -> None:
        """Bring it to what is asked. After a failure the driver is as it was, or closed: see `restore`."""
        node, context = self.node, self._context
        if self._opens_again:
            await self._hold()
            successor = await self._open()
            try:
                if self._is_open:
                    await self._close()
            except BaseException:
                await successor.close()
                raise
            node.driver, self._opened, self._is_open = successor, True, True
        elif self._changes and isinstance(node.driver, Reconfigurable):
            await self._hold()
            await requests.flush(node)
            await node.driver.reconfigure(context)
        elif self._changes:
            _overwrite(node.context, context)
            self._adopt(node.context)
            return
        self._adopt(context)
        if self._changes and node.on_mode is not None:
            await node.on_mode(node)
        await self._held.aclose()

    async def close_again(self) -> None:
        """Close what was opened, while edges are as they were meant to be."""
        if self._opened and self._is_open:
            await self._hold()
            await self._close()

    async def restore(self) -> None:
        """Bring it back, when edges are as they were. Raises what opening raises."""
        node = self.node
        async with self._held:
            if not self._is_open:
                node.driver = await type(node.driver).open(self._present, self._before)
                self._is_open = True
            elif node.context is not self._before and isinstance(node.driver, Reconfigurable):
                await self._hold()
                await node.driver.reconfigure(self._before)
            else:
                _overwrite(self._before, self._values)
            self._adopt(self._before)

    async def _hold(self) -> None:
        await self._held.enter_async_context(drained(self.node))

    async def _close(self) -> None:
        await store(self.node)
        self._is_open = False
        await self.node.driver.close()

    async def _open(self) -> "Driver":
        driver = await type(self.node.driver).open(self._options, self._context)
        if self._before.inactive and not self._context.inactive:
            await self._check_backing(driver)
        return driver

    async def _check_backing(self, opened: "Driver") -> None:
        """Raises BackingChanged if the header names another chain than before the hand-over."""
        was = self.node.driver
        if not isinstance(opened, FormatDriver) or not isinstance(was, FormatDriver):
            return
        references = (was.backing(), opened.backing())
        if references[0] != references[1]:
            await opened.close()
            shown = [reference.filename if reference else "none" for reference in references]
            raise BackingChanged(self.node.filename or self.node.name, *shown)

    def _adopt(self, context: "DriverContext") -> None:
        node = self.node
        node.context = context
        node.adopt_driver()
        adopt(node, anew=self._before.inactive and not context.inactive)
        tell(node)


def _overwrite(context: "DriverContext", values: "DriverContext") -> None:
    """Tell a driver that is neither opened anew nor can be told otherwise: it looks there (`DriverContext`)."""
    for item in fields(values):
        setattr(context, item.name, getattr(values, item.name))
