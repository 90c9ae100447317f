"""A copy session: the work, who owns it, and the orders that move it. What a kind means is in `copying.kinds`.

Invariants
1. `fencing_token` never falls; a caller with an older one is refused before anything happens.
2. A session that is finished keeps its answer and does no work; nothing of it moves once `finish` has returned,
   and nothing else moves while it ends: what an order has claimed is in no map.
3. Dropping the stream of orders ends no session: filter, map and tracking stay until it is finished.
4. Where the node keeps a catalogue, a session is in it from before it is acknowledged, and its end is there
   together with what the end changes of the graph, before a guest sees that: after a kill it has ended, or goes on.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from blockyard.base.errors import OwnerMismatch, ResourceBusy
from blockyard.base.failpoints import reach
from blockyard.base.ranges import ByteRange
from blockyard.node.copying.kept_map import KeptMap
from blockyard.node.copying.spec import KIND, Failure, FinishAction, Order, SessionSpec, SideFailed, Tally
from blockyard.node.copying.work import CHUNK, CopyWork
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.graph import requests
from blockyard.node.graph.bitmaps import Bitmap
from blockyard.node.graph.chain import below_filters
from blockyard.node.graph.tracking import asker
from blockyard.node.graph.user import SOLE_WRITER
from blockyard.node.interface.permissions import Permissions

if TYPE_CHECKING:
    from pathlib import Path

    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node
    from blockyard.node.graph.user import User

_log: Final = logging.getLogger(__name__)

CHECKPOINT_BYTES: Final = 16 << 20
"""Bytes that a kill may undo before they are flushed: jobs' window, and what is copied again at most, with what is
copied while the flush runs."""
ORDER_MAX: Final = 64 << 20
"""Bytes of data of one order: a report comes at least this often."""


class Recorder(Bitmap):
    """The work map as a bitmap of the source: guests' writes put granules back and wake an order that waits."""

    def __init__(self, name: str, bits: DirtyBitmap, owner: str) -> None:
        super().__init__(name, bits, owner=owner, internal=True)
        self.dirtied = 0
        self.arrived = asyncio.Event()

    def mark(self, offset: int, length: int) -> None:
        self.bits.mark(offset, length)
        self.dirtied += length
        if not self.arrived.is_set():
            self.arrived.set()


@dataclass(slots=True)
class Report:
    """The end of an order."""

    order_id: int
    tally: Tally
    remaining: int
    dirtied: int
    cursor: int
    failure: Failure | None = None


