"""`blockyard attachment`: what a guest's disk or drive is."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from blockyard.base.errors import InvalidArgument
from blockyard.cli.app import sub_app
from blockyard.cli.options import DEFAULTS, Globals, Size
from blockyard.cli.running import connected

if TYPE_CHECKING:
    from blockyard.client.attachments import Attachments
    from blockyard.v1.types_pb2 import Attachment

app = sub_app("attachment")

Policy = Literal["", "report", "ignore", "enospc", "stop", "auto"]
Switch = Literal["", "on", "off"]


@app.command
async def create(
    name: str,
    node: str = "",
    /,
    *,
    writable: Annotated[bool, Parameter(name=["--writable", "-w"])] = False,
    removable: bool = False,
    trayless: bool = False,
    tray_open: bool = False,
    logical_block_size: Size = 0,
    physical_block_size: Size = 0,
    write_cache: Switch = "on",
    on_read_error: Policy = "",
    on_write_error: Policy = "",
    label: tuple[str, ...] = (),
    dry_run: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Attach to a node, with block sizes, a write cache and error policies. Exports and sessions may then use it.

    Examples:
      blockyard attachment create vda disk --writable --on-write-error stop
      blockyard attachment create cdrom --removable
      blockyard export add --attachment vda --writable

    Parameters
    ----------
    name
        Name of the attachment.
    node
        The node; a removable attachment may be empty.
    writable
        The guest may write.
    removable
        The medium can be taken out.
    trayless
        It has no tray (a floppy drive, a card reader).
    tray_open
        The tray is open at first.
    logical_block_size
        What requests are multiples of, 512 to 64K. Default 512.
    physical_block_size
        What writes should be multiples of, at most 2M. Default: the logical block size.
    write_cache
        on, or off: every write is durable before it is acknowledged.
    on_read_error
        report (the default), ignore (read zeroes), enospc, stop.
    on_write_error
        enospc (the default: wait when the disk is full), report, ignore, stop (wait whatever it is).
    label
        NAME=VALUE, several times if wanted.
    dry_run
        Check only.
    """
    from blockyard.cli.attachments import attachment_facts

    async with connected(options) as (client, out):
        made = await client.attachments.create(
            name,
            node,
            writable=writable,
            removable=removable,
            trayless=trayless,
            tray_open=tray_open,
            logical_block_size_bytes=logical_block_size,
            physical_block_size_bytes=physical_block_size,
            write_cache=write_cache != "off",
            on_read_error=on_read_error,
            on_write_error=on_write_error,
            labels=_labels(label),
            validate_only=dry_run,
        )
        out.one(made, attachment_facts)


@app.command(name="list")
async def list_(*, options: Globals = DEFAULTS) -> None:
    """List the attachments with medium and state.

    For example:
      blockyard attachment list
    """
    from blockyard.cli.attachments import ATTACHMENTS

    async with connected(options) as (client, out):
        out.many(await client.attachments.list(), ATTACHMENTS)


@app.command
async def show(name: str, /, *, options: Globals = DEFAULTS) -> None:
    """Show an attachment.

    For example:
      blockyard attachment show vda

    Parameters
    ----------
    name
        The attachment.
    """
    from blockyard.cli.attachments import attachment_facts

    async with connected(options) as (client, out):
        out.one(await client.attachments.get(name), attachment_facts)


@app.command
async def update(
    name: str,
    /,
    *,
    write_cache: Switch = "",
    on_read_error: Policy = "",
    on_write_error: Policy = "",
    logical_block_size: Size = 0,
    physical_block_size: Size = 0,
    label: tuple[str, ...] = (),
    options: Globals = DEFAULTS,
) -> None:
    """Change cache, policies, block sizes or labels; what is not given stays.

    Examples:
      blockyard attachment update vda --on-write-error report
      blockyard attachment update vda --write-cache off

    Parameters
    ----------
    name
        The attachment.
    write_cache
        on or off.
    on_read_error
        report, ignore, enospc, stop, auto.
    on_write_error
        report, ignore, enospc, stop, auto.
    logical_block_size
        512 to 64K; not while something uses the attachment.
    physical_block_size
        At most 2M; not while something uses the attachment.
    label
        NAME=VALUE, several times if wanted; replaces all labels.
    """
    from blockyard.cli.attachments import attachment_facts

    async with connected(options) as (client, out):
        changed = await client.attachments.update(
            name,
            write_cache=None if not write_cache else write_cache == "on",
            on_read_error=on_read_error or None,
            on_write_error=on_write_error or None,
            logical_block_size_bytes=logical_block_size or None,
            physical_block_size_bytes=physical_block_size or None,
            labels=_labels(label) if label else None,
        )
        out.one(changed, attachment_facts)


