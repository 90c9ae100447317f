"""A node small enough to be read at a glance: bytes in memory, sessions with a work map, guests that write.

It fulfils `blockyard.jobs.node.port.NodePort` under the same contract tests as the gRPC adapter, and can do what
a test wants of a bad day: errors on either side of a copy, calls that do not answer, streams that drop, a restart
that loses every session. Time is the clock's; `bytes_per_second` makes copying take some of it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from blockyard.base.clock import Clock
from blockyard.base.errors import (
    BlockError,
    InternalError,
    InvalidArgument,
    IoError,
    NodeInUse,
    NodeNotFound,
    NoSpace,
    OwnerMismatch,
    PeerUnavailable,
    ResourceBusy,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.base.ranges import ByteRange
from blockyard.jobs.copying.bell import Bell
from blockyard.jobs.node.port import (
    CopyKind,
    CopyMode,
    CopySide,
    FinishAction,
    NodeFacts,
    OnCbwError,
    Order,
    Report,
    Session,
    SessionRequest,
    SyncMode,
)

GRANULE = 4096


class Disk:
    """A node: what it holds itself, above a backing node."""

    def __init__(self, name: str, size: int, backing: "Disk | None" = None) -> None:
        self.name = name
        self.size = size
        self.backing = backing
        self.data = bytearray(size)
        self.held: set[int] = set()
        self.bitmaps: dict[str, set[int]] = {}

    def read(self, granule: int) -> bytes:
        start = granule * GRANULE
        if granule in self.held or self.backing is None:
            return bytes(self.data[start : start + GRANULE])
        return self.backing.read(granule) if start < self.backing.size else bytes(GRANULE)

    def write(self, granule: int, content: bytes) -> None:
        start = granule * GRANULE
        self.data[start : start + GRANULE] = content
        self.held.add(granule)

    @property
    def granules(self) -> range:
        return range(self.size // GRANULE)

    @property
    def content(self) -> bytes:
        return b"".join(self.read(granule) for granule in self.granules)

    def layers(self) -> Iterator["Disk"]:
        disk: Disk | None = self
        while disk:
            yield disk
            disk = disk.backing


@dataclass
class Fault:
    """An injected error: `times` copies of a granule fail on one side."""

    side: CopySide
    granules: range
    reason: str = NoSpace.reason
    times: int = 1


@dataclass
class LiveSession:
    request: SessionRequest
    token: int
    source: Disk
    target: Disk
    bell: Bell
    left: set[int] = field(default_factory=set)
    old: set[int] = field(default_factory=set)
    """backup: granules whose old data must be copied before the guest overwrites them."""
    copied: int = 0
    zero: int = 0
    skipped: int = 0
    dirtied: int = 0
    cursor: int = 0
    mode: CopyMode = CopyMode.BACKGROUND
    finished: FinishAction | None = None
    broken: bool = False

    def shown(self) -> Session:
        return Session(
            session_id=self.request.session_id,
            filter_node_name=self.request.filter_node_name or f"{self.request.session_id}-filter",
            granularity_bytes=GRANULE,
            size_bytes=self.source.size,
            remaining_bytes=len(self.left) * GRANULE,
            copied_bytes=self.copied,
            zero_bytes=self.zero,
            skipped_bytes=self.skipped,
            finished=self.finished,
            snapshot_broken=self.broken,
            fencing_token=self.token,
            domain=self.request.domain,
        )


class SmallNode:
    """The world: disks, guests, sessions, and what goes wrong."""

    def __init__(self, clock: Clock, bytes_per_second: int = 0) -> None:
        self.clock = clock
        self.bytes_per_second = bytes_per_second
        self.disks: dict[str, Disk] = {}
        self.guests: dict[str, str] = {}
        self.sessions: dict[str, LiveSession] = {}
        self.faults: list[Fault] = []
        self.finish_errors: list[BlockError] = []
        self.available = True
        self.lose_answers = 0
        self.create_gate = open_gate()
        self.finish_gate = open_gate()
        self.calls: list[str] = []
        self.orders: list[Order] = []
        self.streams: set[SmallStream] = set()

    # --- the scene ---

    def disk(self, name: str, granules: int = 64, *, fill: bytes = b"", backing: str = "") -> Disk:
        """A new node; `fill` is written to every granule, each with its own number."""
        disk = Disk(name, granules * GRANULE, self.disks[backing] if backing else None)
        for granule in disk.granules if fill else ():
            disk.write(granule, pattern(fill, granule))
        self.disks[name] = disk
        return disk

    def port(self, token: int = 1) -> "SmallPort":
        """The node as one incarnation of the jobs service sees it."""
        return SmallPort(self, token)

    def guest(self, name: str, node_name: str) -> None:
        self.guests[name] = node_name

    def guest_write(self, guest: str, granule: int, content: bytes) -> None:
        """What a guest's write does to the sessions above its node."""
        disk = self.disks[self.guests[guest]]
        watching = [live for live in self.sessions.values() if live.source is disk and live.finished is None]
        for live in watching:
            if granule in live.old:
                self._copy_before_write(live, granule)
        disk.write(granule, content)
        for live in watching:
            if live.request.kind is not CopyKind.MIRROR:
                continue
            live.dirtied += GRANULE
            if live.mode is CopyMode.WRITE_BLOCKING:
                live.target.write(granule, content)
                live.left.discard(granule)
            else:
                live.left.add(granule)
                live.bell.ring()

    def _copy_before_write(self, live: LiveSession, granule: int) -> None:
        failure = self._fault(CopySide.TARGET, granule)
        if failure and live.request.on_cbw_error is not OnCbwError.BREAK_SNAPSHOT:
            raise IoError("guest", "write", 5, failure)
        if failure:
            live.broken = True
        else:
            live.target.write(granule, live.source.read(granule))
            live.copied += GRANULE
        live.old.discard(granule)
        live.left.discard(granule)

    def fail(self, side: CopySide, granules: range, reason: str = NoSpace.reason, times: int = 1) -> None:
        self.faults.append(Fault(side, granules, reason, times))

    def drop_streams(self) -> None:
        for stream in list(self.streams):
            stream.break_off()

    def go_away(self) -> None:
        self.available = False
        self.drop_streams()

    def come_back(self) -> None:
        self.available = True

    def restart(self) -> None:
        """Sessions are lost; a guest's writes are seen by nobody until jobs begin again."""
        self.drop_streams()
        self.sessions.clear()

    # --- the mechanism ---

    def answer(self, name: str) -> None:
        self.calls.append(name)
        if not self.available:
            raise PeerUnavailable("node", "small", "gone")

    def may_lose(self) -> None:
        if self.lose_answers:
            self.lose_answers -= 1
            raise PeerUnavailable("node", "small", "the answer was lost")

    def live(self, session_id: str, token: int) -> LiveSession:
        live = self.sessions.get(session_id)
        if live is None:
            raise ResourceNotFound("copy session", session_id)
        if token < live.token:
            raise OwnerMismatch("copy session", session_id, f"token {live.token}", f"token {token}")
        live.token = token
        return live

    def create(self, request: SessionRequest, token: int, validate_only: bool) -> LiveSession:
        known = self.sessions.get(request.session_id)
        if known and known.finished is None:
            if known.request != request:
                raise ResourceExists("copy session", request.session_id)
            return self.live(request.session_id, token)
        source = self.find(request.source)
        target = source if request.kind is CopyKind.STREAM else self.find(request.target)
        for other in self.sessions.values():
            if other.finished is None and {other.source, other.target} & {source, target}:
                raise NodeInUse(source.name, "copy", other.request.owner)
        bell = Bell(self.clock)
        live = LiveSession(request, token, source, target, bell, mode=request.copy_mode or CopyMode.BACKGROUND)
        self._plan(live)
        if not validate_only:
            self.sessions[request.session_id] = live
        return live

    def find(self, name: str) -> Disk:
        if name not in self.disks:
            raise NodeNotFound(name)
        return self.disks[name]

    def _plan(self, live: LiveSession) -> None:
        everything = set(live.source.granules)
        sync = live.request.sync
        if sync is SyncMode.BITMAP and live.request.bitmap not in live.source.bitmaps:
            raise ResourceNotFound("bitmap", live.request.bitmap)
        backup = live.request.kind is CopyKind.BACKUP
        if sync is SyncMode.BITMAP:
            live.left = set(live.source.bitmaps[live.request.bitmap])
        elif sync is not SyncMode.NONE or backup:
            live.left = everything
        live.old = set(live.left) if backup else set()

    def _fault(self, side: CopySide, granule: int) -> str:
        for fault in self.faults:
            if fault.side is side and granule in fault.granules and fault.times:
                fault.times -= 1
                return fault.reason
        return ""

    def copy(self, live: LiveSession, granule: int) -> tuple[int, Report | None]:
        """One granule of the map. Bytes of data copied, and a report if it failed."""
        live.left.discard(granule)
        if not self._holds(live, granule):
            live.skipped += GRANULE
            return 0, None
        for side in (CopySide.SOURCE, CopySide.TARGET):
            reason = self._fault(side, granule)
            if reason:
                live.left.add(granule)
                where = ByteRange(granule * GRANULE, GRANULE)
                text = f"injected {reason}"
                return 0, Report(0, failed_side=side, failed_range=where, reason=reason, error_message=text)
        content = live.source.read(granule)
        live.target.write(granule, content)
        live.old.discard(granule)
        live.cursor = (granule + 1) * GRANULE
        if not any(content):
            live.zero += GRANULE
            return 0, None
        live.copied += GRANULE
        return GRANULE, None

    @staticmethod
    def _holds(live: LiveSession, granule: int) -> bool:
        """Whether the layers that are copied from hold the granule."""
        request = live.request
        if request.kind in (CopyKind.MIRROR, CopyKind.BACKUP):
            return request.sync is not SyncMode.TOP or granule in live.source.held
        stop = request.base if request.kind is CopyKind.STREAM else request.target
        layers = list(live.source.layers())
        if request.kind is CopyKind.STREAM:
            if granule in live.source.held:
                return False
            layers = layers[1:]
        for layer in layers:
            if layer.name == stop:
                return False
            if granule in layer.held:
                return True
        return False

    def finish(self, live: LiveSession, action: FinishAction) -> None:
        if live.finished and live.finished is not action:
            raise ResourceBusy("copy session", live.request.session_id, f"it ended by {live.finished}")
        if live.finished:
            return
        if self.finish_errors and action is not FinishAction.ABORT:
            raise self.finish_errors.pop(0)
        if action in (FinishAction.PIVOT, FinishAction.DETACH):
            self._copy_the_rest(live)
        elif action is FinishAction.COMPLETE:
            if live.left:
                raise InternalError("complete with work left")
            self._change_backing(live)
        if action is FinishAction.PIVOT:
            replaced = live.request.replaces or live.source.name
            moved = [guest for guest, node in self.guests.items() if node == replaced]
            self.guests.update(dict.fromkeys(moved, live.target.name))
        live.finished = action

    def _copy_the_rest(self, live: LiveSession) -> None:
        for granule in sorted(live.left):
            _, failed = self.copy(live, granule)
            if failed:
                raise IoError(live.target.name, "pivot", 5, failed.error_message)

    def _change_backing(self, live: LiveSession) -> None:
        request = live.request
        if request.kind is CopyKind.STREAM:
            live.source.backing = self.disks[request.base] if request.base else None
        elif request.kind is CopyKind.COMMIT:
            for disk in self.disks.values():
                if disk.backing is live.source:
                    disk.backing = live.target


