"""A filter that makes requests fail, wait, lie or stop (QEMU's block/blkdebug.c).

As long as it has no rule, fault or breakpoint it passes requests on inline and costs one test. With any of them
nothing is done inline, so that no request and no event of what is above gets by.
"""

import asyncio
import errno
import os
import random
from typing import ClassVar, Final, Self

from blockyard.base.errors import InvalidArgument, IoError, NoSpace
from blockyard.node.core.injection import EVENTS, NO_EVENT, Fault, Machine, Strike
from blockyard.node.drivers.blkdebug.breakpoints import Breakpoint, Breakpoints
from blockyard.node.drivers.blkdebug.options import BlkdebugOptions, bits
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.debugging import BreakpointState, Notify
from blockyard.node.interface.driver import ChildSlot, DriverContext, FilterDriver
from blockyard.node.interface.flags import Role
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import Mapping
from blockyard.node.interface.permissions import Permissions

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class BlkdebugDriver(FilterDriver):
    """Breaks things on purpose: requests fail, wait, come back wrong or stop, when rules or DebugService say so."""

    name = "blkdebug"
    Options: ClassVar[type[BlkdebugOptions]] = BlkdebugOptions
    children: ClassVar[tuple[ChildSlot, ...]] = (ChildSlot("image", Role.FILTERED),)
    primary = "image"

    def __init__(self, options: BlkdebugOptions, context: DriverContext) -> None:
        self.file = context.children["image"]
        self._options = options
        self._context = context
        self.own_limits = options.has_limits
        self._machine = Machine(random.Random(options.seed))
        self._breakpoints = Breakpoints()
        self._take, self._unshare = bits(options.take_child_perms), bits(options.unshare_child_perms)

    @classmethod
    async def open(cls, options: BlkdebugOptions, context: DriverContext) -> Self:
        options.check_limits(context.children["image"].limits)
        driver = cls(options, context)
        for rule in options.rules():
            driver._machine.add(rule)
        driver._machine.emitted(NO_EVENT)
        driver._look()
        return driver

    async def close(self) -> None:
        self._breakpoints.clear()

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        return self._options.limits(self.file.limits) if self.own_limits else self.file.limits

    def child_permissions(self, child: str, role: Role, above: Permissions, *, writable: bool) -> Permissions:
        usual = super().child_permissions(child, role, above, writable=writable)
        return Permissions(usual.used | self._take, usual.shared & ~self._unshare)

    # --- requests ----------------------------------------------------------------------------------------

    def read_now(self, offset: int, into: memoryview) -> bool:
        return not self.listens and self.file.read_now(offset, into)

    async def read(self, offset: int, into: memoryview) -> None:
        strike = await self._met("read", offset, len(into))
        await self.file.read(offset, into)
        if strike is not None and strike.effect.corrupt:
            into[strike.byte] ^= 1 << strike.bit

    def write_now(self, offset: int, data: Buffer, flags: int) -> bool:
        return not self.listens and self.file.write_now(offset, data, flags)

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        strike = await self._met("write", offset, len(data))
        if strike is not None and strike.effect.corrupt:
            wrong = bytearray(data)
            wrong[strike.byte] ^= 1 << strike.bit
            data = wrong
        await self.file.write(offset, data, flags)

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        await self._met("write-zeroes", offset, length)
        return await super().zero(offset, length, flags)

    async def discard(self, offset: int, length: int) -> None:
        await self._met("discard", offset, length)
        await super().discard(offset, length)

    async def flush(self) -> None:
        await self._met("flush", 0, 0)
        await super().flush()

    async def map(self, offset: int, length: int) -> Mapping:
        await self._met("block-status", offset, length)
        return await super().map(offset, length)

    async def _met(self, request: str, offset: int, length: int) -> Strike | None:
        """Let a request meet the rules. Raises what they say, after the time they say."""
        if not self.listens:
            return None
        strike = self._machine.struck(request, offset, length)
        self._look()
        if strike is None:
            return None
        effect = strike.effect
        if effect.delay_ns:
            await self._context.clock.sleep(effect.delay_ns / 1e9)
        if effect.errno:
            if not effect.immediately:
                await asyncio.sleep(0)
            raise self._failure(request, effect.errno)
        return strike

    def _failure(self, request: str, number: int) -> NoSpace | IoError:
        name = self._context.node_name
        if number in _FULL:
            return NoSpace(name, request)
        return IoError(name, request, number, f"{os.strerror(number)}, injected")

    # --- events, breakpoints and faults ------------------------------------------------------------------

    async def debug_event(self, event: str) -> None:
        if self.listens:
            self._machine.emitted(event)
            await self._breakpoints.reached(event)

    def set_breakpoint(self, tag: str, event: str, notify: Notify) -> BreakpointState:
        """Raises InvalidArgument, ResourceExists or LimitReached."""
        if event not in EVENTS:
            raise InvalidArgument("event", f"one of {', '.join(EVENTS)}", repr(event[:64]))
        made = Breakpoint(tag, event, notify)
        self._breakpoints.add(made)
        self._look()
        return made.state

    def remove_breakpoint(self, tag: str) -> None:
        self._breakpoints.remove(tag)
        self._look()

    def resume(self, tag: str) -> BreakpointState:
        found = self._breakpoints.get(tag)
        found.release()
        return found.state

    def breakpoints(self) -> list[BreakpointState]:
        return [each.state for each in self._breakpoints.all()]

    def let_pass(self, passing: bool) -> None:
        self._breakpoints.let_pass(passing)

    def inject(self, fault: Fault) -> None:
        self._machine.inject(fault)
        self._look()

    def withdraw(self, fault_id: str) -> None:
        self._machine.withdraw(fault_id)
        self._look()

    def faults(self) -> list[Fault]:
        return list(self._machine.faults.values())

    def _look(self) -> None:
        self.listens = bool(self._breakpoints) or not self._machine.is_idle
