"""`blockyard debug`: break things on purpose, at blkdebug nodes of a service that was started with --debug."""

from typing import Annotated

from cyclopts import App, Parameter

from blockyard.cli.app import DEFAULT_PARAMETER, sub_app
from blockyard.cli.options import DEFAULTS, Globals, Seconds, Size
from blockyard.cli.running import connected

app = sub_app("debug")
breakpoint_ = App(
    name="breakpoint",
    help="Stop requests in the middle of what they do.",
    default_parameter=DEFAULT_PARAMETER,
    help_format="plaintext",
)
fault = App(
    name="fault",
    help="Make requests fail, wait or come back wrong.",
    default_parameter=DEFAULT_PARAMETER,
    help_format="plaintext",
)
app.command(breakpoint_)
app.command(fault)


@app.command
async def events(*, options: Globals = DEFAULTS) -> None:
    """List the events that breakpoints and faults can name, by QEMU's names.

    For example:
      blockyard debug events
    """
    from blockyard.cli.debugging import EVENTS

    async with connected(options) as (client, out):
        out.many([{"event": name} for name in await client.debug.events()], EVENTS)


@breakpoint_.command(name="set")
async def set_(node: str, event: str, tag: str, /, *, options: Globals = DEFAULTS) -> None:
    """Stop every request that comes to an event, until it is resumed or the breakpoint removed.

    Examples:
      blockyard debug breakpoint set disk cow_write here

    Parameters
    ----------
    node
        A blkdebug node, or one above it.
    event
        The event (`blockyard debug events`).
    tag
        A name for the breakpoint.
    """
    from blockyard.cli.debugging import BREAKPOINTS

    async with connected(options) as (client, out):
        out.single(await client.debug.set_breakpoint(node, event, tag), BREAKPOINTS)


@breakpoint_.command
async def resume(tag: str, /, *, options: Globals = DEFAULTS) -> None:
    """Let the requests that wait at a breakpoint go on. Later ones stop again.

    For example:
      blockyard debug breakpoint resume here

    Parameters
    ----------
    tag
        The breakpoint.
    """
    from blockyard.cli.debugging import BREAKPOINTS

    async with connected(options) as (client, out):
        out.single(await client.debug.resume(tag), BREAKPOINTS)


@breakpoint_.command(name="remove")
async def remove_breakpoint(tag: str, /, *, options: Globals = DEFAULTS) -> None:
    """Remove a breakpoint and let the requests that wait there go on.

    For example:
      blockyard debug breakpoint remove here

    Parameters
    ----------
    tag
        The breakpoint.
    """
    from blockyard.v1.debug_pb2 import RemoveBreakpointResponse

    async with connected(options) as (client, out):
        await client.debug.remove_breakpoint(tag)
        out.done(RemoveBreakpointResponse(), "" if options.quiet else f"removed breakpoint {tag}")


@breakpoint_.command(name="list")
async def list_breakpoints(*, options: Globals = DEFAULTS) -> None:
    """List breakpoints with how many requests wait at each.

    For example:
      blockyard debug breakpoint list
    """
    from blockyard.cli.debugging import BREAKPOINTS

    async with connected(options) as (client, out):
        out.many(await client.debug.breakpoints(), BREAKPOINTS)


@breakpoint_.command
async def watch(tag: str = "", /, *, options: Globals = DEFAULTS) -> None:
    """Tell of breakpoints as requests stop and go on there, until interrupted.

    For example:
      blockyard debug breakpoint watch here

    Parameters
    ----------
    tag
        Only this one.
    """
    from blockyard.cli.debugging import breakpoint_line

    async with connected(options) as (client, out):
        async for change in client.debug.watch(tag):
            out.live(change, breakpoint_line(change))


@fault.command
async def inject(
    node: str,
    event: str,
    /,
    *,
    errno: int = 0,
    delay: Seconds = 0.0,
    corrupt: bool = False,
    rate: float = 1.0,
    times: int = 0,
    offset: Size | None = None,
    id_: Annotated[str, Parameter(name="--id")] = "",
    options: Globals = DEFAULTS,
) -> None:
    """Strike requests: those of a type, the one that follows each event, or any.

    Examples:
      blockyard debug fault inject disk write --errno 28
      blockyard debug fault inject disk l2_update --errno 5 --times 1
      blockyard debug fault inject disk read --corrupt --rate 0.01
      blockyard debug fault inject disk flush --delay 2s

    Parameters
    ----------
    node
        A blkdebug node, or one above it.
    event
        An event (`blockyard debug events`), a type of request (read, write, write-zeroes, discard, flush,
        block-status), or none for all requests.
    errno
        Fail with this error number: 5 is EIO, 28 ENOSPC.
    delay
        Wait so long first.
    corrupt
        Flip a bit of what is read or written, and say nothing.
    rate
        Chance that a request is struck, above 0 and up to 1.
    times
        Only so often; 0 is always.
    offset
        Only requests that touch this byte.
    id_
        A name for the fault. Without it the service chooses one.
    """
    from blockyard.cli.debugging import FAULTS

    async with connected(options) as (client, out):
        made = await client.debug.inject_fault(
            node,
            event,
            errno=errno,
            delay_s=delay,
            corrupt=corrupt,
            rate=rate,
            times=times,
            offset=offset,
            fault_id=id_,
        )
        out.single(made, FAULTS)


@fault.command
async def remove(id_: str, /, *, options: Globals = DEFAULTS) -> None:
    """Stop a fault.

    For example:
      blockyard debug fault remove fault1

    Parameters
    ----------
    id_
        The fault.
    """
    from blockyard.v1.debug_pb2 import RemoveFaultResponse

    async with connected(options) as (client, out):
        await client.debug.remove_fault(id_)
        out.done(RemoveFaultResponse(), "" if options.quiet else f"removed fault {id_}")


@fault.command(name="list")
async def list_faults(node: str = "", /, *, options: Globals = DEFAULTS) -> None:
    """List faults with how often each struck.

    For example:
      blockyard debug fault list disk

    Parameters
    ----------
    node
        Only those of this node.
    """
    from blockyard.cli.debugging import FAULTS

    async with connected(options) as (client, out):
        out.many(await client.debug.faults(node), FAULTS)
