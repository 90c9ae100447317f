"""Accounts of every request: `client.stats`."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from blockyard.base.clock import Clock, SystemClock
from blockyard.base.errors import BlockError
from blockyard.client.calls import Service
from blockyard.client.watching import DROPPED
from blockyard.client.words import to_number
from blockyard.v1 import stats_pb2 as stats
from blockyard.v1 import types_pb2 as types

RECONNECT_WAIT_S = 1.0


class Stats:
    """Queries and watches the stats service."""

    def __init__(self, service: Service, clock: Clock | None = None) -> None:
        self._service = service
        self._clock = clock or SystemClock()

    async def query(
        self,
        node_names: Sequence[str] = (),
        *,
        types_of: Sequence[str] = (),
        window_s: float | None = None,
        include_closed: bool = False,
    ) -> stats.QueryStatsResponse:
        """Accounts since the epoch, or over the latest window; `types_of` as words (read, write ...)."""
        request = stats.QueryStatsRequest(
            node_names=node_names,
            types=[to_number(types.RequestType, word, "types") for word in types_of],
            window=_duration(window_s),
            include_closed=include_closed,
        )
        return await self._service.unary("QueryStats", request, stats.QueryStatsResponse)

    async def watch(
        self, node_names: Sequence[str] = (), *, interval_s: float = 1.0
    ) -> AsyncIterator[stats.WatchStatsResponse]:
        """Accounts and rates at an interval, for ever; a dropped stream is taken up again."""
        request = stats.WatchStatsRequest(node_names=node_names, interval=_duration(interval_s))
        while True:
            try:
                async for response in self._service.stream("WatchStats", request, stats.WatchStatsResponse):
                    yield response
            except BlockError as error:
                if error.canonical() not in DROPPED:
                    raise
            await self._clock.sleep(RECONNECT_WAIT_S)

    async def latency(
        self, node_names: Sequence[str] = (), *, window_s: float | None = None
    ) -> Sequence[stats.GetLatencyReportResponse.Row]:
        """Time and percentiles by node and operation."""
        request = stats.GetLatencyReportRequest(node_names=node_names, window=_duration(window_s))
        response = await self._service.unary("GetLatencyReport", request, stats.GetLatencyReportResponse)
        return tuple(response.rows)

    async def sources(self) -> Sequence[stats.StatsSource]:
        """Which node services are heard."""
        response = await self._service.unary("ListSources", stats.ListSourcesRequest(), stats.ListSourcesResponse)
        return tuple(response.sources)


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
