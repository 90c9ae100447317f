"""`blockyard snapshot`: snapshots inside images, and overlays, which are snapshots too."""

from pathlib import Path

from blockyard.cli.app import sub_app
from blockyard.cli.options import DEFAULTS, Globals, Size
from blockyard.cli.running import connected

app = sub_app("snapshot")


@app.command
async def create(node: str, name: str, /, *, vm_state: Path | None = None, options: Globals = DEFAULTS) -> None:
    """Take a snapshot inside an image.

    Examples:
      blockyard snapshot create disk before-upgrade
      blockyard snapshot create disk suspended --vm-state guest.state

    Parameters
    ----------
    node
        The image's node, not a filter above it.
    name
        The snapshot.
    vm_state
        A file to keep with it.
    """
    from blockyard.cli.describe import SNAPSHOTS

    async with connected(options) as (client, out):
        length = await client.snapshots.save_state(node, vm_state) if vm_state is not None else 0
        out.single(await client.snapshots.create(node, name, vm_state_bytes=length), SNAPSHOTS)


@app.command(name="list")
async def list_(node: str, /, *, options: Globals = DEFAULTS) -> None:
    """List the snapshots of an image, oldest first.

    For example:
      blockyard snapshot list disk

    Parameters
    ----------
    node
        The image's node.
    """
    from blockyard.cli.describe import SNAPSHOTS

    async with connected(options) as (client, out):
        out.many(await client.snapshots.list(node), SNAPSHOTS)


@app.command
async def show(node: str, snapshot: str, /, *, options: Globals = DEFAULTS) -> None:
    """Show one snapshot.

    Examples:
      blockyard snapshot show disk before-upgrade

    Parameters
    ----------
    node
        The image's node.
    snapshot
        Its id or name.
    """
    from blockyard.base.errors import ResourceNotFound
    from blockyard.cli.describe import SNAPSHOTS

    async with connected(options) as (client, out):
        found = await client.snapshots.list(node)
        chosen = [each for each in found if each.id == snapshot] or [
            each for each in found if each.name == snapshot
        ]
        if not chosen:
            raise ResourceNotFound("snapshot", snapshot)
        out.single(chosen[0], SNAPSHOTS)


@app.command
async def revert(node: str, snapshot: str, /, *, options: Globals = DEFAULTS) -> None:
    """Make the disk what it was. What was written since is lost, unless another snapshot has it.

    Examples:
      blockyard snapshot revert disk before-upgrade

    Parameters
    ----------
    node
        The image's node.
    snapshot
        Its id or name.
    """
    from blockyard.v1.control_pb2 import RevertToSnapshotResponse

    async with connected(options) as (client, out):
        await client.snapshots.revert(node, snapshot)
        out.done(RevertToSnapshotResponse(), "" if options.quiet else f"{node} is as it was at {snapshot}")


@app.command
async def delete(node: str, name: str = "", /, *, id: str = "", options: Globals = DEFAULTS) -> None:
    """Forget a snapshot, and free what it alone held.

    Examples:
      blockyard snapshot delete disk before-upgrade
      blockyard snapshot delete disk --id 3

    Parameters
    ----------
    node
        The image's node.
    name
        Its name.
    id
        Its id; of several with one name, this one.
    """
    from blockyard.cli.describe import SNAPSHOTS

    async with connected(options) as (client, out):
        out.single(await client.snapshots.delete(node, name, id=id), SNAPSHOTS)


@app.command(name="open")
async def open_(node: str, snapshot: str, /, *, name: str = "", options: Globals = DEFAULTS) -> None:
    """Open a snapshot as a read-only node, while the disk goes on.

    Examples:
      blockyard snapshot open disk before-upgrade --name old
      blockyard export add old

    Parameters
    ----------
    node
        The image's node.
    snapshot
        Its id or name.
    name
        Name of the new node.
    """
    from blockyard.cli.describe import node_facts

    async with connected(options) as (client, out):
        out.one(await client.snapshots.open(node, snapshot, name), node_facts)


@app.command
async def save_state(node: str, file: Path, /, *, options: Globals = DEFAULTS) -> None:
    """Store a file as VM state beside the disk; prints its bytes.

    Examples:
      blockyard snapshot save-state disk guest.state

    Parameters
    ----------
    node
        The image's node.
    file
        The file here.
    """
    from blockyard.v1.control_pb2 import SaveVmStateResponse

    async with connected(options) as (client, out):
        written = await client.snapshots.save_state(node, file)
        out.done(SaveVmStateResponse(written_bytes=written), "" if options.quiet else f"{written} bytes stored")


