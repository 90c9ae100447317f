"""`blockyard throttle`: groups of limits that nodes share."""

from typing import Any

from blockyard.cli.app import sub_app
from blockyard.cli.limits import Bps, Iops
from blockyard.cli.options import DEFAULTS, Globals, Size
from blockyard.cli.running import connected

app = sub_app("throttle")


@app.command
async def create(
    group: str,
    /,
    *,
    iops_total: Iops = None,
    iops_read: Iops = None,
    iops_write: Iops = None,
    bps_total: Bps = None,
    bps_read: Bps = None,
    bps_write: Bps = None,
    iops_size: Size | None = None,
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
    iops_total
        Requests per second, all together.
    iops_read
        Reads per second.
    iops_write
        Writes per second; zeroes and discards count.
    bps_total
        Bytes per second, all together: 100M is 100 MiB.
    bps_read
        Bytes read per second.
    bps_write
        Bytes written per second.
    iops_size
        A longer request counts as several.
    """
    from blockyard.cli.limits import group_facts

    limits = _given(iops_total, iops_read, iops_write, bps_total, bps_read, bps_write, iops_size)
    async with connected(options) as (client, out):
        out.one(await client.throttle.create(group, **limits), group_facts)


@app.command
async def update(
    group: str,
    /,
    *,
    iops_total: Iops = None,
    iops_read: Iops = None,
    iops_write: Iops = None,
    bps_total: Bps = None,
    bps_read: Bps = None,
    bps_write: Bps = None,
    iops_size: Size | None = None,
    etag: str = "",
    options: Globals = DEFAULTS,
) -> None:
    """Change limits of a group, all at once, also for requests that wait. What is not given stays.

    Examples:
      blockyard throttle update gold --iops-total 1k
      blockyard throttle update gold --iops-total none --iops-read 4k --iops-write 1k

    Parameters
    ----------
    group
        The group.
    iops_total
        Requests per second, all together; none removes the limit. So with all others.
    iops_read
        Reads per second.
    iops_write
        Writes per second; zeroes and discards count.
    bps_total
        Bytes per second, all together.
    bps_read
        Bytes read per second.
    bps_write
        Bytes written per second.
    iops_size
        A longer request counts as several; 0 is off.
    etag
        Refuse if the group is no longer what it was with this etag.
    """
    from blockyard.cli.limits import group_facts

    limits = _given(iops_total, iops_read, iops_write, bps_total, bps_read, bps_write, iops_size)
    async with connected(options) as (client, out):
        out.one(await client.throttle.update(group, etag=etag, **limits), group_facts)


@app.command(name="list")
async def list_(*, options: Globals = DEFAULTS) -> None:
    """List the groups with their limits, what waits, and who uses them.

    Examples:
      blockyard throttle list
    """
    from blockyard.cli.limits import GROUPS

    async with connected(options) as (client, out):
        out.many(await client.throttle.list(), GROUPS)


@app.command
async def show(group: str, /, *, options: Globals = DEFAULTS) -> None:
    """Show a group: limits, nodes, how many requests were held up and for how long.

    Examples:
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


def _given(*values: Any) -> dict[str, Any]:
    """The limits that were said, by their names in the API."""
    from blockyard.cli.limits import NAMES

    return {
        name: value for name, value in zip((*NAMES, "iops_size_bytes"), values, strict=True) if value is not None
    }
