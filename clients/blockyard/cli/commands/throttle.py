"""`blockyard throttle`: groups of limits that nodes share."""

from dataclasses import dataclass, fields
from typing import Annotated, Any, Final

from cyclopts import Parameter

from blockyard.cli.app import sub_app
from blockyard.cli.limits import Bps, Iops
from blockyard.cli.options import DEFAULTS, Globals, Size
from blockyard.cli.running import connected

app = sub_app("throttle")


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Limits:
    """What a group limits. `none` removes a limit; what is not given stays."""

    iops_total: Iops = None
    """Requests per second, all together."""
    iops_read: Iops = None
    """Reads per second."""
    iops_write: Iops = None
    """Writes per second; zeroes and discards count."""
    bps_total: Bps = None
    """Bytes per second, all together: 100M is 100 MiB."""
    bps_read: Bps = None
    """Bytes read per second."""
    bps_write: Bps = None
    """Bytes written per second."""
    iops_size_bytes: Annotated[Size | None, Parameter(name="--iops-size")] = None
    """A longer request counts as several; 0 is off."""

    def given(self) -> dict[str, Any]:
        """Those that were said, by their names in the API."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


NO_LIMITS: Final = Limits()


@app.command
async def create(
    group: str,
    /,
    *,
    limits: Limits = NO_LIMITS,
    options: Globals = DEFAULTS,
) -> None:
    """Make a group of limits. A node joins it by the driver throttle.

    A limit is a mean rate per second, with a burst if wanted: AVG, AVG:MAX or AVG:MAX:TIME. 5k:20k:30s lets 20,000
    requests a second pass for 30 s, and 5,000 in the long run. A total excludes limits of reads or writes alone.

    Examples:
      blockyard throttle create gold --iops-total 5k:20k:30s --bps-total 200M
      blockyard node open disk.raw --format raw --name disk
      blockyard node open --format throttle --set file=disk --set throttle_group=gold --name limited

    Parameters
    ----------
    group
        Name of the group.
    limits
        See there.
    """
    from blockyard.cli.limits import group_facts

    async with connected(options) as (client, out):
        out.one(await client.throttle.create(group, **limits.given()), group_facts)


@app.command
async def update(
    group: str,
    /,
    *,
    limits: Limits = NO_LIMITS,
    etag: str = "",
    options: Globals = DEFAULTS,
) -> None:
    """Change limits of a group, all at once, also for requests that wait. What is not given stays, none removes it.

    Examples:
      blockyard throttle update gold --iops-total 1k
      blockyard throttle update gold --iops-total none --iops-read 4k --iops-write 1k

    Parameters
    ----------
    group
        The group.
    etag
        Refuse if the group is no longer what it was with this etag.
    """
    from blockyard.cli.limits import group_facts

    async with connected(options) as (client, out):
        out.one(await client.throttle.update(group, etag=etag, **limits.given()), group_facts)


@app.command(name="list")
async def list_(*, options: Globals = DEFAULTS) -> None:
    """List the groups with their limits, what waits, and who uses them.

    For example:
      blockyard throttle list
    """
    from blockyard.cli.limits import GROUPS

    async with connected(options) as (client, out):
        out.many(await client.throttle.list(), GROUPS)


@app.command
async def show(group: str, /, *, options: Globals = DEFAULTS) -> None:
    """Show a group: limits, nodes, how many requests were held up and for how long.

    For example:
      blockyard throttle show gold

    Parameters
    ----------
    group
        The group.
    """
    from blockyard.cli.limits import group_facts

    async with connected(options) as (client, out):
        out.one(await client.throttle.get(group), group_facts)


@app.command
async def delete(group: str, /, *, allow_missing: bool = False, options: Globals = DEFAULTS) -> None:
    """Remove a group that no node uses.

    Examples:
      blockyard throttle delete gold

    Parameters
    ----------
    group
        The group.
    allow_missing
        No error if there is no such group.
    """
    from blockyard.v1.control_pb2 import DeleteThrottleGroupResponse

    async with connected(options) as (client, out):
        await client.throttle.remove(group, allow_missing=allow_missing)
        out.done(DeleteThrottleGroupResponse(), "" if options.quiet else f"deleted throttle group {group}")
