"""`blockyard export`: nodes for guests."""

from typing import Annotated

from cyclopts import Parameter

from blockyard.cli.app import sub_app
from blockyard.cli.options import DEFAULTS, Globals
from blockyard.cli.running import connected

app = sub_app("export")


@app.command
async def add(
    node: str = "",
    /,
    *,
    attachment: str = "",
    id: str = "",
    name: str = "",
    description: str = "",
    writable: Annotated[bool, Parameter(name=["--writable", "-w"])] = False,
    writethrough: bool = False,
    bitmap: tuple[str, ...] = (),
    allocation_depth: bool = False,
    listen: tuple[str, ...] = (),
    max_connections: int = 0,
    dry_run: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Export a node over NBD.

    Examples:
      blockyard export add disk --writable
      blockyard export add disk --id backup --bitmap since-monday --listen unix:/run/vm/disk.sock
      blockyard export add --attachment cdrom

    Parameters
    ----------
    node
        The node.
    attachment
        The attachment to serve instead of a node.
    id
        Identity of the export. Default: the name of the node or attachment.
    name
        Name that NBD clients ask for. Default: the export's id.
    description
        For people who list exports.
    writable
        Let clients write.
    writethrough
        Writes are durable before they are acknowledged.
    bitmap
        Offer this dirty bitmap as qemu:dirty-bitmap:NAME; may be given several times.
    allocation_depth
        Offer qemu:allocation-depth.
    listen
        unix:/path or host:port, several times if wanted. Default: the addresses of the node service.
    max_connections
        Connections at once. Default 100.
    dry_run
        Check only.
    """
    from blockyard.cli.describe import export_facts

    async with connected(options) as (client, out):
        export = await client.exports.add_nbd(
            node,
            id or node or attachment,
            name=name,
            description=description,
            writable=writable,
            writethrough=writethrough,
            bitmaps=bitmap,
            allocation_depth=allocation_depth,
            addresses=listen,
            max_connections=max_connections,
            attachment=attachment,
            validate_only=dry_run,
        )
        out.one(export, export_facts)


@app.command(name="list")
async def list_(*, options: Globals = DEFAULTS) -> None:
    """List the exports with where clients connect.

    For example:
      blockyard export list
    """
    from blockyard.cli.describe import EXPORTS

    async with connected(options) as (client, out):
        out.many(await client.exports.list(), EXPORTS)


@app.command
async def show(export: str, /, *, options: Globals = DEFAULTS) -> None:
    """Show an export and its clients.

    For example:
      blockyard export show disk

    Parameters
    ----------
    export
        The export's id.
    """
    from blockyard.cli.describe import export_facts

    async with connected(options) as (client, out):
        out.one(await client.exports.get(export), export_facts)


@app.command
async def remove(
    export: str, /, *, force: bool = False, allow_missing: bool = False, options: Globals = DEFAULTS
) -> None:
    """End an export.

    Examples:
      blockyard export remove disk --force

    Parameters
    ----------
    export
        The export's id.
    force
        Disconnect its clients.
    allow_missing
        No error if there is no such export.
    """
    from blockyard.v1.export_pb2 import DeleteExportResponse

    async with connected(options) as (client, out):
        await client.exports.remove(export, force=force, allow_missing=allow_missing)
        out.done(DeleteExportResponse(), "" if options.quiet else f"removed export {export}")
