"""How people see breakpoints and faults. Pure, as `describe`."""

from collections.abc import Sequence
from typing import Final

from blockyard.cli import units
from blockyard.cli.describe import nanoseconds
from blockyard.cli.output import Column
from blockyard.v1.debug_pb2 import Fault, WatchBreakpointsResponse

EVENTS: Final[Sequence[Column]] = (Column("EVENT", lambda item: item["event"]),)

BREAKPOINTS: Final[Sequence[Column]] = (
    Column("BREAKPOINT", lambda found: found.tag),
    Column("NODE", lambda found: found.node_name),
    Column("EVENT", lambda found: found.event),
    Column("SUSPENDED", lambda found: str(found.suspended), right=True),
)


def breakpoint_line(change: WatchBreakpointsResponse) -> str:
    """What happened at a breakpoint: `here: 2 wait at cow_write of bug`."""
    found = change.breakpoint
    if change.removed:
        return f"{found.tag}: removed"
    return f"{found.tag}: {found.suspended or 'none'} wait at {found.event} of {found.node_name}"


FAULTS: Final[Sequence[Column]] = (
    Column("FAULT", lambda fault: fault.fault_id),
    Column("NODE", lambda fault: fault.node_name),
    Column("EVENT", lambda fault: fault.event),
    Column("EFFECT", lambda fault: fault_effect(fault)),
    Column("CHANCE", lambda fault: f"{fault.rate:g}", right=True),
    Column("STRUCK", lambda fault: f"{fault.struck} of {fault.times}" if fault.times else str(fault.struck)),
)


def fault_effect(fault: Fault) -> str:
    """`after 2.00 s, errno 5 at 0x200`."""
    words = [f"after {units.short_time(nanoseconds(fault.delay))}"] if fault.HasField("delay") else []
    words += [f"errno {fault.errno}"] if fault.errno else []
    words += ["one bit wrong"] if fault.corrupt else []
    place = f" at {fault.offset_bytes:#x}" if fault.HasField("offset_bytes") else ""
    return ", ".join(words) + place
