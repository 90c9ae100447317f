"""Limits that nodes share: `client.throttle`.

await client.throttle.create("gold", iops_total=limit(5000, max=20_000, burst_length=30), bps_total=200 << 20)
await client.nodes.open(throttle("disk-file", "gold", node_name="disk"))
await client.throttle.update("gold", iops_total=1000)
"""

from collections.abc import Sequence
from typing import Final, TypedDict, Unpack

from google.protobuf.field_mask_pb2 import FieldMask

from blockyard.client.calls import Service
from blockyard.v1 import control_pb2 as control
from blockyard.v1.control_pb2 import ThrottleGroup, ThrottleLimit

NO_LIMIT: Final = ThrottleLimit()
"""For `update`: the limit goes."""

Limit = int | ThrottleLimit
"""A mean rate per second, or what `limit` makes."""


class Limits(TypedDict, total=False):
    """Keywords of a group's limits; see the fields of ThrottleGroup."""

    iops_total: Limit
    iops_read: Limit
    iops_write: Limit
    bps_total: Limit
    bps_read: Limit
    bps_write: Limit
    iops_size_bytes: int


def limit(avg: int, *, max: int = 0, burst_length: float = 0) -> ThrottleLimit:
    """A mean rate per second, and a burst: its rate, and how many seconds it may last (0 is the default, 1 s)."""
    made = ThrottleLimit(avg=avg, max=max)
    if burst_length:
        made.burst_length.FromNanoseconds(round(burst_length * 1e9))
    return made


class Throttle:
    """Makes, changes and removes throttle groups."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def create(self, name: str, *, request_id: str = "", **limits: Unpack[Limits]) -> ThrottleGroup:
        """A new group."""
        request = control.CreateThrottleGroupRequest(group=_group(name, limits), request_id=request_id)
        return await self._service.unary("CreateThrottleGroup", request, ThrottleGroup)

    async def get(self, name: str) -> ThrottleGroup:
        """One group, with who uses it and how much was held up."""
        request = control.GetThrottleGroupRequest(name=name)
        return await self._service.unary("GetThrottleGroup", request, ThrottleGroup)

    async def list(self) -> Sequence[ThrottleGroup]:
        """All groups by name."""
        request = control.ListThrottleGroupsRequest()
        found = await self._service.unary("ListThrottleGroups", request, control.ListThrottleGroupsResponse)
        return tuple(found.groups)

    async def update(self, name: str, *, etag: str = "", **limits: Unpack[Limits]) -> ThrottleGroup:
        """Change the limits that are given, all at once; the others stay. Without any, nothing changes."""
        if not limits:
            return await self.get(name)
        group = _group(name, limits)
        group.etag = etag
        request = control.UpdateThrottleGroupRequest(group=group, update_mask=FieldMask(paths=list(limits)))
        return await self._service.unary("UpdateThrottleGroup", request, ThrottleGroup)

    async def remove(self, name: str, *, allow_missing: bool = False) -> None:
        """Remove a group that no node uses."""
        request = control.DeleteThrottleGroupRequest(name=name, allow_missing=allow_missing)
        await self._service.unary("DeleteThrottleGroup", request, control.DeleteThrottleGroupResponse)


def _group(name: str, limits: Limits) -> ThrottleGroup:
    group = ThrottleGroup(name=name)
    for key, value in limits.items():
        if isinstance(value, ThrottleLimit):
            getattr(group, key).CopyFrom(value)
        elif key == "iops_size_bytes":
            group.iops_size_bytes = value  # type: ignore[assignment]
        else:
            getattr(group, key).avg = value
    return group
