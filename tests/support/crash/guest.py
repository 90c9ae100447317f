"""The guest's side: requests that leave marks in the log, and what a crash may show of them.

Theory. Take a crash at `cut` and a sector. A request that was acknowledged before a flush began that was itself
acknowledged before `cut` is certain. A value may stand in the sector if its request began before `cut` and no
certain request to that sector began after it was acknowledged. The initial value may stand there if no request to
the sector is certain. Anything else is wrong: lost, resurrected, torn inside a sector, or foreign.

A discard may take effect or not: it makes zeroes possible and nothing certain. A shrink zeroes what it cuts off.
"""

import random
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from blockyard.node.interface.child import Child
from tests.support.crash.log import Log, Op

SECTOR: Final = 512
MARK: Final = "guest"
SHOWN: Final = 3
"""Wrong sectors that a finding describes."""
_UNACKED: Final = 1 << 62


class Guest:
    """Sends requests to a child and marks them. `log.mark("guest", ...)` is the only trace it leaves."""

    def __init__(self, log: Log, child: Child, name: str = "guest", initial: bytes = b"", seed: int = 0) -> None:
        self._log = log
        self._child = child
        self.name = name
        self._numbers = random.Random(seed)
        self._count = 0
        self._log.mark(MARK, guest=name, what="initial", size=child.size, data=initial)

    async def write(self, offset: int, data: bytes | int, flags: int = 0) -> None:
        """`data` may be a length: then it is unique bytes."""
        plain = self._numbers.randbytes(data) if isinstance(data, int) else data
        number = self.begin("write", offset, len(plain), plain)
        await self._child.write(offset, plain, flags)
        self.acked(number)

    async def zero(self, offset: int, length: int, flags: int = 0) -> None:
        number = self.begin("zero", offset, length)
        await self._child.zero(offset, length, flags)
        self.acked(number)

    async def discard(self, offset: int, length: int) -> None:
        number = self.begin("discard", offset, length)
        await self._child.discard(offset, length)
        self.acked(number)

    async def resize(self, size: int) -> None:
        number = self.begin("resize", size, 0)
        await self._child.truncate(size, exact=True)
        self.acked(number)

    async def flush(self) -> None:
        number = self.begin("flush")
        await self._child.flush()
        self.acked(number)

    def begin(self, what: str, offset: int = 0, length: int = 0, data: bytes = b"") -> int:
        """For requests that are sent by other means (an NBD client, an RPC): mark, send, then `acked`."""
        assert offset % SECTOR == length % SECTOR == 0, "a guest's requests are whole sectors"
        self._count += 1
        self._log.mark(
            MARK, guest=self.name, what=what, number=self._count, offset=offset, length=length, data=data
        )
        return self._count

    def acked(self, number: int) -> None:
        """The guest was told that the request is done."""
        self._log.mark(MARK, guest=self.name, what="acked", number=number)


