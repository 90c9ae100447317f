"""The node port over gRPC: CopyService and NodeService of a node service.

What lives here: messages out and values in, deadlines, the fencing token. What must not: retries (the caller knows
what may be repeated), policy. Besides `rpc/` the only place that names a `_pb2` module.
"""

import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from blockyard.base.errors import InvalidArgument, PeerUnavailable
from blockyard.base.ranges import ByteRange
from blockyard.jobs.node.port import (
    CopyMode,
    CopySide,
    FinishAction,
    NodeFacts,
    Order,
    Report,
    Session,
    SessionRequest,
)
from blockyard.jobs.wire import from_wire, to_wire
from blockyard.rpc.calls import EOF
from blockyard.rpc.channel import Channel
from blockyard.v1 import copy_pb2, drivers_pb2, node_pb2, types_pb2
from blockyard.v1.copy_pb2_grpc import CopyServiceStub
from blockyard.v1.node_pb2_grpc import NodeServiceStub

LOOK_SECONDS: Final = 10.0
"""Deadline of a call that only reads."""

CHANGE_SECONDS: Final = 60.0
"""Deadline of a call that drains, flushes or copies what is left; repeated, it waits for the same end."""

_BELOW: Final = (types_pb2.CHILD_ROLE_BACKING, types_pb2.CHILD_ROLE_FILTERED)


class RemoteNode:
    """A node service, as one incarnation of the jobs service sees it."""

    def __init__(self, channel: Channel, fencing_token: int) -> None:
        self._address = str(channel.address)
        self._token = fencing_token
        self._copy = CopyServiceStub(channel)  # type: ignore[no-untyped-call]
        self._node = NodeServiceStub(channel)  # type: ignore[no-untyped-call]

    def fenced(self, token: int) -> "RemoteNode":
        """It shares the stubs, which take 70 KiB: every job has a port of its own."""
        other = copy.copy(self)
        other._token = token
        return other

    async def get_node(self, node_name: str) -> NodeFacts:
        request = node_pb2.GetNodeRequest(node_name=node_name)
        state = await self._node.GetNode(request, timeout=LOOK_SECONDS)
        below = (child.node_name for child in state.children if child.role in _BELOW)
        return NodeFacts(state.node_name, state.size_bytes, state.read_only, next(below, ""))

    async def create_session(self, request: SessionRequest, *, validate_only: bool = False) -> Session:
        message = create_message(request, self._token, validate_only)
        return _session(await self._copy.CreateCopySession(message, timeout=CHANGE_SECONDS))

    async def get_session(self, session_id: str) -> Session:
        request = copy_pb2.GetCopySessionRequest(session_id=session_id)
        return _session(await self._copy.GetCopySession(request, timeout=LOOK_SECONDS))

    async def adopt_session(self, session_id: str) -> Session:
        request = copy_pb2.AdoptCopySessionRequest(session_id=session_id, fencing_token=self._token)
        return _session(await self._copy.AdoptCopySession(request, timeout=LOOK_SECONDS))

    async def list_sessions(self) -> Sequence[Session]:
        request = copy_pb2.ListCopySessionsRequest()
        reply = await self._copy.ListCopySessions(request, timeout=LOOK_SECONDS)
        return [_session(message) for message in reply.sessions]

    @asynccontextmanager
    async def run_copy(self, session_id: str) -> AsyncIterator["RemoteStream"]:
        call = self._copy.RunCopy()
        try:
            yield RemoteStream(call, session_id, self._token, self._address)
        finally:
            call.cancel()

    async def set_copy_mode(self, session_id: str, mode: CopyMode) -> Session:
        number = to_wire(copy_pb2.CopyMode, mode)
        request = copy_pb2.SetCopyModeRequest(session_id=session_id, fencing_token=self._token, copy_mode=number)
        return _session(await self._copy.SetCopyMode(request, timeout=CHANGE_SECONDS))

    async def finish_session(self, session_id: str, action: FinishAction) -> Session:
        number = to_wire(copy_pb2.FinishAction, action)
        request = copy_pb2.FinishCopySessionRequest(session_id=session_id, fencing_token=self._token, action=number)
        return _session(await self._copy.FinishCopySession(request, timeout=CHANGE_SECONDS))


