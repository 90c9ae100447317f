"""A guest that keeps working on its disk over NBD, and knows to the byte what it wrote.

Several requests are in flight at once, never two that overlap (their order would be undefined). Besides writing it
zeroes, flushes, and reads back what it wrote before, so that a wrong byte is found while the jobs run.
"""

import asyncio
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

from blockyard.base.ranges import ByteRange
from blockyard.base.units import KIB
from blockyard.node.formats import nbd
from tests.e2e.ledger import UNIT, ZEROED, Ledger, pattern
from tests.support.nbd_peer import NbdPeer, Reply

DEPTH: Final = 4
PER_SECOND: Final = 400
"""Requests; a busy but not an endless guest, so that a mirror in background mode converges."""
LARGEST: Final = 64 * KIB


class GuestProblem(Exception):
    """The disk answered wrongly."""


class Guest:
    """Use it as a context manager; the disk is idle while it is frozen and after it was stopped."""

    def __init__(self, peer: NbdPeer, ledger: Ledger, seed: int = 1) -> None:
        self.ledger = ledger
        self.phase = "chain"
        """Latencies are kept apart by what goes on meanwhile."""
        self.latencies_ns: dict[str, list[int]] = defaultdict(list)
        self.written_bytes = self.requests = self.verified = 0
        self._peer = peer
        self._random = random.Random(seed)
        self._next_seed = 1
        self._busy: dict[int, ByteRange] = {}
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._recent: list[tuple[ByteRange, int]] = []
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def connect(cls, socket: Path, export: str, ledger: Ledger) -> "Guest":
        return cls(await NbdPeer.open(socket, export), ledger)

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._listen())]
        self._tasks += [asyncio.create_task(self._work()) for _ in range(DEPTH)]

    async def freeze(self) -> None:
        """Finish what is in flight and wait: the disk is what the ledger says."""
        self._thawed.clear()
        while self._busy:
            await asyncio.gather(*self._replies.values())
            await asyncio.sleep(0)
        self.check()

    def thaw(self) -> None:
        self._thawed.set()

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()
                raise GuestProblem("the guest stopped by itself")

    async def stop(self) -> None:
        """Freeze for good: flush and disconnect."""
        await self.freeze()
        await self._ask(nbd.CMD_FLUSH, ByteRange(0, 0))
        self._peer.request(nbd.CMD_DISC, 0)
        await self.abandon()

    async def abandon(self) -> None:
        """Stop where it is."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._peer.close()

    async def _listen(self) -> None:
        while True:
            reply = await self._peer.reply()
            self._replies.pop(reply.cookie).set_result(reply)

    async def _work(self) -> None:
        while True:
            await self._thawed.wait()
            began = time.monotonic()
            await self._one()
            pause = DEPTH / PER_SECOND - (time.monotonic() - began)
            await asyncio.sleep(max(pause, 0))

    async def _one(self) -> None:
        choice = self._random.random()
        if choice < 0.03:
            await self._ask(nbd.CMD_FLUSH, ByteRange(0, 0))
        elif choice < 0.18 and self._recent:
            await self._read_back(*self._random.choice(self._recent))
        else:
            await self._write(zeroes=choice > 0.92)

    async def _write(self, zeroes: bool) -> None:
        where = self._free_range()
        if where is None:
            return
        seed = ZEROED if zeroes else self._next_seed
        self._next_seed += 1
        if zeroes:
            await self._ask(nbd.CMD_WRITE_ZEROES, where, note=seed)
        else:
            await self._ask(nbd.CMD_WRITE, where, pattern(where.offset, where.length, seed), note=seed)
        self.written_bytes += where.length
        self._recent = [(where, seed), *self._recent[:63]]

    async def _read_back(self, where: ByteRange, seed: int) -> None:
        if any(where.overlaps(other) for other in self._busy.values()):
            return
        units = self.ledger.seeds[where.offset // UNIT : where.end // UNIT]
        if (units != seed).any():
            return  # written again since
        reply = await self._ask(nbd.CMD_READ, where)
        wanted = bytes(where.length) if seed == ZEROED else pattern(where.offset, where.length, seed)
        if reply.data != wanted:
            raise GuestProblem(f"read back something else at {where.offset}, +{where.length}, during {self.phase}")
        self.verified += 1

    async def _ask(self, kind: int, where: ByteRange, data: bytes = b"", note: int = 0) -> Reply:
        self.requests += 1
        cookie, phase, began_ns = self.requests, self.phase, time.perf_counter_ns()
        future = self._replies[cookie] = asyncio.get_running_loop().create_future()
        self._busy[cookie] = where
        self._peer.request(kind, cookie, where.offset, where.length, 0, data)
        try:
            reply = await future
            if reply.error:
                raise GuestProblem(
                    f"request {kind} at {where.offset} failed during {phase}: {reply.error} {reply.text}"
                )
            if note:
                self.ledger.note(where.offset, where.length, note)
        finally:
            del self._busy[cookie]
        self.latencies_ns[phase].append(time.perf_counter_ns() - began_ns)
        return reply

    def _free_range(self) -> ByteRange | None:
        length = UNIT * self._random.randint(1, LARGEST // UNIT)
        offset = UNIT * self._random.randrange((self.ledger.size - length) // UNIT + 1)
        where = ByteRange(offset, length)
        return None if any(where.overlaps(other) for other in self._busy.values()) else where
