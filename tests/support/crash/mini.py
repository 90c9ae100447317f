"""A tiny format that exists to show that the replay finds what it is for: one register, replaced by copying.

The file is a pointer sector and two slots. A store writes the slot that is not in use, flushes, points to it,
flushes. Each planted mistake leaves one of these out or swaps two. A slot is 1024 bytes, so that it can be torn.
"""

import asyncio
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from blockyard.node.interface.child import Child
from tests.support.crash.log import Log
from tests.support.crash.oracles import Crash

SECTOR: Final = 512
SLOT: Final = 1024
_POINTER: Final = struct.Struct("<I")


class Mistake(StrEnum):
    """What a writer does wrong."""

    NONE = "none"
    POINTER_FIRST = "pointer first"
    """Found by prefixes alone, as kill -9 would show."""
    NO_FLUSH_BEFORE_POINTER = "no flush before the pointer"
    """Found by lost and reordered writes only."""
    NO_FLUSH_AT_END = "no flush at the end"
    """Found because an acknowledged value is missing."""
    IN_PLACE = "in place"
    """Found by torn writes."""
    FLUSH_TOO_EARLY = "flush while the slot is still being written"


def empty() -> bytes:
    """The register holds 0."""
    return bytes(SECTOR + 2 * SLOT)


@dataclass(slots=True)
class Register:
    """The writer."""

    log: Log
    child: Child
    mistake: Mistake = Mistake.NONE
    slot: int = 0

    async def store(self, value: int) -> None:
        self.log.mark("begin", value=value)
        target = self.slot if self.mistake is Mistake.IN_PLACE else 1 - self.slot
        content = bytes([value]) * SLOT
        if self.mistake is Mistake.POINTER_FIRST:
            await self._point(target)
            await self.child.flush()
        if self.mistake is Mistake.FLUSH_TOO_EARLY:
            await self._store_and_flush_at_once(target, content)
        else:
            await self.child.write(SECTOR + target * SLOT, content)
            if self.mistake is not Mistake.NO_FLUSH_BEFORE_POINTER:
                await self.child.flush()
        if self.mistake is not Mistake.POINTER_FIRST:
            await self._point(target)
            if self.mistake is not Mistake.NO_FLUSH_AT_END:
                await self.child.flush()
        self.slot = target
        self.log.mark("acked", value=value)

    async def _point(self, slot: int) -> None:
        await self.child.write(0, _POINTER.pack(slot))

    async def _store_and_flush_at_once(self, slot: int, content: bytes) -> None:
        await asyncio.gather(self.child.write(SECTOR + slot * SLOT, content), self.child.flush())


class RegisterOracle:
    """The register holds the last acknowledged value, or the one that was being stored."""

    def problems(self, crash: Crash) -> list[str]:
        content = (crash.directory / "register").read_bytes()
        slot = _POINTER.unpack_from(content)[0]
        stored = content[SECTOR + slot * SLOT :][:SLOT]
        acked = [mark.detail["value"] for mark in crash.marks("acked")]
        begun = [mark.detail["value"] for mark in crash.marks("begin")]
        allowed = {acked[-1] if acked else 0, begun[-1] if begun else 0}
        if len(set(stored)) != 1:
            return [f"slot {slot} is torn between {sorted(set(stored))}"]
        return [] if stored[0] in allowed else [f"found {stored[0]}, possible are {sorted(allowed)}"]
