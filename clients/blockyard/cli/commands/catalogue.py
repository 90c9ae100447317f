"""`blockyard catalogue`: what comes back after a restart, and what did not."""

from typing import Annotated, Literal

from cyclopts import Parameter

from blockyard.cli.app import sub_app
from blockyard.cli.exits import Exit
from blockyard.cli.options import DEFAULTS, Globals
from blockyard.cli.running import CommandFailed, connected

app = sub_app("catalogue")

Kind = Literal["node", "export", "bitmap", "throttle-group", "write-threshold", "attachment", "executor"]


@app.command(name="list")
async def list_(
    *, failed: Annotated[bool, Parameter(name=["--failed", "-f"])] = False, options: Globals = DEFAULTS
) -> None:
    """List what the node service keeps over restarts, and why something is not there again.

    For example:
      blockyard catalogue list
      blockyard catalogue list --failed --output jsonl

    Parameters
    ----------
    failed
        Only what could not be restored.
    """
    from blockyard.cli.describe import CATALOGUE

    async with connected(options) as (client, out):
        listed = await client.catalogue.list(failed_only=failed)
        if not listed.location:
            raise CommandFailed(
                Exit.PRECONDITION,
                "the node service keeps no catalogue",
                "Start it with --state-directory DIRECTORY.",
            )
        out.many(listed.entries, CATALOGUE)


@app.command
async def restore(kind: Kind, name: str, /, *, options: Globals = DEFAULTS) -> None:
    """Try again to restore what failed after a restart, with what it needs and what needs it.

    Examples:
      blockyard catalogue restore node disk
      blockyard catalogue restore bitmap disk/since

    Parameters
    ----------
    kind
        What it is.
    name
        Its name; of a bitmap NODE/NAME.
    """
    from blockyard.cli.describe import catalogue_facts

    async with connected(options) as (client, out):
        out.one(await client.catalogue.restore(kind, name), catalogue_facts)


@app.command
async def forget(kind: Kind, name: str, /, *, options: Globals = DEFAULTS) -> None:
    """Give up what could not be restored: it is no longer kept, and its name is free.

    Examples:
      blockyard catalogue forget node disk

    Parameters
    ----------
    kind
        What it is.
    name
        Its name; of a bitmap NODE/NAME.
    """
    from blockyard.v1.node_pb2 import ForgetCatalogueEntryResponse

    async with connected(options) as (client, out):
        await client.catalogue.forget(kind, name)
        out.done(ForgetCatalogueEntryResponse(), "" if options.quiet else f"forgot {kind} {name}")