class SmallPort:
    """NodePort over a SmallNode, for one incarnation."""

    def __init__(self, world: SmallNode, token: int) -> None:
        self.world = world
        self.token = token

    def fenced(self, token: int) -> "SmallPort":
        return SmallPort(self.world, token)

    async def get_node(self, node_name: str) -> NodeFacts:
        self.world.answer("get_node")
        disk = self.world.find(node_name)
        return NodeFacts(disk.name, disk.size, False, disk.backing.name if disk.backing else "")

    async def create_session(self, request: SessionRequest, *, validate_only: bool = False) -> Session:
        await self.world.create_gate.wait()
        self.world.answer("create_session")
        shown = self.world.create(request, self.token, validate_only).shown()
        self.world.may_lose()
        return shown

    async def get_session(self, session_id: str) -> Session:
        self.world.answer("get_session")
        live = self.world.sessions.get(session_id)
        if live is None:
            raise ResourceNotFound("copy session", session_id)
        return live.shown()

    async def adopt_session(self, session_id: str) -> Session:
        self.world.answer("adopt_session")
        shown = self.world.live(session_id, self.token).shown()
        self.world.may_lose()
        return shown

    async def list_sessions(self) -> list[Session]:
        self.world.answer("list_sessions")
        return [live.shown() for _, live in sorted(self.world.sessions.items())]

    @asynccontextmanager
    async def run_copy(self, session_id: str) -> AsyncIterator["SmallStream"]:
        stream = SmallStream(self.world, session_id, self.token)
        self.world.streams.add(stream)
        worker = asyncio.create_task(stream.work())
        try:
            yield stream
        finally:
            self.world.streams.discard(stream)
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    async def set_copy_mode(self, session_id: str, mode: CopyMode) -> Session:
        self.world.answer("set_copy_mode")
        live = self.world.live(session_id, self.token)
        if mode is CopyMode.BACKGROUND and live.mode is CopyMode.WRITE_BLOCKING:
            raise InvalidArgument("copy_mode", "WRITE_BLOCKING", str(mode))
        live.mode = mode
        return live.shown()

    async def finish_session(self, session_id: str, action: FinishAction) -> Session:
        await self.world.finish_gate.wait()
        self.world.answer(f"finish_session {action}")
        live = self.world.live(session_id, self.token)
        self.world.finish(live, action)
        self.world.may_lose()
        return live.shown()


