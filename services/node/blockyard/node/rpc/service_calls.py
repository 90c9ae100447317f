"""NodeService, fourth part: what the service is and what it counts."""

from collections.abc import AsyncIterator
from typing import Any, Final

from blockyard.base.errors import InvalidArgument
from blockyard.node.drivers.catalogue import all_drivers
from blockyard.node.interface.describe import abilities_of, kind_of, options_of, summary_of
from blockyard.node.interface.driver import Driver
from blockyard.node.rpc.accounts import account_stats
from blockyard.node.rpc.calls import Calls
from blockyard.node.rpc.convert import timestamp
from blockyard.node.rpc.definitions import definition_of_filename
from blockyard.v1 import node_pb2

_SECOND_NS: Final = 10**9
MIN_INTERVAL_NS: Final = _SECOND_NS // 10
MAX_INTERVAL_NS: Final = 3600 * _SECOND_NS


class ServiceCalls(Calls):
    """Drivers, limits, filenames, accounts."""

    async def ListDrivers(  # noqa: N802
        self, request: node_pb2.ListDriversRequest, context: Any
    ) -> node_pb2.ListDriversResponse:
        return node_pb2.ListDriversResponse(drivers=[_driver(name, found) for name, found in all_drivers()])

    async def GetServerInfo(  # noqa: N802
        self, request: node_pb2.GetServerInfoRequest, context: Any
    ) -> node_pb2.GetServerInfoResponse:
        return node_pb2.GetServerInfoResponse(
            version=self._backstage.version,
            instance_id=self._backstage.instance_id,
            drivers=[name for name, found in all_drivers() if not isinstance(found, str)],
            limits=self._backstage.limits,
        )

    async def ParseFilename(  # noqa: N802
        self, request: node_pb2.ParseFilenameRequest, context: Any
    ) -> node_pb2.ParseFilenameResponse:
        return node_pb2.ParseFilenameResponse(definition=definition_of_filename(request.filename))

    async def WatchAccounting(  # noqa: N802
        self, request: node_pb2.WatchAccountingRequest, context: Any
    ) -> AsyncIterator[node_pb2.WatchAccountingResponse]:
        interval_ns = request.interval.ToNanoseconds() if request.HasField("interval") else _SECOND_NS
        if not MIN_INTERVAL_NS <= interval_ns <= MAX_INTERVAL_NS:
            raise InvalidArgument("interval", "100 ms to 1 h", f"{interval_ns / 1e9:g} s")
        clock, instance_id = self._graph.environment.clock, self._backstage.instance_id
        while True:
            wall_ns = clock.wall_ns()
            stats = [account_stats(node, wall_ns) for node in self._graph.nodes.values()]
            yield node_pb2.WatchAccountingResponse(
                stats=stats, instance_id=instance_id, sample_time=timestamp(wall_ns)
            )
            await clock.sleep(interval_ns / _SECOND_NS)


def _driver(name: str, found: type[Driver] | str) -> node_pb2.DriverInfo:
    if isinstance(found, str):
        return node_pb2.DriverInfo(name=name, disabled_reason=found)
    create = getattr(found, "CreateOptions", None)
    return node_pb2.DriverInfo(
        name=name,
        kind=kind_of(found),
        description=summary_of(found),
        options=_options(found.Options),
        create_options=_options(create) if create is not None else [],
        children=[slot.name for slot in found.children],
        supports_backing=any(slot.name == "backing" for slot in found.children),
        abilities=abilities_of(found),
    )


def _options(options: Any) -> list[node_pb2.OptionInfo]:
    return [
        node_pb2.OptionInfo(
            name=item.name,
            type=item.type,
            default_value=item.default,
            required=item.required,
            description=item.description,
        )
        for item in options_of(options)
    ]
