"""`blockyard bitmap`: what was written since a point in time."""

from blockyard.cli.app import sub_app
from blockyard.cli.options import DEFAULTS, Globals, Size
from blockyard.cli.running import connected

app = sub_app("bitmap")


@app.command
async def add(
    node: str,
    name: str,
    /,
    *,
    granularity: Size = 0,
    persistent: bool = False,
    disabled: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Begin to record which parts of a node are written.

    Examples:
      blockyard bitmap add disk since-monday
      blockyard job backup disk target --sync bitmap --bitmap since-monday

    Parameters
    ----------
    node
        The node.
    name
        The bitmap.
    granularity
        Bytes per bit, a power of two of 512 to 64M. Default: the cluster size, 4K to 64K.
    persistent
        It survives the service and a crash: kept in the image, or in the service's state directory.
    disabled
        Do not record yet.
    """
    from blockyard.cli.describe import BITMAPS

    async with connected(options) as (client, out):
        bitmap = await client.bitmaps.add(
            node, name, granularity_bytes=granularity, persistent=persistent, disabled=disabled
        )
        out.single(bitmap, BITMAPS)


@app.command(name="list")
async def list_(node: str = "", /, *, options: Globals = DEFAULTS) -> None:
    """List bitmaps with how much is dirty.

    For example:
      blockyard bitmap list disk

    Parameters
    ----------
    node
        Only those of this node.
    """
    from blockyard.cli.describe import BITMAPS

    async with connected(options) as (client, out):
        out.many(await client.bitmaps.list(node), BITMAPS)


@app.command
async def show(node: str, name: str, /, *, options: Globals = DEFAULTS) -> None:
    """Show one bitmap.

    Examples:
      blockyard bitmap show disk since-monday

    Parameters
    ----------
    node
        The node.
    name
        The bitmap.
    """
    from blockyard.cli.describe import BITMAPS

    async with connected(options) as (client, out):
        out.single(await client.bitmaps.get(node, name), BITMAPS)


@app.command
async def enable(node: str, name: str, /, *, options: Globals = DEFAULTS) -> None:
    """Record new writes from now on.

    Examples:
      blockyard bitmap enable disk since-monday

    Parameters
    ----------
    node
        The node.
    name
        The bitmap.
    """
    from blockyard.cli.describe import BITMAPS

    async with connected(options) as (client, out):
        out.single(await client.bitmaps.record(node, name, True), BITMAPS)


@app.command
async def disable(node: str, name: str, /, *, options: Globals = DEFAULTS) -> None:
    """Record no new writes, and keep what was recorded.

    Examples:
      blockyard bitmap disable disk since-monday

    Parameters
    ----------
    node
        The node.
    name
        The bitmap.
    """
    from blockyard.cli.describe import BITMAPS

    async with connected(options) as (client, out):
        out.single(await client.bitmaps.record(node, name, False), BITMAPS)


@app.command
async def merge(node: str, name: str, /, *sources: str, options: Globals = DEFAULTS) -> None:
    """Mark dirty in one bitmap what is dirty in others.

    Examples:
      blockyard bitmap merge disk week monday tuesday
      blockyard bitmap merge disk week overlay/wednesday

    Parameters
    ----------
    node
        The node.
    name
        The bitmap that becomes dirtier.
    sources
        Bitmaps of the same node, or NODE/BITMAP of another.
    """
    from blockyard.cli.describe import BITMAPS

    async with connected(options) as (client, out):
        out.single(await client.bitmaps.merge((node, name), [_found(node, text) for text in sources]), BITMAPS)


def _found(node: str, text: str) -> tuple[str, str]:
    other, slash, name = text.partition("/")
    return (other, name) if slash else (node, text)


@app.command(name="hash")
async def hash_(node: str, name: str, /, *, options: Globals = DEFAULTS) -> None:
    """Print a checksum of what a bitmap says, the same as QEMU's.

    Examples:
      blockyard bitmap hash disk since-monday

    Parameters
    ----------
    node
        The node.
    name
        The bitmap.
    """
    from blockyard.v1.bitmap_pb2 import HashBitmapResponse

    async with connected(options) as (client, out):
        digest = await client.bitmaps.sha256(node, name)
        out.done(HashBitmapResponse(sha256=digest), digest)


@app.command
async def clear(node: str, name: str, /, *, options: Globals = DEFAULTS) -> None:
    """Mark nothing dirty.

    Examples:
      blockyard bitmap clear disk since-monday

    Parameters
    ----------
    node
        The node.
    name
        The bitmap.
    """
    from blockyard.cli.describe import BITMAPS

    async with connected(options) as (client, out):
        out.single(await client.bitmaps.clear(node, name), BITMAPS)


@app.command
async def remove(node: str, name: str, /, *, allow_missing: bool = False, options: Globals = DEFAULTS) -> None:
    """Forget a bitmap.

    Examples:
      blockyard bitmap remove disk since-monday

    Parameters
    ----------
    node
        The node.
    name
        The bitmap.
    allow_missing
        No error if there is no such bitmap.
    """
    from blockyard.v1.bitmap_pb2 import DeleteBitmapResponse

    async with connected(options) as (client, out):
        await client.bitmaps.remove(node, name, allow_missing=allow_missing)
        out.done(DeleteBitmapResponse(), "" if options.quiet else f"removed bitmap {name} of {node}")


@app.command
async def extents(
    node: str, name: str, /, *, offset: Size = 0, length: Size = 0, options: Globals = DEFAULTS
) -> None:
    """List the dirty ranges, in order.

    Examples:
      blockyard bitmap extents disk since-monday --output jsonl

    Parameters
    ----------
    node
        The node.
    name
        The bitmap.
    offset
        First byte.
    length
        How many bytes; to the end without it.
    """
    from blockyard.cli.describe import DIRTY_EXTENTS
    from blockyard.v1.types_pb2 import ByteRange

    async with connected(options) as (client, out):
        with out.stream(DIRTY_EXTENTS) as add_row:
            async for extent in client.bitmaps.extents(node, name, offset, length):
                add_row(ByteRange(offset_bytes=extent.offset, length_bytes=extent.length))