class SmallStream:
    """One stream of orders, worked off in turn."""

    def __init__(self, world: SmallNode, session_id: str, token: int) -> None:
        self._world = world
        self._session_id = session_id
        self._token = token
        self._orders: deque[Order] = deque()
        self._reports: deque[Report | BlockError] = deque()
        self._ordered = Bell(world.clock)
        self._reported = Bell(world.clock)

    async def send(self, order: Order) -> None:
        self._world.orders.append(order)
        self._orders.append(order)
        self._ordered.ring()

    async def receive(self) -> Report:
        while not self._reports:
            self._reported.clear()
            await self._reported.wait()
        found = self._reports[0]
        if isinstance(found, BlockError):
            raise found
        self._reports.popleft()
        return found

    def break_off(self) -> None:
        self._end(PeerUnavailable("node", "small", "the stream dropped"))

    def _end(self, error: BlockError) -> None:
        self._orders.clear()
        self._reports = deque([error])
        self._reported.ring()

    async def work(self) -> None:
        try:
            self._world.answer("run_copy")
            while True:
                while not self._orders:
                    self._ordered.clear()
                    await self._ordered.wait()
                report = await self._execute(self._orders.popleft())
                self._reports.append(report)
                self._reported.ring()
        except BlockError as error:
            self._end(error)

    async def _execute(self, order: Order) -> Report:
        world = self._world
        live = world.live(self._session_id, self._token)
        if order.wait_seconds and not live.left:
            live.bell.clear()
            await live.bell.wait(order.wait_seconds)
        before = (live.copied, live.zero, live.skipped)
        failed = Report(order.order_id)
        data = 0
        for granule in sorted(live.left):
            start = granule * GRANULE
            inside = order.within is None or order.within.overlaps(ByteRange(start, GRANULE))
            if granule not in live.left or not inside:
                continue
            if data >= order.max_bytes:
                break
            copied, failure = world.copy(live, granule)
            data += copied
            if failure:
                failed = failure
                break
        if world.bytes_per_second and data:
            await world.clock.sleep(data / world.bytes_per_second)
        else:
            await asyncio.sleep(0)
        world.live(self._session_id, self._token)
        return replace(
            failed,
            order_id=order.order_id,
            copied_bytes=live.copied - before[0],
            zero_bytes=live.zero - before[1],
            skipped_bytes=live.skipped - before[2],
            remaining_bytes=len(live.left) * GRANULE,
            dirtied_bytes=live.dirtied,
            cursor_bytes=live.cursor,
        )


def open_gate() -> asyncio.Event:
    """Where a call waits while a test keeps it `clear`."""
    gate = asyncio.Event()
    gate.set()
    return gate


def pattern(fill: bytes, granule: int) -> bytes:
    """Content of a granule that names itself."""
    return (fill + granule.to_bytes(4, "big")).ljust(16, b".") * (GRANULE // 16)