@app.command
async def load_state(
    node: str, file: Path, /, *, snapshot: str = "", length: Size = 0, options: Globals = DEFAULTS
) -> None:
    """Read the VM state of a snapshot, or beside the disk, into a file.

    Examples:
      blockyard snapshot load-state disk guest.state --snapshot suspended

    Parameters
    ----------
    node
        The image's node.
    file
        The file here; it is overwritten.
    snapshot
        Its id or name. Without it: what is beside the disk.
    length
        Without a snapshot: how many bytes.
    """
    from blockyard.v1.control_pb2 import SaveVmStateResponse

    async with connected(options) as (client, out):
        written = 0
        async for piece in client.snapshots.load_state(node, snapshot, length=length):
            # What the file held is overwritten only when there is something to write.
            with file.open("ab" if written else "wb") as target:
                written += target.write(piece)
        out.done(SaveVmStateResponse(written_bytes=written), "" if options.quiet else f"{written} bytes read")


@app.command
async def overlay(
    *pairs: str,
    existing: bool = False,
    absolute: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Put new images above nodes, which stay as they are; of several nodes at one instant.

    Examples:
      blockyard snapshot overlay disk=disk-1.qcow2
      blockyard snapshot overlay system=system-1.qcow2 data=data-1.qcow2

    Parameters
    ----------
    pairs
        NODE=FILE each: the node, and the overlay's image.
    existing
        The images are there, and their headers name those of the nodes.
    absolute
        Headers name the nodes' images from the root of the file system, not as seen from the overlay.
    """
    from blockyard.base.errors import InvalidArgument
    from blockyard.cli.describe import NODES
    from blockyard.v1.control_pb2 import Overlay

    naming = Overlay.BACKING_NAMING_ABSOLUTE if absolute else Overlay.BACKING_NAMING_UNSPECIFIED
    wanted = []
    for pair in pairs:
        node, equals, filename = pair.partition("=")
        if not equals:
            raise InvalidArgument("pairs", "NODE=FILE", pair)
        wanted.append(Overlay(node_name=node, filename=filename, existing=existing, backing_naming=naming))
    async with connected(options) as (client, out):
        reply = await client.snapshots.overlays(wanted)
        pause, skew = reply.pause.ToNanoseconds() / 1e6, reply.skew.ToNanoseconds() / 1e6
        if out.for_people:
            out.many(reply.nodes, NODES)
        remark = f"guests were held for {pause:.1f} ms, {skew:.1f} ms of it until all were still"
        out.done(reply, "" if options.quiet else remark)


@app.command
async def allocated(point: str, /, *, offset: Size = 0, length: Size = 0, options: Globals = DEFAULTS) -> None:
    """List where a disk or a snapshot holds data; all else reads as zeroes.

    Examples:
      blockyard snapshot allocated disk@before-upgrade --output jsonl

    Parameters
    ----------
    point
        A node as it is now, or NODE@SNAPSHOT.
    offset
        First byte.
    length
        How many bytes; to the end without it.
    """
    from blockyard.cli.describe import SNAPSHOT_EXTENTS
    from blockyard.client.snapshots import point_in_time

    at = point_in_time(point)
    async with connected(options) as (client, out):
        with out.stream(SNAPSHOT_EXTENTS) as add_row:
            async for extent in client.snapshots.allocated(at.node_name, at.snapshot, offset=offset, length=length):
                add_row(extent)


@app.command
async def changed(
    base: str, target: str, /, *, offset: Size = 0, length: Size = 0, options: Globals = DEFAULTS
) -> None:
    """List where a disk or snapshot differs from an earlier one: snapshots of an image, or layers of a chain.

    Examples:
      blockyard snapshot changed disk@monday disk@tuesday --output jsonl
      blockyard snapshot changed disk@monday disk
      blockyard snapshot changed base top

    Parameters
    ----------
    base
        A node as it is now, or NODE@SNAPSHOT.
    target
        The same; what of it differs is listed.
    offset
        First byte.
    length
        How many bytes; to the end without it.
    """
    from blockyard.cli.describe import SNAPSHOT_EXTENTS

    async with connected(options) as (client, out):
        with out.stream(SNAPSHOT_EXTENTS) as add_row:
            async for extent in client.snapshots.changed(base, target, offset=offset, length=length):
                add_row(extent)
