"""ThrottleService: groups of limits that nodes of driver `throttle` share."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, Final

from blockyard.base.errors import InvalidArgument, ResourceBusy, ResourceNotFound
from blockyard.node.core.throttle import RATES, SECOND_NS, Rate, ThrottleLimits
from blockyard.node.graph.definition import check_name
from blockyard.node.graph.keeping import Keeping
from blockyard.node.graph.kept_throttling import THROTTLE_GROUP
from blockyard.node.graph.node import Node
from blockyard.node.graph.throttling import ThrottleGroup, ThrottleGroups
from blockyard.node.rpc.accounts import duration
from blockyard.node.rpc.memory import RequestMemory
from blockyard.v1 import control_pb2, types_pb2
from blockyard.v1.control_pb2_grpc import ThrottleServiceServicer

_PARTS: Final = {"avg": "avg", "max": "max", "burst_length": "burst_ns"}
"""Fields of ThrottleLimit and of Rate."""
_PATHS: Final = (*RATES, *(f"{name}.{part}" for name in RATES for part in _PARTS), "iops_size_bytes")


class ThrottleServicer(ThrottleServiceServicer):
    """Throttle groups."""

    def __init__(self, groups: ThrottleGroups, kept: Keeping, memory: RequestMemory) -> None:
        self._groups = groups
        self._kept = kept
        self._memory = memory

    async def CreateThrottleGroup(  # noqa: N802
        self, request: control_pb2.CreateThrottleGroupRequest, context: Any
    ) -> control_pb2.ThrottleGroup:
        async def work() -> control_pb2.ThrottleGroup:
            check_name(request.group.name, "group.name")
            group = self._groups.create(request.group.name, _limits(request.group))
            await self._keep(group.name, lambda: self._take_back(group))
            return _message(group)

        return await self._memory.once(request, work)

    async def GetThrottleGroup(  # noqa: N802
        self, request: control_pb2.GetThrottleGroupRequest, context: Any
    ) -> control_pb2.ThrottleGroup:
        return _message(self._groups.get(request.name))

    async def ListThrottleGroups(  # noqa: N802
        self, request: control_pb2.ListThrottleGroupsRequest, context: Any
    ) -> control_pb2.ListThrottleGroupsResponse:
        return control_pb2.ListThrottleGroupsResponse(groups=map(_message, self._groups.all()))

    async def UpdateThrottleGroup(  # noqa: N802
        self, request: control_pb2.UpdateThrottleGroupRequest, context: Any
    ) -> control_pb2.ThrottleGroup:
        wanted = request.group
        present = self._groups.get(wanted.name).limits
        limits = _merged(present, _limits(wanted), request.update_mask.paths)
        group = self._groups.update(wanted.name, limits, wanted.etag)
        await self._keep(group.name, lambda: self._groups.update(group.name, present))
        return _message(group)

    async def DeleteThrottleGroup(  # noqa: N802
        self, request: control_pb2.DeleteThrottleGroupRequest, context: Any
    ) -> control_pb2.DeleteThrottleGroupResponse:
        try:
            group = self._groups.get(request.name)
        except ResourceNotFound:
            if request.allow_missing:
                return control_pb2.DeleteThrottleGroupResponse()
            raise
        self._groups.delete(group.name)
        await self._keep(group.name, lambda: self._groups.put_back(group))
        return control_pb2.DeleteThrottleGroupResponse()

    def _take_back(self, group: ThrottleGroup) -> None:
        with suppress(ResourceBusy):  # a node that came meanwhile keeps it, and it is kept with the next change
            self._groups.delete(group.name)

    async def _keep(self, name: str, undo: Callable[[], object]) -> None:
        """Durable, or undone. Raises CatalogueNotWritten."""
        self._kept.catalogue.touch(THROTTLE_GROUP, name)
        await self._kept.commit(undo)


def throttle_state(node: Node) -> types_pb2.ThrottleState:
    """How a node stands; empty if it is not throttled."""
    member = node.throttle
    if member is None:
        return types_pb2.ThrottleState()
    reads, writes = member.queued
    return types_pb2.ThrottleState(
        group=member.group_name,
        queued_reads=reads,
        queued_writes=writes,
        throttled_operations=member.throttled_operations,
        wait_time=duration(member.waited_ns),
    )


def _message(group: ThrottleGroup) -> control_pb2.ThrottleGroup:
    limits = group.limits
    return control_pb2.ThrottleGroup(
        name=group.name,
        **{name: _limit(rate) for name in RATES if (rate := getattr(limits, name)).avg},
        iops_size_bytes=limits.iops_size,
        node_names=[member.node_name for member in group.members],
        queued_operations=group.queued,
        throttled_operations=group.throttled_operations,
        wait_time=duration(group.waited_ns),
        etag=group.etag,
    )


def _limit(rate: Rate) -> control_pb2.ThrottleLimit:
    burst_length = duration(rate.burst_ns) if rate.max else None
    return control_pb2.ThrottleLimit(avg=rate.avg, max=rate.max, burst_length=burst_length)


def _limits(group: control_pb2.ThrottleGroup) -> ThrottleLimits:
    """What a client says, not yet checked: with a mask it may be a part."""
    rates: dict[str, Any] = {name: _rate(getattr(group, name)) for name in RATES}
    return ThrottleLimits(**rates, iops_size=group.iops_size_bytes)


def _rate(limit: control_pb2.ThrottleLimit) -> Rate:
    length = limit.burst_length
    burst_ns = length.seconds * SECOND_NS + length.nanos if limit.HasField("burst_length") else SECOND_NS
    return Rate(limit.avg, limit.max, burst_ns)


def _merged(present: ThrottleLimits, wanted: ThrottleLimits, paths: Iterable[str]) -> ThrottleLimits:
    """The present limits with those of the paths changed. Raises InvalidArgument for a path that is none."""
    if not (chosen := list(paths)):
        return wanted
    values: dict[str, Any] = {item.name: getattr(present, item.name) for item in fields(present)}
    for path in chosen:
        name, _, part = path.partition(".")
        if path not in _PATHS:
            raise InvalidArgument("update_mask", ", ".join((*RATES, "iops_size_bytes")), repr(path[:64]))
        if path == "iops_size_bytes":
            values["iops_size"] = wanted.iops_size
        elif part:
            field = _PARTS[part]
            values[name] = replace(values[name], **{field: getattr(getattr(wanted, name), field)})
        else:
            values[name] = getattr(wanted, name)
    return ThrottleLimits(**values)
