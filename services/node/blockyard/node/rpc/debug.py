"""DebugService: breakpoints and faults at blkdebug nodes."""

from collections.abc import AsyncIterator
from typing import Any

from blockyard.node.core.injection import EVENTS, checked_rate, make_effect
from blockyard.node.graph.debugging import Breakpoint, Debugging, FaultOrder, InjectedFault
from blockyard.node.rpc.convert import duration
from blockyard.v1 import debug_pb2
from blockyard.v1.debug_pb2_grpc import DebugServiceServicer


class DebugServicer(DebugServiceServicer):
    """Served only where the operator switched it on."""

    def __init__(self, debugging: Debugging) -> None:
        self._debugging = debugging

    async def SetBreakpoint(self, request: debug_pb2.SetBreakpointRequest, context: Any) -> debug_pb2.Breakpoint:  # noqa: N802
        wanted = request.breakpoint
        return _breakpoint(self._debugging.set_breakpoint(wanted.node_name, wanted.event, wanted.tag))

    async def RemoveBreakpoint(  # noqa: N802
        self, request: debug_pb2.RemoveBreakpointRequest, context: Any
    ) -> debug_pb2.RemoveBreakpointResponse:
        self._debugging.remove_breakpoint(request.tag)
        return debug_pb2.RemoveBreakpointResponse()

    async def ResumeBreakpoint(  # noqa: N802
        self, request: debug_pb2.ResumeBreakpointRequest, context: Any
    ) -> debug_pb2.Breakpoint:
        return _breakpoint(self._debugging.resume(request.tag))

    async def ListBreakpoints(  # noqa: N802
        self, request: debug_pb2.ListBreakpointsRequest, context: Any
    ) -> debug_pb2.ListBreakpointsResponse:
        return debug_pb2.ListBreakpointsResponse(breakpoints=map(_breakpoint, self._debugging.breakpoints()))

    async def WatchBreakpoints(  # noqa: N802
        self, request: debug_pb2.WatchBreakpointsRequest, context: Any
    ) -> AsyncIterator[debug_pb2.WatchBreakpointsResponse]:
        changes = self._debugging.watch(request.tag)
        try:
            async for change in changes:
                assert change.resource is not None
                yield debug_pb2.WatchBreakpointsResponse(
                    breakpoint=_breakpoint(change.resource), removed=change.kind == "removed"
                )
        finally:
            await changes.aclose()  # type: ignore[attr-defined]

    async def InjectFault(self, request: debug_pb2.InjectFaultRequest, context: Any) -> debug_pb2.Fault:  # noqa: N802
        return _fault(self._debugging.inject(request.fault.node_name, _order(request.fault)))

    async def RemoveFault(  # noqa: N802
        self, request: debug_pb2.RemoveFaultRequest, context: Any
    ) -> debug_pb2.RemoveFaultResponse:
        self._debugging.withdraw(request.fault_id)
        return debug_pb2.RemoveFaultResponse()

    async def ListFaults(  # noqa: N802
        self, request: debug_pb2.ListFaultsRequest, context: Any
    ) -> debug_pb2.ListFaultsResponse:
        return debug_pb2.ListFaultsResponse(faults=map(_fault, self._debugging.faults(request.node_name)))

    async def ListDebugEvents(  # noqa: N802
        self, request: debug_pb2.ListDebugEventsRequest, context: Any
    ) -> debug_pb2.ListDebugEventsResponse:
        return debug_pb2.ListDebugEventsResponse(events=EVENTS)


def _breakpoint(found: Breakpoint) -> debug_pb2.Breakpoint:
    tag, event, suspended = found.state
    return debug_pb2.Breakpoint(tag=tag, node_name=found.node_name, event=event, suspended=suspended)


def _order(fault: debug_pb2.Fault) -> FaultOrder:
    """A fault of the wire, where 0 stands for what was not said. Raises InvalidArgument."""
    effect = make_effect(
        str, errno=fault.errno, delay_ns=fault.delay.ToNanoseconds(), corrupt=fault.corrupt, immediately=False
    )
    return FaultOrder(
        trigger=fault.event,
        effect=effect,
        fault_id=fault.fault_id,
        rate=checked_rate("rate", fault.rate or None),
        times=fault.times,
        offset=fault.offset_bytes if fault.HasField("offset_bytes") else None,
    )


def _fault(found: InjectedFault) -> debug_pb2.Fault:
    fault = found.fault
    return debug_pb2.Fault(
        fault_id=fault.fault_id,
        node_name=found.node_name,
        event=fault.trigger,
        errno=fault.effect.errno,
        delay=duration(fault.effect.delay_ns) if fault.effect.delay_ns else None,
        corrupt=fault.effect.corrupt,
        rate=fault.rate,
        times=fault.times,
        offset_bytes=fault.offset,
        struck=fault.struck,
    )
