"""`blockyard key`: key slots of encrypted images that are open."""

from blockyard.cli.app import sub_app
from blockyard.cli.options import DEFAULTS, Globals
from blockyard.cli.running import connected

app = sub_app("key")


@app.command
async def add(
    node: str,
    secret: str,
    /,
    *,
    slot: int | None = None,
    iter_time: int | None = None,
    old_secret: str = "",
    force: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Make a key slot open with a secret, while guests go on.

    Examples:
      printf %s "$PASSPHRASE" | blockyard secret create new-key
      blockyard key add disk new-key

    Parameters
    ----------
    node
        The node of the encrypted image.
    secret
        Name of the secret.
    slot
        Number of the slot; by default the first that is free.
    iter_time
        Milliseconds that opening it is to take; default 2000.
    old_secret
        A secret that opens the image; by default what it is open with.
    force
        Overwrite a slot that is active.
    """
    async with connected(options) as (client, out):
        state = await client.keys.add(
            node, secret, slot=slot, iter_time=iter_time, old_secret=old_secret, force=force
        )
        out.done(state, "" if options.quiet else f"{node} opens with {secret}")


@app.command
async def erase(
    node: str,
    secret: str = "",
    /,
    *,
    slot: int | None = None,
    force: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Erase all key slots that open with a secret, or one by its number, while guests go on.

    Examples:
      blockyard key erase disk old-key
      blockyard key erase disk --slot 3

    Parameters
    ----------
    node
        The node of the encrypted image.
    secret
        Name of the secret.
    slot
        Number of the slot.
    force
        Even the last one: nobody can open the image any more.
    """
    async with connected(options) as (client, out):
        state = await client.keys.erase(node, secret=secret, slot=slot, force=force)
        out.done(state, "" if options.quiet else f"erased {secret or f'slot {slot}'} of {node}")


@app.command
async def rotate(
    node: str, old: str, new: str, /, *, iter_time: int | None = None, options: Globals = DEFAULTS
) -> None:
    """Replace a secret by another, while guests go on. Interrupted, both open the image.

    Examples:
      blockyard key rotate disk old-key new-key

    Parameters
    ----------
    node
        The node of the encrypted image.
    old
        Name of the secret that opens it now.
    new
        Name of the secret that is to open it.
    iter_time
        Milliseconds that opening it is to take; default 2000.
    """
    async with connected(options) as (client, out):
        state = await client.keys.rotate(node, old, new, iter_time=iter_time)
        out.done(state, "" if options.quiet else f"{node} opens with {new}, and no more with {old}")
