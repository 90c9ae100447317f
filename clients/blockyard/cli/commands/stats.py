"""`blockyard stats`: how much, how fast, how long."""

from blockyard.cli.app import sub_app
from blockyard.cli.options import DEFAULTS, Globals, Seconds
from blockyard.cli.running import connected, remark

app = sub_app("stats")


@app.command
async def show(*nodes: str, window: Seconds = 0.0, closed: bool = False, options: Globals = DEFAULTS) -> None:
    """Show requests, bytes and mean latencies of nodes.

    Examples:
      blockyard stats show
      blockyard stats show disk --window 30s

    Parameters
    ----------
    nodes
        Only these nodes.
    window
        Over the latest time, at most 1h, instead of since the node was opened.
    closed
        Also nodes that are gone, as long as they are remembered.
    """
    from blockyard.cli.accounts import OPERATIONS, operations

    async with connected(options) as (client, out):
        found = await client.stats.query(nodes, window_s=window or None, include_closed=closed)
        if found.stale:
            remark(options, "the node service does not answer: these are the last known figures")
        if out.for_people:
            out.many(operations(found.stats), OPERATIONS)
        else:
            out.many(found.stats, ())


@app.command
async def watch(*nodes: str, interval: Seconds = 1.0, options: Globals = DEFAULTS) -> None:
    """Print rates and latencies at an interval, until Ctrl-C.

    Examples:
      blockyard stats watch
      blockyard stats watch disk --interval 200ms --output jsonl

    Parameters
    ----------
    nodes
        Only these nodes.
    interval
        Time between lines, 100ms to 1h.
    """
    from blockyard.cli.accounts import rate_header, rate_line

    async with connected(options) as (client, out):
        if out.for_people:
            out.text(rate_header())
        async for message in client.stats.watch(nodes, interval_s=interval):
            if not out.for_people:
                out.live(message, "")
                continue
            for rate in message.rates:
                out.live(rate, rate_line(rate))


@app.command
async def latency(*nodes: str, window: Seconds = 0.0, options: Globals = DEFAULTS) -> None:
    """Show where the time goes: latencies by node, driver and kind of request, the most expensive first.

    Times of a node include those of the nodes below it.

    Examples:
      blockyard stats latency
      blockyard stats latency disk --window 1m

    Parameters
    ----------
    nodes
        Only these nodes.
    window
        Over the latest time instead of since the node was opened.
    """
    from blockyard.cli.accounts import LATENCIES, by_total

    async with connected(options) as (client, out):
        out.many(by_total(await client.stats.latency(nodes, window_s=window or None)), LATENCIES)
