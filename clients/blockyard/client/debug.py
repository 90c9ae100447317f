"""Breaking things on purpose: `client.debug`. Every call answers PERMISSION_DENIED unless the service was started
with the option `debug`."""

from collections.abc import AsyncIterator, Sequence

from google.protobuf.duration_pb2 import Duration

from blockyard.client.calls import Service
from blockyard.v1 import debug_pb2 as debug
from blockyard.v1.debug_pb2 import Breakpoint, Fault


class Debug:
    """Stops requests at events of a blkdebug node, and makes them fail, wait or lie."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def events(self) -> Sequence[str]:
        """The events that breakpoints and faults can name."""
        request = debug.ListDebugEventsRequest()
        return tuple((await self._service.unary("ListDebugEvents", request, debug.ListDebugEventsResponse)).events)

    async def set_breakpoint(self, node_name: str, event: str, tag: str) -> Breakpoint:
        """Stop every request that comes to the event, until it is resumed or the breakpoint removed."""
        request = debug.SetBreakpointRequest(breakpoint=Breakpoint(tag=tag, node_name=node_name, event=event))
        return await self._service.unary("SetBreakpoint", request, Breakpoint)

    async def remove_breakpoint(self, tag: str) -> None:
        """Remove a breakpoint; who waits there goes on."""
        request = debug.RemoveBreakpointRequest(tag=tag)
        await self._service.unary("RemoveBreakpoint", request, debug.RemoveBreakpointResponse)

    async def resume(self, tag: str) -> Breakpoint:
        """Let the requests that wait at a breakpoint go on; later ones stop again."""
        return await self._service.unary("ResumeBreakpoint", debug.ResumeBreakpointRequest(tag=tag), Breakpoint)

    async def breakpoints(self) -> Sequence[Breakpoint]:
        """Breakpoints and how many wait at each."""
        request = debug.ListBreakpointsRequest()
        return tuple(
            (await self._service.unary("ListBreakpoints", request, debug.ListBreakpointsResponse)).breakpoints
        )

    async def watch(self, tag: str = "") -> AsyncIterator[debug.WatchBreakpointsResponse]:
        """Breakpoints as requests stop and go on there; begins with the present state."""
        request = debug.WatchBreakpointsRequest(tag=tag)
        async for response in self._service.stream("WatchBreakpoints", request, debug.WatchBreakpointsResponse):
            yield response

    async def inject_fault(
        self,
        node_name: str,
        event: str,
        *,
        errno: int = 0,
        delay_s: float = 0.0,
        corrupt: bool = False,
        rate: float = 1.0,
        times: int = 0,
        offset: int | None = None,
        fault_id: str = "",
    ) -> Fault:
        """Strike requests: of a type (`write`, `flush` ...), or the one that follows an event, or any (`none`).

        `times` 0 is always; `offset` strikes only requests that touch that byte.
        """
        delay = Duration()
        delay.FromNanoseconds(round(delay_s * 1e9))
        fault = Fault(
            fault_id=fault_id,
            node_name=node_name,
            event=event,
            errno=errno,
            delay=delay if delay_s else None,
            corrupt=corrupt,
            rate=rate,
            times=times,
            offset_bytes=offset,
        )
        return await self._service.unary("InjectFault", debug.InjectFaultRequest(fault=fault), Fault)

    async def remove_fault(self, fault_id: str) -> None:
        """Stop a fault."""
        request = debug.RemoveFaultRequest(fault_id=fault_id)
        await self._service.unary("RemoveFault", request, debug.RemoveFaultResponse)

    async def faults(self, node_name: str = "") -> Sequence[Fault]:
        """Faults that are set, of a node or of all, with how often each struck."""
        request = debug.ListFaultsRequest(node_name=node_name)
        return tuple((await self._service.unary("ListFaults", request, debug.ListFaultsResponse)).faults)