@dataclass(slots=True)
class _Request:
    what: str
    offset: int
    length: int
    rows: NDArray[np.uint64]
    began: int
    acked: int = _UNACKED

    @property
    def sectors(self) -> slice:
        return slice(self.offset // SECTOR, (self.offset + self.length) // SECTOR)


@dataclass(slots=True)
class _Moment:
    """What is known at one cut; advanced, never turned back."""

    flushed: int = -1
    """Where the latest acknowledged flush began."""
    certain_since: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """By sector: where the latest certain request to it began; -1 if there is none."""
    size_since: int = -1


class History:
    """One guest's requests, read back from a log."""

    def __init__(self, log: Log, name: str = "guest") -> None:
        self._requests: list[_Request] = []
        self._flushes: list[_Request] = []
        by_number: dict[int, _Request] = {}
        initial, size = b"", 0
        for entry in log.entries:
            if entry.op is not Op.MARK or entry.name != MARK or entry.detail["guest"] != name:
                continue
            detail = entry.detail
            if detail["what"] == "initial":
                initial, size = detail["data"], detail["size"]
            elif detail["what"] == "acked":
                by_number[detail["number"]].acked = entry.index
            else:
                by_number[detail["number"]] = self._add(detail, entry.index)
        self._resizes = [request for request in self._requests if request.what == "resize"]
        self._initial_size = size
        largest = max([size, *(request.offset + request.length for request in self._requests)])
        self._cut_off_by_shrinking(largest)
        self._sectors = -(-largest // SECTOR)
        self._initial = _rows(initial.ljust(self._sectors * SECTOR, b"\0"))
        self._moment = _Moment(certain_since=np.full(self._sectors, -1, np.int64))
        self._cut = 0

    def _add(self, detail: dict[str, object], index: int) -> _Request:
        offset, length, data = detail["offset"], detail["length"], detail["data"]
        assert isinstance(offset, int)
        assert isinstance(length, int)
        assert isinstance(data, bytes)
        rows = _rows(data) if data else np.zeros((length // SECTOR, SECTOR // 8), np.uint64)
        request = _Request(str(detail["what"]), offset, length, rows, index)
        (self._flushes if request.what == "flush" else self._requests).append(request)
        return request

    def _cut_off_by_shrinking(self, largest: int) -> None:
        for request in self._resizes:
            request.length = max(0, largest - request.offset)
            request.rows = np.zeros((-(-request.length // SECTOR), SECTOR // 8), np.uint64)

    def problems(self, found: bytes, cut: int) -> list[str]:
        """What is wrong with the guest's content after a crash at `cut`; empty if nothing is."""
        self._advance(cut)
        moment = self._moment
        sizes = self._sizes(cut)
        if len(found) not in sizes:
            return [f"the guest's size is {len(found)}, possible are {sorted(sizes)}"]
        count = min(len(found) // SECTOR, self._sectors)
        rows, since = _rows(found[: count * SECTOR]), moment.certain_since[:count]
        right = (since < 0) & _equal(rows, self._initial[:count])
        for request in self._requests:
            if request.began >= cut or right.all():
                continue
            where = slice(request.sectors.start, min(request.sectors.stop, count))
            if where.start < where.stop:
                same = _equal(rows[where], request.rows[: where.stop - where.start])
                right[where] |= same & (request.acked > since[where])
        wrong = np.flatnonzero(~right).tolist()
        if not wrong:
            return []
        shown = ", ".join(self._explain(sector, rows[sector], cut) for sector in wrong[:SHOWN])
        return [f"{len(wrong)} wrong sectors: {shown}"]

    def _sizes(self, cut: int) -> set[int]:
        began = [request for request in self._resizes if request.began < cut]
        sizes = {request.offset for request in began if request.acked > self._moment.size_since}
        return sizes if self._moment.size_since >= 0 else sizes | {self._initial_size}

    def _advance(self, cut: int) -> None:
        if cut < self._cut:
            self._moment = _Moment(certain_since=np.full(self._sectors, -1, np.int64))
        self._cut = cut
        moment = self._moment
        flushed = max((flush.began for flush in self._flushes if flush.acked < cut), default=-1)
        if flushed <= moment.flushed:
            return
        for request in self._requests:
            # What the flush before this one covered is counted already.
            if not moment.flushed <= request.acked < flushed or request.what == "discard":
                continue
            view = moment.certain_since[request.sectors]
            np.maximum(view, request.began, out=view)
            if request.what == "resize":
                moment.size_since = max(moment.size_since, request.began)
        moment.flushed = flushed

    def _explain(self, sector: int, row: NDArray[np.uint64], cut: int) -> str:
        """What stands in a wrong sector, as far as it can be told."""
        place = f"sector {sector}"
        for number, request in enumerate(self._requests, 1):
            where = request.sectors
            if where.start <= sector < where.stop and (request.rows[sector - where.start] == row).all():
                fate = "not begun" if request.began >= cut else "superseded"
                return f"{place} holds {request.what} {number} ({fate})"
        if not row.any():
            return f"{place} holds zeroes"
        if (self._initial[sector] == row).all():
            return f"{place} holds its initial value"
        return f"{place} holds foreign or torn bytes"


def _rows(data: bytes) -> NDArray[np.uint64]:
    return np.frombuffer(data, np.uint64).reshape(-1, SECTOR // 8)


def _equal(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.bool_]:
    return np.asarray((left == right).all(axis=1))
