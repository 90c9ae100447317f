"""CopyService: the jobs service's orders become work of the node's copy sessions."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from blockyard.base.errors import InvalidArgument
from blockyard.base.ranges import ByteRange
from blockyard.node.copying.mirror import MirrorSession
from blockyard.node.copying.session import ORDER_MAX, Report, Session
from blockyard.node.copying.sessions import CopySessions
from blockyard.node.copying.spec import BitmapMode, CopyKind, CopyMode, FinishAction, Order, SessionSpec, SyncMode
from blockyard.v1 import copy_pb2, copy_pb2_grpc

ORDERS_IN_FLIGHT: Final = 64
"""Per stream; more are read only when others end. QEMU's backup has 64 workers at most."""
_GRANULARITY_MIN: Final = 4096
_GRANULARITY_MAX: Final = 64 << 20

Context = grpc.aio.ServicerContext[Any, Any]


class CopyServicer(copy_pb2_grpc.CopyServiceServicer):
    """See copy.proto."""

    def __init__(self, sessions: CopySessions) -> None:
        self._sessions = sessions

    async def CreateCopySession(  # noqa: N802
        self, request: copy_pb2.CreateCopySessionRequest, context: Context
    ) -> copy_pb2.CopySession:
        session = await self._sessions.create(
            spec_from(request), request.fencing_token, validate_only=request.validate_only
        )
        return session_message(session)

    async def GetCopySession(  # noqa: N802
        self, request: copy_pb2.GetCopySessionRequest, context: Context
    ) -> copy_pb2.CopySession:
        return session_message(self._sessions.get(request.session_id))

    async def AdoptCopySession(  # noqa: N802
        self, request: copy_pb2.AdoptCopySessionRequest, context: Context
    ) -> copy_pb2.CopySession:
        return session_message(await self._sessions.own(request.session_id, request.fencing_token))

    async def ListCopySessions(  # noqa: N802
        self, request: copy_pb2.ListCopySessionsRequest, context: Context
    ) -> copy_pb2.ListCopySessionsResponse:
        return copy_pb2.ListCopySessionsResponse(sessions=[session_message(item) for item in self._sessions.all()])

    async def SetCopyMode(  # noqa: N802
        self, request: copy_pb2.SetCopyModeRequest, context: Context
    ) -> copy_pb2.CopySession:
        session = await self._sessions.own(request.session_id, request.fencing_token)
        if not isinstance(session, MirrorSession):
            raise InvalidArgument("session_id", "a mirror", session.spec.kind.name.lower())
        await self._sessions.set_copy_mode(session, _enum(CopyMode, request.copy_mode, "copy_mode"))
        return session_message(session)

    async def FinishCopySession(  # noqa: N802
        self, request: copy_pb2.FinishCopySessionRequest, context: Context
    ) -> copy_pb2.CopySession:
        action = _enum(FinishAction, request.action, "action")
        # A caller that goes away must not leave a pivot half done: the end runs to its end.
        ending = asyncio.ensure_future(self._sessions.finish(request.session_id, request.fencing_token, action))
        ending.add_done_callback(_retrieve)
        return session_message(await asyncio.shield(ending))

    async def RunCopy(  # noqa: N802
        self, request_iterator: AsyncIterator[copy_pb2.RunCopyRequest], context: Context
    ) -> AsyncIterator[copy_pb2.RunCopyResponse]:
        orders = aiter(request_iterator)
        first = await anext(orders, None)
        if first is None:
            return
        session = await self._sessions.own(first.session_id, first.fencing_token)
        stream = _OrderStream(session, first.fencing_token or session.token)
        async for report in stream.reports(first, orders):
            yield report_message(report)


def _retrieve(ending: "asyncio.Future[Session]") -> None:
    """The caller may be gone; an error is then told to whoever asks to finish again."""
    if not ending.cancelled():
        ending.exception()


class _OrderStream:
    """Orders of one stream, run side by side; their reports in order of completion."""

    def __init__(self, session: Session, token: int) -> None:
        self._session = session
        self._token = token
        self._room = asyncio.Semaphore(ORDERS_IN_FLIGHT)
        self._done: asyncio.Queue[Report | BaseException | None] = asyncio.Queue()
        self._running: set[asyncio.Task[None]] = set()

    async def reports(
        self, first: copy_pb2.RunCopyRequest, orders: AsyncIterator[copy_pb2.RunCopyRequest]
    ) -> AsyncIterator[Report]:
        reader = asyncio.create_task(self._read(first, orders))
        try:
            while (item := await self._done.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
                # Only now: a client that does not read its reports is not served more orders.
                self._room.release()
        finally:
            for task in (reader, *self._running):
                task.cancel()
            await asyncio.gather(reader, *self._running, return_exceptions=True)

    async def _read(self, first: copy_pb2.RunCopyRequest, orders: AsyncIterator[copy_pb2.RunCopyRequest]) -> None:
        try:
            await self._start(order_from(first))
            async for message in orders:
                await self._start(order_from(message))
            while self._running:
                await asyncio.wait(self._running)
        except Exception as problem:
            self._done.put_nowait(problem)
        self._done.put_nowait(None)

    async def _start(self, order: Order) -> None:
        await self._room.acquire()
        task = asyncio.create_task(self._run(order))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, order: Order) -> None:
        try:
            self._session.check_token(self._token)
            self._done.put_nowait(await self._session.run(order))
        except Exception as problem:
            self._done.put_nowait(problem)


