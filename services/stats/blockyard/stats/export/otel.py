"""The table as OpenTelemetry instruments, read when the exporter asks. Free when nothing is exported."""

from collections.abc import Sequence
from functools import partial

from blockyard.rpc.telemetry import Telemetry
from blockyard.stats.export import instruments
from blockyard.stats.model.ledger import Ledger


def register(telemetry: Telemetry, ledgers: Sequence[Ledger]) -> None:
    """Let `telemetry` export the accounts, if it exports at all."""
    for each in instruments.OPERATIONS:
        rows = partial(instruments.operation_rows, ledgers, each)
        telemetry.observe(each.name, each.unit, each.description, grows=each.grows, rows=rows)
    for one in instruments.NODES:
        telemetry.observe(
            one.name,
            one.unit,
            one.description,
            grows=one.grows,
            rows=partial(instruments.node_rows, ledgers, one),
        )
    name, description = instruments.CONNECTED
    telemetry.observe(name, "1", description, grows=False, rows=partial(instruments.connected_rows, ledgers))
    telemetry.observe_histogram(*instruments.DURATION, partial(instruments.duration_rows, ledgers))
