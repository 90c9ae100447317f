"""Limits of throttle groups as people write and read them: `200`, `200:1000`, `10M:40M:30s`, `none`.

What must not live here: calls. Rates of requests take decimal prefixes, rates of bytes binary ones, as sizes do.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Final

from cyclopts import Parameter, Token

from blockyard.cli import units
from blockyard.cli.describe import Facts, nanoseconds
from blockyard.cli.output import Column, first
from blockyard.client.throttling import NO_LIMIT, limit
from blockyard.v1.control_pb2 import ThrottleGroup, ThrottleLimit

NAMES: Final = ("iops_total", "iops_read", "iops_write", "bps_total", "bps_read", "bps_write")


def parse(text: str, rate_of: Callable[[str], int]) -> ThrottleLimit:
    """`AVG[:MAX[:LENGTH]]` or `none`. ValueError says what is wrong."""
    if text.strip() == "none":
        return NO_LIMIT
    avg, *burst = text.split(":")
    if len(burst) > 2:
        raise ValueError(f"{text!r} is no limit; write AVG, AVG:MAX, AVG:MAX:LENGTH or none")
    length = units.parse_time(burst[1]) if len(burst) == 2 else 0
    if len(burst) == 2 and not length:
        raise ValueError(f"{text!r}: a burst lasts 1 s or longer")
    return limit(rate_of(avg), max=rate_of(burst[0]) if burst else 0, burst_length=length)


def _converter(rate_of: Callable[[str], int]) -> Any:
    def convert(type_: Any, tokens: Sequence[Token]) -> ThrottleLimit:
        return parse(tokens[0].value, rate_of)

    return convert


Iops = Annotated[
    ThrottleLimit | None, Parameter(converter=_converter(units.parse_count), metavar="AVG[:MAX[:TIME]]")
]
"""Requests a second."""

Bps = Annotated[ThrottleLimit | None, Parameter(converter=_converter(units.parse_size), metavar="AVG[:MAX[:TIME]]")]
"""Bytes a second."""


def words(name: str, rate: ThrottleLimit) -> str:
    """A limit: `200/s, bursts of 1,000/s for 10 s`; empty if there is none."""
    if not rate.avg:
        return ""
    shown = _rate(name, rate.avg)
    if not rate.max:
        return shown
    seconds = nanoseconds(rate.burst_length) / 1e9 or 1
    return f"{shown}, bursts of {_rate(name, rate.max)} for {seconds:g} s"


def _rate(name: str, value: int) -> str:
    return units.rate(value) if name.startswith("bps") else f"{units.count(value)}/s"


def _short(group: ThrottleGroup, kind: str) -> str:
    """Mean rates of one kind: `200/s`, or `read 10 MiB/s, write 5 MiB/s`."""
    found = ((name, getattr(group, name).avg) for name in NAMES if name.startswith(kind))
    shown = [(name.partition("_")[2], _rate(name, avg)) for name, avg in found if avg]
    return ", ".join(rate if side == "total" else f"{side} {rate}" for side, rate in shown)


GROUPS: Final[Sequence[Column]] = (
    Column("GROUP", lambda group: group.name),
    Column("IOPS", lambda group: _short(group, "iops")),
    Column("BYTES", lambda group: _short(group, "bps")),
    Column("WAITING", lambda group: units.count(group.queued_operations), right=True),
    Column("HELD UP", lambda group: units.count(group.throttled_operations), right=True),
    Column("NODES", lambda group: first(group.node_names, 3)),
)


def group_facts(group: ThrottleGroup) -> Facts:
    """One group."""
    yield "group", group.name
    yield from _limit_facts(group)
    yield "iops size", units.size(group.iops_size_bytes) if group.iops_size_bytes else ""
    yield "nodes", ", ".join(group.node_names)
    yield "waiting", units.count(group.queued_operations)
    yield "held up", units.count(group.throttled_operations)
    mean_ns = nanoseconds(group.wait_time) / max(1, group.throttled_operations)
    yield "mean wait", units.short_time(mean_ns) if group.throttled_operations else ""
    yield "etag", group.etag


def _limit_facts(group: ThrottleGroup) -> Iterator[tuple[str, str]]:
    for name in NAMES:
        yield name.replace("_", " "), words(name, getattr(group, name))
