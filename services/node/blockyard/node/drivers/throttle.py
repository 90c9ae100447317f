"""Driver `throttle`: requests wait for their turn in a throttle group (QEMU's block/throttle.c).

Reads are on one side; writes, zeroes and discards on the other. Flushes, status and changes of size do not wait.
What the limits are and whose turn it is: the group's (`graph.throttling`).
"""

from dataclasses import dataclass
from typing import Self

from blockyard.base.clock import Clock
from blockyard.node.core.accounting import DISCARD, READ, WRITE, WRITE_ZEROES
from blockyard.node.core.throttle import READ_SIDE, WRITE_SIDE
from blockyard.node.interface.child import Buffer, Child
from blockyard.node.interface.driver import DriverContext, FilterDriver
from blockyard.node.interface.throttling import ThrottleMember


@dataclass(frozen=True, slots=True)
class ThrottleOptions:
    """Options of driver `throttle`."""

    throttle_group: str
    """The group whose limits it shares; it must exist."""


class ThrottleDriver(FilterDriver):
    """Limits the rate of requests."""

    name = "throttle"
    Options = ThrottleOptions

    def __init__(self, file: Child, member: ThrottleMember, clock: Clock) -> None:
        self.file = file
        self.member = member
        self._now_ns = clock.monotonic_ns

    @classmethod
    async def open(cls, options: ThrottleOptions, context: DriverContext) -> Self:
        member = context.throttling.join(options.throttle_group, context.node_name)
        return cls(context.children["file"], member, context.clock)

    async def close(self) -> None:
        self.member.leave()

    def read_now(self, offset: int, into: memoryview) -> bool:
        if not self.member.charge_now(READ_SIDE, len(into), self._now_ns()):
            return False
        if self.file.read_now(offset, into):
            return True
        # It will come again and await.
        self.member.refund(READ_SIDE, len(into))
        return False

    async def read(self, offset: int, into: memoryview) -> None:
        await self.member.wait(READ, len(into))
        await self.file.read(offset, into)

    def write_now(self, offset: int, data: Buffer, flags: int) -> bool:
        if not self.member.charge_now(WRITE_SIDE, len(data), self._now_ns()):
            return False
        if self.file.write_now(offset, data, flags):
            return True
        self.member.refund(WRITE_SIDE, len(data))
        return False

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        await self.member.wait(WRITE, len(data))
        await self.file.write(offset, data, flags)

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        await self.member.wait(WRITE_ZEROES, length)
        await self.file.zero(offset, length, flags)
        return True

    async def discard(self, offset: int, length: int) -> None:
        await self.member.wait(DISCARD, length)
        await self.file.discard(offset, length)
