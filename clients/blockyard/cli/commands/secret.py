"""`blockyard secret`: passphrases and keys that encrypted images are opened with."""

import sys
from pathlib import Path

from blockyard.cli.app import sub_app
from blockyard.cli.options import DEFAULTS, Globals
from blockyard.cli.running import connected

app = sub_app("secret")


@app.command
async def create(
    name: str,
    /,
    *,
    from_file: Path | None = None,
    file: str = "",
    base64: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Store a secret. Its value is read from standard input, never from the command line, which others can see.

    A value that is sent is kept in the service's memory and gone with it; a file of the service's own secret
    directory is read again whenever it is needed.

    Examples:
      printf %s "$PASSPHRASE" | blockyard secret create disk-key
      blockyard secret create disk-key --from-file key.bin
      blockyard secret create disk-key --file disk.key

    Parameters
    ----------
    name
        Name of the secret.
    from_file
        Send the bytes of this file here instead of standard input. A newline at its end is part of it.
    file
        Name of a file beneath the secret directory of the service.
    base64
        The value is written in base64.
    """
    value = b"" if file else _value(from_file)
    async with connected(options) as (client, out):
        made = await client.secrets.create(name, value=value, file=file, base64=base64)
        out.done(made, "" if options.quiet else f"stored secret {name}")


@app.command(name="list")
async def list_(*, options: Globals = DEFAULTS) -> None:
    """List the secrets, without their values.

    For example:
      blockyard secret list
    """
    from blockyard.cli.output import Column

    columns = (
        Column("SECRET", lambda secret: secret.name),
        Column("FILE", lambda secret: secret.file),
        Column("FORMAT", lambda secret: "base64" if secret.format == 2 else "raw"),
    )
    async with connected(options) as (client, out):
        out.many(await client.secrets.list(), columns)


@app.command
async def delete(name: str, /, *, allow_missing: bool = False, options: Globals = DEFAULTS) -> None:
    """Forget a secret. Nodes that are open keep their keys and go on.

    Examples:
      blockyard secret delete disk-key

    Parameters
    ----------
    name
        The secret.
    allow_missing
        No error if there is no such secret.
    """
    from blockyard.v1.control_pb2 import DeleteSecretResponse

    async with connected(options) as (client, out):
        await client.secrets.remove(name, allow_missing=allow_missing)
        out.done(DeleteSecretResponse(), "" if options.quiet else f"deleted secret {name}")


def _value(path: Path | None) -> bytes:
    if path is not None:
        return path.read_bytes()
    if sys.stdin.isatty():
        from getpass import getpass

        return getpass("Secret: ").encode()
    return sys.stdin.buffer.read()
