"""NodeService, fourth part: what the service is and what it counts."""

from collections.abc import AsyncIterator
from typing import Any, Final

from blockyard.base.errors import InvalidArgument
from blockyard.node.graph.drivers import DriverFacts, drivers
from blockyard.node.interface.describe import OptionFacts
from blockyard.node.rpc.accounts import account_stats
from blockyard.node.rpc.calls import Calls
from blockyard.node.rpc.convert import timestamp
from blockyard.node.rpc.filenames import definition_of_filename
from blockyard.v1 import node_pb2

_SECOND_NS: Final = 10**9
MIN_INTERVAL_NS: Final = _SECOND_NS // 10
MAX_INTERVAL_NS: Final = 3600 * _SECOND_NS


class ServiceCalls(Calls):
    """Drivers, limits, filenames, accounts."""

    async def ListDrivers(  # noqa: N802
        self, request: node_pb2.ListDriversRequest, context: Any
    ) -> node_pb2.ListDriversResponse:
        return node_pb2.ListDriversResponse(drivers=map(_driver, drivers()))

    async def GetServerInfo(  # noqa: N802
        self, request: node_pb2.GetServerInfoRequest, context: Any
    ) -> node_pb2.GetServerInfoResponse:
        return node_pb2.GetServerInfoResponse(
            version=self._backstage.version,
            instance_id=self._backstage.instance_id,
            drivers=[facts.name for facts in drivers() if not facts.disabled_reason],
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


def _driver(facts: DriverFacts) -> node_pb2.DriverInfo:
    return node_pb2.DriverInfo(
        name=facts.name,
        kind=facts.kind,
        description=facts.description,
        options=map(_option, facts.options),
        create_options=map(_option, facts.create_options),
        children=facts.children,
        supports_backing="backing" in facts.children,
        abilities=facts.abilities,
        disabled_reason=facts.disabled_reason,
    )


def _option(facts: OptionFacts) -> node_pb2.OptionInfo:
    return node_pb2.OptionInfo(
        name=facts.name,
        type=facts.type,
        default_value=facts.default,
        required=facts.required,
        description=facts.description,
    )
