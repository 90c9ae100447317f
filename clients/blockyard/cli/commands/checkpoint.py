"""`blockyard checkpoint`: named points in time, and what changed between two."""

import time

from blockyard.cli.app import sub_app
from blockyard.cli.options import DEFAULTS, Globals, Size
from blockyard.cli.running import connected

app = sub_app("checkpoint")


@app.command
async def create(
    node: str,
    consumer: str,
    name: str,
    /,
    *,
    granularity: Size = 0,
    keep_seconds: int = 0,
    hold: tuple[str, ...] = (),
    options: Globals = DEFAULTS,
) -> None:
    """Remember this instant of a node for a consumer.

    Examples:
      blockyard checkpoint create disk nightly monday
      blockyard checkpoint create disk nightly monday --keep-seconds 604800

    Parameters
    ----------
    node
        The node.
    consumer
        Whose it is: each backup product has names of its own.
    name
        The checkpoint.
    granularity
        Bytes per bit. Default: as the checkpoint before.
    keep_seconds
        It goes by itself after so long. Default: never.
    hold
        Who holds it at once.
    """
    from blockyard.cli.describe import CHECKPOINTS

    async with connected(options) as (client, out):
        made = await client.checkpoints.create(
            node,
            consumer,
            name,
            granularity_bytes=granularity,
            expires_ns=_after(keep_seconds),
            holders=hold,
        )
        out.single(made, CHECKPOINTS)


@app.command(name="list")
async def list_(node: str = "", /, *, consumer: str = "", options: Globals = DEFAULTS) -> None:
    """List checkpoints, oldest first.

    Examples:
      blockyard checkpoint list disk --consumer nightly

    Parameters
    ----------
    node
        Only those of this node.
    consumer
        Only those of this consumer.
    """
    from blockyard.cli.describe import CHECKPOINTS

    async with connected(options) as (client, out):
        out.many(await client.checkpoints.list(node, consumer), CHECKPOINTS)


@app.command
async def show(node: str, consumer: str, name: str, /, *, options: Globals = DEFAULTS) -> None:
    """Show one checkpoint.

    Examples:
      blockyard checkpoint show disk nightly monday

    Parameters
    ----------
    node
        The node.
    consumer
        Whose it is.
    name
        The checkpoint.
    """
    from blockyard.cli.describe import CHECKPOINTS

    async with connected(options) as (client, out):
        out.single(await client.checkpoints.get(node, consumer, name), CHECKPOINTS)


@app.command
async def delete(
    node: str, consumer: str, name: str, /, *, allow_missing: bool = False, options: Globals = DEFAULTS
) -> None:
    """Forget a checkpoint. What changed since the ones before stays known.

    Examples:
      blockyard checkpoint delete disk nightly monday

    Parameters
    ----------
    node
        The node.
    consumer
        Whose it is.
    name
        The checkpoint.
    allow_missing
        No error if there is none.
    """
    from blockyard.v1.bitmap_pb2 import DeleteCheckpointResponse

    async with connected(options) as (client, out):
        await client.checkpoints.delete(node, consumer, name, allow_missing=allow_missing)
        text = f"deleted checkpoint {consumer}/{name} of {node}"
        out.done(DeleteCheckpointResponse(), "" if options.quiet else text)


@app.command
async def hold(node: str, consumer: str, name: str, holder: str, /, *, options: Globals = DEFAULTS) -> None:
    """Keep a checkpoint from being deleted and from expiring.

    Examples:
      blockyard checkpoint hold disk nightly monday restore-17

    Parameters
    ----------
    node
        The node.
    consumer
        Whose it is.
    name
        The checkpoint.
    holder
        Who holds it.
    """
    from blockyard.cli.describe import CHECKPOINTS

    async with connected(options) as (client, out):
        out.single(await client.checkpoints.hold(node, consumer, name, holder), CHECKPOINTS)


@app.command
async def release(node: str, consumer: str, name: str, holder: str, /, *, options: Globals = DEFAULTS) -> None:
    """Let a checkpoint go that was held.

    Examples:
      blockyard checkpoint release disk nightly monday restore-17

    Parameters
    ----------
    node
        The node.
    consumer
        Whose it is.
    name
        The checkpoint.
    holder
        Who held it.
    """
    from blockyard.cli.describe import CHECKPOINTS

    async with connected(options) as (client, out):
        out.single(await client.checkpoints.release(node, consumer, name, holder), CHECKPOINTS)


@app.command
async def expire(
    node: str, consumer: str, name: str, /, *, keep_seconds: int = 0, options: Globals = DEFAULTS
) -> None:
    """Change when a checkpoint goes by itself.

    Examples:
      blockyard checkpoint expire disk nightly monday --keep-seconds 3600
      blockyard checkpoint expire disk nightly monday

    Parameters
    ----------
    node
        The node.
    consumer
        Whose it is.
    name
        The checkpoint.
    keep_seconds
        From now on. Default: it stays.
    """
    from blockyard.cli.describe import CHECKPOINTS

    async with connected(options) as (client, out):
        changed = await client.checkpoints.set_expiry(node, consumer, name, _after(keep_seconds))
        out.single(changed, CHECKPOINTS)


@app.command
async def delta(
    node: str,
    base: str,
    target: str = "",
    /,
    *,
    offset: Size = 0,
    length: Size = 0,
    options: Globals = DEFAULTS,
) -> None:
    """List what changed from one checkpoint to a later one, or until now.

    Examples:
      blockyard checkpoint delta disk nightly/monday nightly/tuesday
      blockyard checkpoint delta disk nightly/monday --output jsonl

    Parameters
    ----------
    node
        The node.
    base
        CONSUMER/NAME of what is known.
    target
        CONSUMER/NAME of what is wanted; without it the node as it is now.
    offset
        First byte.
    length
        How many bytes; to the end without it.
    """
    from blockyard.cli.describe import DIRTY_EXTENTS

    async with connected(options) as (client, out):
        with out.stream(DIRTY_EXTENTS) as add_row:
            async for extent in client.checkpoints.delta(node, base, target, offset=offset, length=length):
                add_row(extent)


def _after(seconds: int) -> int:
    return time.time_ns() + seconds * 10**9 if seconds else 0