@app.command
async def delete(name: str, /, *, allow_missing: bool = False, options: Globals = DEFAULTS) -> None:
    """Let the node go. Refused, naming them, while exports or sessions use the attachment.

    Examples:
      blockyard attachment delete vda

    Parameters
    ----------
    name
        The attachment.
    allow_missing
        No error if there is no such attachment.
    """
    from blockyard.v1.control_pb2 import DeleteAttachmentResponse

    async with connected(options) as (client, out):
        await client.attachments.delete(name, allow_missing=allow_missing)
        out.done(DeleteAttachmentResponse(), "" if options.quiet else f"deleted attachment {name}")


@app.command
async def open_tray(name: str, /, *, force: bool = False, options: Globals = DEFAULTS) -> None:
    """Open the tray. A guest that locked it is asked to, and the command fails; --force breaks the lock.

    Examples:
      blockyard attachment open-tray cdrom

    Parameters
    ----------
    name
        The attachment.
    force
        Even if the guest locked it.
    """
    await _moved(options, lambda drives: drives.open_tray(name, force=force))


@app.command
async def close_tray(name: str, /, *, options: Globals = DEFAULTS) -> None:
    """Close the tray.

    For example:
      blockyard attachment close-tray cdrom

    Parameters
    ----------
    name
        The attachment.
    """
    await _moved(options, lambda drives: drives.close_tray(name))


@app.command
async def insert(name: str, node: str, /, *, options: Globals = DEFAULTS) -> None:
    """Put a medium into the open tray.

    Examples:
      blockyard attachment insert cdrom installer

    Parameters
    ----------
    name
        The attachment.
    node
        The node that becomes the medium.
    """
    await _moved(options, lambda drives: drives.insert(name, node))


@app.command
async def remove(name: str, /, *, options: Globals = DEFAULTS) -> None:
    """Take the medium out of the open tray. The node stays open.

    For example:
      blockyard attachment remove cdrom

    Parameters
    ----------
    name
        The attachment.
    """
    await _moved(options, lambda drives: drives.remove(name))


@app.command
async def change(name: str, node: str, /, *, force: bool = False, options: Globals = DEFAULTS) -> None:
    """Give the guest another medium: open, remove, insert and close in one step.

    Examples:
      blockyard attachment change cdrom drivers

    Parameters
    ----------
    name
        The attachment.
    node
        The node that becomes the medium.
    force
        Even if the guest locked the tray.
    """
    await _moved(options, lambda drives: drives.change(name, node, force=force))


@app.command
async def lock(name: str, /, *, options: Globals = DEFAULTS) -> None:
    """Lock the tray, as a guest does.

    For example:
      blockyard attachment lock cdrom

    Parameters
    ----------
    name
        The attachment.
    """
    await _moved(options, lambda drives: drives.lock(name))


@app.command
async def unlock(name: str, /, *, options: Globals = DEFAULTS) -> None:
    """Unlock the tray.

    For example:
      blockyard attachment unlock cdrom

    Parameters
    ----------
    name
        The attachment.
    """
    await _moved(options, lambda drives: drives.unlock(name))


@app.command
async def reset(name: str, /, *, options: Globals = DEFAULTS) -> None:
    """Clear a latched error: the guest's requests that wait are tried again, in order.

    For example:
      blockyard attachment reset vda

    Parameters
    ----------
    name
        The attachment.
    """
    await _moved(options, lambda drives: drives.reset(name))


def _labels(given: tuple[str, ...]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not equals:
            raise InvalidArgument("--label", "NAME=VALUE", repr(each))
        labels[key] = value
    return labels


async def _moved(options: Globals, move: "Callable[[Attachments], Awaitable[Attachment]]") -> None:
    """Move a tray or what is in it, and show how it stands then."""
    from blockyard.cli.attachments import ATTACHMENTS

    async with connected(options) as (client, out):
        out.single(await move(client.attachments), ATTACHMENTS)
