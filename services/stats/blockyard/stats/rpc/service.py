"""StatsService. Questions are answered from memory; nothing here asks a node."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final, NamedTuple

from google.protobuf.duration_pb2 import Duration

from blockyard.base.clock import Clock
from blockyard.base.errors import InvalidArgument
from blockyard.stats.model.accounts import Operation
from blockyard.stats.model.history import MAX_WINDOW_NS, SECOND_NS, Figures, Snapshot, growth
from blockyard.stats.model.ledger import Entry, Ledger
from blockyard.stats.model.rates import Rate, rates
from blockyard.stats.rpc import convert
from blockyard.stats.rpc.convert import OPERATIONS
from blockyard.v1 import stats_pb2
from blockyard.v1.stats_pb2_grpc import StatsServiceServicer

MIN_INTERVAL_NS: Final = SECOND_NS // 10
MAX_INTERVAL_NS: Final = 3600 * SECOND_NS
DEFAULT_INTERVAL_NS: Final = SECOND_NS
STALE_INTERVALS: Final = 3
"""Gathering intervals without a word after which a source that seems connected counts as silent."""


class Seen(NamedTuple):
    """What a watch told last about one source."""

    snapshot: Snapshot
    rates: list[Rate]


class StatsService(StatsServiceServicer):
    """Answers from the ledgers of all sources, in the order in which they are configured."""

    def __init__(self, ledgers: Sequence[Ledger], clock: Clock, gathering_seconds: float) -> None:
        self._ledgers = ledgers
        self._clock = clock
        self._patience_ns = round(STALE_INTERVALS * gathering_seconds * SECOND_NS) + SECOND_NS

    async def QueryStats(self, request: stats_pb2.QueryStatsRequest, context: Any) -> stats_pb2.QueryStatsResponse:
        only = _operations(request.types)
        window_ns = _window(request)
        reply = stats_pb2.QueryStatsResponse(stale=self._stale())
        for ledger in self._ledgers:
            figures = _figures(ledger, window_ns)
            for entry in _entries(ledger, request.node_names, request.include_closed):
                shown = entry.account.operations if figures is None else figures.get(entry.account.node_name, {})
                reply.stats.append(convert.account(entry.account, shown, only))
        reply.stats.sort(key=lambda each: each.node_name)
        self._set_sample_time(reply)
        return reply

    async def WatchStats(
        self, request: stats_pb2.WatchStatsRequest, context: Any
    ) -> AsyncIterator[stats_pb2.WatchStatsResponse]:
        interval_ns = _bounded("interval", request, MIN_INTERVAL_NS, MAX_INTERVAL_NS) or DEFAULT_INTERVAL_NS
        seen: dict[str, Seen] = {}
        while True:
            reply = stats_pb2.WatchStatsResponse(stale=self._stale())
            for ledger in self._ledgers:
                for entry in _entries(ledger, request.node_names, include_closed=False):
                    reply.stats.append(convert.account(entry.account, entry.account.operations, ()))
                wanted = {entry.account.node_name for entry in _entries(ledger, request.node_names, False)}
                reply.rates.extend(
                    convert.rate(each) for each in _advance(ledger, seen) if each.node_name in wanted
                )
            self._set_sample_time(reply)
            yield reply
            await self._clock.sleep(interval_ns / SECOND_NS)

    async def ListSources(
        self, request: stats_pb2.ListSourcesRequest, context: Any
    ) -> stats_pb2.ListSourcesResponse:
        return stats_pb2.ListSourcesResponse(sources=[convert.source(ledger.state) for ledger in self._ledgers])

    async def GetLatencyReport(
        self, request: stats_pb2.GetLatencyReportRequest, context: Any
    ) -> stats_pb2.GetLatencyReportResponse:
        window_ns = _window(request)
        reply = stats_pb2.GetLatencyReportResponse()
        for ledger in self._ledgers:
            figures = _figures(ledger, window_ns)
            for entry in _entries(ledger, request.node_names, include_closed=False):
                shown = entry.account.operations if figures is None else figures.get(entry.account.node_name, {})
                reply.rows.extend(
                    convert.report_row(entry.account, operation, totals)
                    for operation, totals in shown.items()
                    if totals.operations
                )
        reply.rows.sort(key=lambda row: (row.node_name, row.type))
        return reply

    def _stale(self) -> bool:
        now_ns = self._clock.monotonic_ns()
        states = [ledger.state for ledger in self._ledgers]
        return any(not state.connected or now_ns - state.heard_ns > self._patience_ns for state in states)

    def _set_sample_time(self, reply: stats_pb2.QueryStatsResponse | stats_pb2.WatchStatsResponse) -> None:
        # The oldest of the sources' samples: nothing in the reply is older.
        heard = [ledger.state.sample_ns for ledger in self._ledgers if ledger.state.heard_ns]
        if heard:
            reply.sample_time.CopyFrom(convert.timestamp(min(heard)))


def _advance(ledger: Ledger, seen: dict[str, Seen]) -> list[Rate]:
    """Rates since the sample that was told last; told again while there is no newer one."""
    latest = ledger.history.latest
    if latest is None:
        return []
    before = seen.get(ledger.state.address)
    if before is None:
        seen[ledger.state.address] = Seen(latest, [])
    elif latest.at_ns > before.snapshot.at_ns:
        seen[ledger.state.address] = Seen(latest, rates(before.snapshot, latest))
    return seen[ledger.state.address].rates


def _entries(ledger: Ledger, node_names: Sequence[str], include_closed: bool) -> Iterator[Entry]:
    wanted = frozenset(node_names)
    for name, entry in ledger.state.entries.items():
        if (not wanted or name in wanted) and (include_closed or not entry.closed_ns):
            yield entry


def _figures(ledger: Ledger, window_ns: int) -> Figures | None:
    """What was done in the window; None if no window was asked for."""
    ends = ledger.history.window(window_ns) if window_ns else None
    if ends is None:
        return None
    earlier, later = ends
    return {name: growth(earlier.figures.get(name, {}), figures) for name, figures in later.figures.items()}


def _operations(types: Sequence[int]) -> frozenset[Operation]:
    for number in types:
        if number not in OPERATIONS:
            raise InvalidArgument("types", "types of requests", str(number))
    return frozenset(OPERATIONS[number] for number in types)


def _window(request: stats_pb2.QueryStatsRequest | stats_pb2.GetLatencyReportRequest) -> int:
    return _bounded("window", request, 1, MAX_WINDOW_NS)


def _bounded(field: str, request: Any, least_ns: int, most_ns: int) -> int:
    """A duration of the request in nanoseconds; 0 if it is absent."""
    if not request.HasField(field):
        return 0
    given: Duration = getattr(request, field)
    # Seconds are compared first: a hostile duration of 2^63 of them does not fit into nanoseconds.
    value = given.seconds * SECOND_NS + given.nanos
    if not least_ns <= value <= most_ns:
        expected = f"{least_ns / SECOND_NS:g} s to {most_ns / SECOND_NS:g} s"
        raise InvalidArgument(field, expected, f"{value / SECOND_NS:g} s")
    return value