# --- messages ------------------------------------------------------------------------------------------


def spec_from(request: copy_pb2.CreateCopySessionRequest) -> SessionSpec:
    """Raises InvalidArgument with the field's name."""
    if not request.session_id:
        raise InvalidArgument("session_id", "an identity chosen by the owner", "nothing")
    if not request.source_node_name:
        raise InvalidArgument("source_node_name", "the name of an open node", "nothing")
    kind = _enum(CopyKind, request.kind, "kind")
    if kind is not CopyKind.STREAM and not request.target_node_name:
        raise InvalidArgument("target_node_name", "the name of an open node", "nothing")
    granularity = request.granularity_bytes
    if granularity and (not _GRANULARITY_MIN <= granularity <= _GRANULARITY_MAX or granularity & (granularity - 1)):
        raise InvalidArgument("granularity_bytes", "a power of two, 4096 to 67108864", str(granularity))
    return SessionSpec(
        session_id=request.session_id,
        owner=request.owner or f"job/{request.session_id}",
        kind=kind,
        source=request.source_node_name,
        target=request.target_node_name,
        base=request.base_node_name,
        sync=_enum(SyncMode, request.sync or SyncMode.FULL, "sync"),
        bitmap=request.bitmap,
        bitmap_mode=_enum(BitmapMode, request.bitmap_mode or BitmapMode.ON_SUCCESS, "bitmap_mode"),
        copy_mode=_enum(CopyMode, request.copy_mode or CopyMode.BACKGROUND, "copy_mode"),
        granularity=granularity,
        target_is_zero=request.target_is_zero,
        unmap=request.unmap if request.HasField("unmap") else kind is CopyKind.MIRROR,
        compress=request.compress,
        break_snapshot=request.on_cbw_error == 2,
        filter_name=request.filter_node_name,
        backing_file=request.backing_file,
        replaces=request.replaces_node_name,
        domain=request.domain,
    )


def order_from(message: copy_pb2.RunCopyRequest) -> Order:
    """Raises InvalidArgument."""
    if not 0 < message.max_bytes <= ORDER_MAX:
        raise InvalidArgument("max_bytes", f"1 to {ORDER_MAX}", str(message.max_bytes))
    range_ = None
    if message.HasField("range"):
        range_ = ByteRange(message.range.offset_bytes, message.range.length_bytes)
        if range_.offset < 0 or range_.length < 0:
            raise InvalidArgument("range", "a range that is not negative", str(range_))
    return Order(message.order_id, message.max_bytes, range_, message.wait.ToNanoseconds())


def session_message(session: Session) -> copy_pb2.CopySession:
    """A session as clients see it."""
    spec, total = session.spec, session.work.total
    mode = session.copy_mode if isinstance(session, MirrorSession) else 0
    return copy_pb2.CopySession(
        session_id=spec.session_id,
        owner=spec.owner,
        fencing_token=session.token,
        kind=int(spec.kind),  # type: ignore[arg-type]
        source_node_name=spec.source,
        target_node_name=spec.target,
        filter_node_name=session.filter.name if session.filter else "",
        copy_mode=int(mode),  # type: ignore[arg-type]
        granularity_bytes=session.work.bits.granularity,
        size_bytes=session.work.size,
        remaining_bytes=session.work.remaining,
        copied_bytes=total.copied,
        zero_bytes=total.zero,
        skipped_bytes=total.skipped,
        finished=int(session.finished or 0),  # type: ignore[arg-type]
        snapshot_broken=session.broken is not None,
        domain=spec.domain,
    )


def report_message(report: Report) -> copy_pb2.RunCopyResponse:
    """The end of an order as clients see it."""
    message = copy_pb2.RunCopyResponse(
        order_id=report.order_id,
        copied_bytes=report.tally.copied,
        zero_bytes=report.tally.zero,
        skipped_bytes=report.tally.skipped,
        remaining_bytes=report.remaining,
        dirtied_bytes=report.dirtied,
        cursor_bytes=report.cursor,
    )
    if report.failure is not None:
        failure = report.failure
        message.failed_side = int(failure.side)  # type: ignore[assignment]
        message.failed_range.offset_bytes = failure.range.offset
        message.failed_range.length_bytes = failure.range.length
        message.reason = failure.error.reason
        message.error_message = str(failure.error)
    return message


def _enum(type_: Any, value: int, name: str) -> Any:
    try:
        return type_(value)
    except ValueError as problem:
        names = ", ".join(item.name for item in type_)
        raise InvalidArgument(name, f"one of {names}", "nothing" if value == 0 else str(value)) from problem