class RemoteStream:
    """One RunCopy call. The first order names the session."""

    def __init__(self, call: Any, session_id: str, token: int, address: str) -> None:
        self._call = call
        self._address = address
        self._first = copy_pb2.RunCopyRequest(session_id=session_id, fencing_token=token)

    async def send(self, order: Order) -> None:
        message, self._first = self._first, copy_pb2.RunCopyRequest()
        message.order_id = order.order_id
        message.max_bytes = order.max_bytes
        if order.within is not None:
            message.range.offset_bytes = order.within.offset
            message.range.length_bytes = order.within.length
        if order.wait_seconds:
            message.wait.FromNanoseconds(round(order.wait_seconds * 1e9))
        await self._call.write(message)

    async def receive(self) -> Report:
        message = await self._call.read()
        if message is EOF:
            raise PeerUnavailable("node", self._address, "it ended the stream of orders")
        return read_report(message)


def create_message(request: SessionRequest, token: int, validate_only: bool) -> copy_pb2.CreateCopySessionRequest:
    """What is left to the node stays unset."""
    message = copy_pb2.CreateCopySessionRequest(
        session_id=request.session_id,
        owner=request.owner,
        fencing_token=token,
        kind=to_wire(copy_pb2.CopyKind, request.kind),
        source_node_name=request.source,
        target_node_name=request.target,
        base_node_name=request.base,
        sync=to_wire(copy_pb2.SyncMode, request.sync),
        bitmap=request.bitmap,
        bitmap_mode=to_wire(copy_pb2.BitmapMode, request.bitmap_mode),
        copy_mode=to_wire(copy_pb2.CopyMode, request.copy_mode),
        granularity_bytes=request.granularity_bytes,
        target_is_zero=request.target_is_zero,
        compress=request.compress,
        on_cbw_error=to_wire(drivers_pb2.OnCbwError, request.on_cbw_error),
        filter_node_name=request.filter_node_name,
        backing_file=request.backing_file,
        replaces_node_name=request.replaces,
        domain=request.domain,
        validate_only=validate_only,
    )
    if request.unmap is not None:
        message.unmap = request.unmap
    return message


def _session(message: copy_pb2.CopySession) -> Session:
    return Session(
        session_id=message.session_id,
        filter_node_name=message.filter_node_name,
        granularity_bytes=_not_negative("granularity_bytes", message.granularity_bytes),
        size_bytes=_not_negative("size_bytes", message.size_bytes),
        remaining_bytes=_not_negative("remaining_bytes", message.remaining_bytes),
        copied_bytes=_not_negative("copied_bytes", message.copied_bytes),
        zero_bytes=_not_negative("zero_bytes", message.zero_bytes),
        skipped_bytes=_not_negative("skipped_bytes", message.skipped_bytes),
        finished=from_wire(copy_pb2.FinishAction, FinishAction, message.finished, "finished"),
        snapshot_broken=message.snapshot_broken,
        fencing_token=message.fencing_token,
        domain=message.domain,
    )


def read_report(message: copy_pb2.RunCopyResponse) -> Report:
    failed_range = None
    if message.HasField("failed_range"):
        offset = _not_negative("failed_range.offset_bytes", message.failed_range.offset_bytes)
        failed_range = ByteRange(
            offset, _not_negative("failed_range.length_bytes", message.failed_range.length_bytes)
        )
    return Report(
        order_id=message.order_id,
        copied_bytes=_not_negative("copied_bytes", message.copied_bytes),
        zero_bytes=_not_negative("zero_bytes", message.zero_bytes),
        skipped_bytes=_not_negative("skipped_bytes", message.skipped_bytes),
        remaining_bytes=_not_negative("remaining_bytes", message.remaining_bytes),
        dirtied_bytes=_not_negative("dirtied_bytes", message.dirtied_bytes),
        cursor_bytes=_not_negative("cursor_bytes", message.cursor_bytes),
        failed_side=from_wire(copy_pb2.CopySide, CopySide, message.failed_side, "failed_side"),
        failed_range=failed_range,
        reason=message.reason,
        error_message=message.error_message,
    )


def _not_negative(name: str, value: int) -> int:
    if value < 0:
        raise InvalidArgument(name, "0 or more from the node", str(value))
    return value
