"""`blockyard io`: the bytes of a node."""

import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

from cyclopts import Parameter

from blockyard.cli import units
from blockyard.cli.app import sub_app
from blockyard.cli.exits import Exit
from blockyard.cli.options import DEFAULTS, Globals, Size
from blockyard.cli.running import CommandFailed, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from blockyard.client.pieces import Piece

app = sub_app("io")

File = Annotated[str, Parameter(name=["--file", "-f"])]


@app.command
async def read(
    node: str,
    /,
    *,
    offset: Size = 0,
    length: Size = 0,
    file: File = "-",
    hex: bool = False,
    copy_on_read: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Read a range of a node to standard output or a file. Zeroes become holes in a file.

    Examples:
      blockyard io read disk --offset 1M --length 64K > part
      blockyard io read disk --file disk.raw
      blockyard io read disk --length 512 --hex

    Parameters
    ----------
    node
        The node.
    offset
        First byte.
    length
        How many bytes; to the end without it.
    file
        Where to write; - is standard output.
    hex
        Print a hex dump.
    copy_on_read
        Store in the node what its backing files give.
    """
    from blockyard.cli import progress
    from blockyard.client import pieces

    if file == "-" and not hex and sys.stdout.isatty():
        raise CommandFailed(
            Exit.USAGE, "bytes of a disk do not belong on a terminal", "Redirect, or use --hex or --file."
        )
    async with connected(options) as (client, out):
        total = length or max(0, (await client.nodes.get(node, full=False)).size_bytes - offset)
        source = client.data.pieces(node, offset, length, copy_on_read=copy_on_read)
        if hex:
            await _dump(source, out.text)
            return
        meter = progress.Meter(f"read {node}", total, progress.view(options))
        if file == "-":
            await pieces.to_stream(source, sys.stdout.buffer, meter.add)
        else:
            await pieces.to_file(source, Path(file), offset, meter.add)
        meter.end()


@app.command
async def prefetch(node: str, /, *, offset: Size = 0, length: Size = 0, options: Globals = DEFAULTS) -> None:
    """Store in a node what its backing files give of a range. No data is sent.

    Examples:
      blockyard io prefetch disk --length 1G

    Parameters
    ----------
    node
        The node; it must be writable.
    offset
        First byte.
    length
        How many bytes; to the end without it.
    """
    from blockyard.v1.data_pb2 import ReadResponse

    async with connected(options) as (client, out):
        copied = await client.data.prefetch(node, offset, length, timeout=options.timeout)
        words = f"stored {units.size(copied)}" if copied else "nothing to store"
        out.done(ReadResponse(offset_bytes=offset, zero_length_bytes=copied), "" if options.quiet else words)


@app.command
async def write(
    node: str,
    /,
    *,
    offset: Size = 0,
    file: File = "-",
    pattern: str = "",
    length: Size = 0,
    fua: bool = False,
    compressed: bool = False,
    dense: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Write standard input, a file, or a pattern to a node. Holes and runs of zeroes travel as lengths.

    Examples:
      blockyard io write disk --file disk.raw
      gzip -dc disk.raw.gz | blockyard io write disk --offset 1M
      blockyard io write disk --pattern 0xAB --length 1M

    Parameters
    ----------
    node
        The node.
    offset
        Where to begin.
    file
        What to write; - is standard input.
    pattern
        Write this byte instead: 0 to 255, or 0x00 to 0xff. Needs --length.
    length
        How many bytes of the pattern, or at most how many of standard input.
    fua
        Durable before the command ends.
    compressed
        Store compressed, if the format can.
    dense
        Write zeroes as data, so that they are allocated.
    """
    from blockyard.cli import progress
    from blockyard.client import pieces
    from blockyard.v1.data_pb2 import WriteResponse

    source: AsyncIterator[Piece]
    total = length
    if pattern:
        if not length:
            raise CommandFailed(Exit.USAGE, "--pattern needs --length", "How many bytes of it?")
        source = pieces.from_stream(cast("BinaryIO", _Repeated(_byte(pattern))), offset, not dense, length)
    elif file == "-":
        source = pieces.from_stream(sys.stdin.buffer, offset, not dense, length or None)
    else:
        source, total = pieces.from_file(Path(file), offset, not dense), os.stat(file).st_size  # noqa: PTH116
    async with connected(options) as (client, out):
        meter = progress.Meter(f"write {node}", total, progress.view(options))
        counted = _observed(source, meter.add)
        written = await client.data.write_pieces(node, counted, fua=fua, compressed=compressed)
        meter.end()
        out.done(WriteResponse(written_bytes=written), f"wrote {units.size(written)}" if not options.quiet else "")


@app.command
async def zero(
    node: str,
    /,
    *,
    offset: Size,
    length: Size,
    unmap: bool = False,
    no_fallback: bool = False,
    fua: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Make a range read as zeroes, without sending any.

    Examples:
      blockyard io zero disk --offset 1G --length 512M --unmap

    Parameters
    ----------
    node
        The node.
    offset
        First byte.
    length
        How many bytes.
    unmap
        The space may be given back.
    no_fallback
        Fail rather than write zeroes byte by byte.
    fua
        Durable before the command ends.
    """
    from blockyard.v1.data_pb2 import WriteZeroesResponse

    async with connected(options) as (client, out):
        await client.data.write_zeroes(
            node, offset, length, may_unmap=unmap, no_fallback=no_fallback, fua=fua, timeout=options.timeout
        )
        out.done(WriteZeroesResponse(), "" if options.quiet else f"zeroed {units.size(length)}")


@app.command
async def discard(node: str, /, *, offset: Size, length: Size, options: Globals = DEFAULTS) -> None:
    """Tell that a range is not needed any more. What it reads as afterwards is not promised.

    Examples:
      blockyard io discard disk --offset 1G --length 512M

    Parameters
    ----------
    node
        The node.
    offset
        First byte.
    length
        How many bytes.
    """
    from blockyard.v1.data_pb2 import DiscardResponse

    async with connected(options) as (client, out):
        await client.data.discard(node, offset, length)
        out.done(DiscardResponse(), "" if options.quiet else f"discarded {units.size(length)}")


@app.command
async def flush(node: str, /, *, level: str = "disk", options: Globals = DEFAULTS) -> None:
    """Make everything that was written durable.

    Examples:
      blockyard io flush disk

    Parameters
    ----------
    node
        The node.
    level
        disk (default): to stable storage. os: cached metadata to the operating system only.
    """
    from blockyard.v1.data_pb2 import FlushResponse

    async with connected(options) as (client, out):
        worked = await client.data.flush(node, level=level)
        words = "flushed" if worked else "nothing to flush: everything is durable"
        out.done(FlushResponse(skipped=not worked), "" if options.quiet else words)


@app.command(name="map")
async def map_(
    node: str, /, *, offset: Size = 0, length: Size = 0, base: str = "", options: Globals = DEFAULTS
) -> None:
    """List where a node has data, zeroes and holes, layer by layer.

    Examples:
      blockyard io map disk
      blockyard io map top --base base --output jsonl

    Parameters
    ----------
    node
        The node.
    offset
        First byte.
    length
        How many bytes; to the end without it.
    base
        Only what layers above this node hold.
    """
    from blockyard.cli.describe import EXTENTS

    async with connected(options) as (client, out):
        with out.stream(EXTENTS) as add:
            async for extent in client.data.block_status(node, offset, length, base_node_name=base):
                add(extent)


@app.command
async def ioctl(node: str, request: str, /, *, argument: str = "", options: Globals = DEFAULTS) -> None:
    """Send an ioctl to the device or file that a node stands on; prints the argument afterwards.

    The service must allow it (--allow-ioctl), and knows which requests hold no addresses.

    Examples:
      blockyard io ioctl disk 0x80081272 --argument 0000000000000000

    Parameters
    ----------
    node
        The node.
    request
        The request's number.
    argument
        The argument's bytes in hexadecimal, as many as come back.
    """
    try:
        number, content = int(request, 0), bytes.fromhex(argument)
    except ValueError as error:
        raise CommandFailed(Exit.USAGE, f"no number, or no hexadecimal bytes: {error}", "See --help.") from error
    async with connected(options) as (client, out):
        answer = await client.nodes.ioctl(node, number, content)
        out.done(answer, f"{answer.result} {answer.argument.hex()}".rstrip())


class _Repeated:
    """A stream of one byte, for ever."""

    def __init__(self, byte: int) -> None:
        self._byte = bytes([byte])

    def read(self, length: int) -> bytes:
        return self._byte * length


def _byte(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value <= 255:
        raise CommandFailed(Exit.USAGE, f"--pattern {text!r} is no byte", "Write 0 to 255, or 0x00 to 0xff.")
    return value


async def _observed(source: "AsyncIterator[Piece]", observe: "Callable[[Piece], None]") -> "AsyncIterator[Piece]":
    try:
        async for piece in source:
            yield piece
            observe(piece)
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()


async def _dump(source: "AsyncIterator[Piece]", line: "Callable[[str], None]") -> None:
    skipping = False
    async for piece in source:
        if piece.data is None:
            if not skipping:
                line(f"{piece.offset:012x}  zeroes")
            skipping = True
            continue
        skipping = False
        for start in range(0, len(piece.data), 16):
            row = piece.data[start : start + 16]
            text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
            line(f"{piece.offset + start:012x}  {row.hex(' '):<47}  {text}")