class Session:
    """Base of the four kinds."""

    lets_go: ClassVar[tuple[str, ...]] = ("source", "target")
    """Attributes that are gone once it has ended."""

    def __init__(
        self, graph: "Graph", spec: SessionSpec, token: int, source: "Node | None", target: "Node | None"
    ) -> None:
        self.graph = graph
        self.spec = spec
        self.token = token
        if source is not None:
            self.source: Node = source
        self.target = target
        self.filter: Node | None = None
        self.users: list[User] = []
        self.finished: FinishAction | None = None
        self.broken: Failure | None = None
        self.recorder: Recorder | None = None
        self.work: CopyWork
        self.folder: Path | None = None
        """Where maps are kept; None if they end with the process."""
        self.kept: KeptMap | None = None
        self.restored = False
        """An earlier process began it."""
        self.resumes = False
        """And its map says what is left."""
        self.filter_name = spec.filter_name
        self.sealed: FinishAction | None = None
        """How it ends: it is so after a kill, too, from the next commit of the catalogue on."""
        self._checkpoint: asyncio.Task[None] | None = None
        self._deferred: Failure | None = None
        self._ending = asyncio.Lock()
        self._asked: FinishAction | None = None
        self._moving = 0
        """Steps of orders under way."""
        self._at_rest: asyncio.Future[None] | None = None

    # --- what a kind says ------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Set everything up in one drained instant. Raises catalogue errors; then nothing changed."""
        raise AssertionError("a kind prepares")

    async def complete(self, action: FinishAction) -> None:
        """Do what the kind means."""
        raise AssertionError("a kind completes")

    async def undo(self) -> None:
        """Take everything away again. Never fails for a good reason."""
        raise AssertionError("a kind undoes")

    # --- orders ----------------------------------------------------------------------------------------

    def check_token(self, token: int) -> None:
        """Raises OwnerMismatch for an older incarnation; a newer one takes over."""
        if token < self.token:
            raise OwnerMismatch(
                "copy session", self.spec.session_id, f"{self.spec.owner}#{self.token}", f"#{token}"
            )
        self.token = token

    async def run(self, order: Order) -> Report:
        """Move work until the order's bytes are copied or nothing is left."""
        if self._ending.locked() and not self.finished:
            async with self._ending:
                pass  # it ends now, or fails to: then there is work again
        tally, failure = Tally(), self._take_failure()
        if not self._stopped and failure is None:
            try:
                await self._work_off(order, tally)
            except SideFailed as problem:
                failure = problem.failure
        return Report(order.order_id, tally, self.work.remaining, self.dirtied, self.work.cursor, failure)

    @property
    def dirtied(self) -> int:
        """Bytes that guests wrote since the session began."""
        return self.recorder.dirtied if self.recorder else 0

    async def _work_off(self, order: Order, tally: Tally) -> None:
        limit = min(order.max_bytes, ORDER_MAX)
        waited = False
        while tally.copied < limit and not self._stopped:
            done = await self._step(order.range, limit - tally.copied)
            if done is not None:
                tally.add(done)
            elif waited or not order.wait_ns or tally.copied or tally.zero:
                return
            else:
                await self._wait_for_work(order.wait_ns)
                waited = True
            # One order must not hold the loop: a long run of holes has no await that really waits.
            await asyncio.sleep(0)

    @property
    def _stopped(self) -> bool:
        """Whether orders do nothing: it has ended, or is just about to."""
        return self.finished is not None or self._ending.locked()

    async def _step(self, within: ByteRange | None, limit: int) -> Tally | None:
        self._moving += 1
        asker.set(self.spec.owner)
        try:
            done = await self.work.step(within, limit)
            self._checkpoint_if_due()
            return done
        finally:
            self._moving -= 1
            if not self._moving and self._at_rest is not None:
                self._at_rest.set_result(None)
                self._at_rest = None

    # --- what a kill may undo ----------------------------------------------------------------------------

    @property
    def flushes(self) -> "tuple[Node, ...]":
        """The nodes whose flush settles what was done: the one read for its guests' writes, the one written."""
        return tuple(below_filters(node) for node in (self.source, self.target) if node is not None)

    def _checkpoint_if_due(self) -> None:
        kept = self.kept
        if kept is None or not self.work.volatile or self._checkpoint is not None:
            return
        if kept.unsettled_bytes >= CHECKPOINT_BYTES:
            self._checkpoint = asyncio.create_task(self.checkpoint(), name=f"checkpoint of {self.spec.session_id}")
            self._checkpoint.add_done_callback(self._checkpointed)

    def _checkpointed(self, task: "asyncio.Task[None]") -> None:
        self._checkpoint = None
        if not task.cancelled() and (problem := task.exception()) is not None:
            # The copy goes on; the end of the session flushes again, and tells whoever asks for it.
            _log.warning("checkpoint of copy session %s: %s", self.spec.session_id, problem)

    async def checkpoint(self) -> None:
        """What was done up to now stands whatever happens to the process. Raises what a flush raises."""
        kept = self.kept
        if kept is None or any(node.no_flush for node in self.flushes):
            return
        self.work.begin_checkpoint()
        reach("node.checkpoint.before")
        try:
            for node in self.flushes:
                await requests.flush(node)
        except BaseException:
            kept.abandon_checkpoint()
            raise
        kept.end_checkpoint()
        reach("node.checkpoint.after")

    async def _rest(self) -> None:
        """Return when no order moves anything. Their callers see an end of the order, not an error."""
        while self._moving:
            if self._at_rest is None:
                self._at_rest = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._at_rest)

    async def _wait_for_work(self, wait_ns: int) -> None:
        if self.recorder is None:
            await self.graph.environment.clock.sleep(wait_ns / 1e9)
            return
        self.recorder.arrived.clear()
        try:
            async with asyncio.timeout(wait_ns / 1e9):
                await self.recorder.arrived.wait()
        except TimeoutError:
            return

    def note_failure(self, failure: Failure) -> None:
        """A copy beside a guest's write failed; the next report tells."""
        self._deferred = failure
        if self.recorder is not None:
            self.recorder.arrived.set()

    def _take_failure(self) -> Failure | None:
        failure, self._deferred = self._deferred, None
        return self.broken or failure

    async def catch_up(self) -> None:
        """Move about as much as is left now, though guests may add to it meanwhile; raises as `copy_rest`."""
        try:
            for _ in range(self.work.remaining // CHUNK + 1):
                if await self.work.step(None, ORDER_MAX) is None:
                    return
        except SideFailed as problem:
            raise problem.failure.error from problem

    async def copy_rest(self) -> None:
        """Move everything that is left; raises the error of the side that fails."""
        try:
            while True:
                if await self.work.step(None, ORDER_MAX) is None:
                    return
                await asyncio.sleep(0)  # what never really waits must not hold up everyone else
        except SideFailed as problem:
            raise problem.failure.error from problem

    # --- ending ----------------------------------------------------------------------------------------

    async def finish(self, action: FinishAction) -> None:
        """End the session; idempotent. Raises what the kind's ending raises; then the session goes on."""
        async with self._ending:
            if self.finished is not None:
                if self.finished is not action:
                    raise ResourceBusy(
                        "copy session", self.spec.session_id, f"it ended by {self.finished.name} already"
                    )
                return
            if self.broken and action is not FinishAction.ABORT:
                raise self.broken.error
            self._wake()
            await self._rest()
            if self._checkpoint is not None:
                await asyncio.wait((self._checkpoint,))
            self._asked = action
            reach("node.finish.before")
            if action is FinishAction.ABORT:
                await self.seal()
                await self.undo()
            else:
                await self.complete(action)
            self.finished = action
            self._wake()

    def seal_with_next_commit(self) -> Callable[[], None]:
        """Its end, as it was asked for, becomes durable together with what else the next commit makes durable; what
        takes that back if it fails."""
        self.sealed = self._asked
        self.graph.kept.catalogue.touch(KIND, self.spec.session_id)
        return self.unseal

    def unseal(self) -> None:
        """That commit failed."""
        self.sealed = None
        self.graph.kept.catalogue.touch(KIND, self.spec.session_id)

    async def seal(self) -> None:
        """Its end is durable now. Raises CatalogueNotWritten; then it has not ended."""
        reach("node.seal.before")
        await self.graph.kept.commit(self.seal_with_next_commit())
        reach("node.seal.after")

    def retire(self) -> None:
        """It ended: the answer stays, the map and the nodes (each with its caches) go."""
        self.work.retire()
        kept, self.kept = self.kept, None
        if kept is not None:
            kept.remove()
        if self.recorder is not None:
            self.recorder.bits = self.work.bits
        for name in self.lets_go:
            self.__dict__.pop(name, None)

    async def suspend(self) -> None:
        """Let go of the graph without an end: the next process goes on. Guests are gone already."""
        async with self._ending:
            self._wake()
            await self._rest()
            if self._checkpoint is not None:
                await asyncio.wait((self._checkpoint,))
            try:
                if self.kept is not None and not self.broken:
                    await self.checkpoint()
                    self.kept.put_back()
                    self.kept.close_whole()
            finally:
                self.kept = self.work.kept = None
                await self.undo()

    def _wake(self) -> None:
        if self.recorder is not None:
            self.recorder.arrived.set()

    # --- common steps of the kinds -----------------------------------------------------------------------

    def take(self, node: "Node", role: str, *, writable: bool, permissions: Permissions | None = None) -> "User":
        """Hold a node for the session; released at the end. Whoever only holds stays at that very node.

        A node that the session writes to is written by nobody else, unless `permissions` say so.
        """
        kind = self.spec.owner.partition("/")[0]
        permissions = permissions or (SOLE_WRITER if writable else None)
        user = self.graph.use(node.name, kind, self._user_name(role), writable=writable, permissions=permissions)
        user.stays = not writable
        self.users.append(user)
        return user

    def release_users(self) -> None:
        """Let go of every node that the session holds."""
        while self.users:
            self.graph.release(self.users.pop())

    def record(self, node: "Node", bits: DirtyBitmap) -> None:
        """Put guests' writes to a node into the work map from now on."""
        self.recorder = Recorder(f"#{self.spec.session_id}", bits, self.spec.owner)
        node.bitmaps[self.recorder.name] = self.recorder
        node.record_bitmaps()

    def stop_recording(self, node: "Node") -> None:
        """The opposite of `record`; harmless if it was not."""
        if self.recorder is not None and node.bitmaps.pop(self.recorder.name, None) is not None:
            node.record_bitmaps()

    def _user_name(self, role: str) -> str:
        return f"{self.spec.owner.partition('/')[2] or self.spec.session_id}:{role}"
