"""`blockyard image`, second part: long operations on images, open or opened for the command.

Each takes the name of an open node, or with --format the name of an image file.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

from cyclopts import Parameter

from blockyard.cli.exits import Exit
from blockyard.cli.options import DEFAULTS, Globals, Size
from blockyard.cli.running import CommandFailed, connected

if TYPE_CHECKING:
    from blockyard.client.client import Client
    from blockyard.v1.node_pb2 import OperationProgress


async def amend(
    target: str,
    /,
    *,
    format: str = "",
    set_: Annotated[tuple[str, ...], Parameter(name="--set", metavar="OPTION=VALUE")] = (),
    force: bool = False,
    dry_run: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Change options that an image's file fixes. No data moves.

    Examples:
      blockyard image amend disk --set compat=1.1 --set lazy_refcounts=true
      blockyard image amend disk.qcow2 --format qcow2 --set refcount_bits=64

    Parameters
    ----------
    target
        An open node; an image file with --format.
    format
        The format of an image file that is not open.
    set_
        Of qcow2: compat (v2, v3), lazy_refcounts, refcount_bits (1 to 64), backing_file, backing_fmt, size.
    force
        Allow what may lose data.
    dry_run
        Check everything, change nothing.
    """
    from blockyard.cli.setting import guessed

    given = dict(setting.partition("=")[::2] for setting in set_)
    values: dict[str, Any] = {name: text if name in _TEXTS else guessed(text) for name, text in given.items()}
    async with connected(options) as (client, out), _node(client, target, format) as name:
        with shown(options, f"amend {target}") as progress:
            state = await client.operations.amend(
                name, force=force, validate_only=dry_run, progress=progress, **values
            )
        out.done(state, "it can be amended" if dry_run else f"amended {target}")


async def rebase(
    target: str,
    backing: str = "",
    /,
    *,
    format: str = "",
    backing_format: str = "",
    backing_file: str = "",
    unsafe: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Give an image another backing file; what the new one does not show is copied first.

    Examples:
      blockyard image rebase top new-base
      blockyard image rebase top.qcow2 new.raw --format qcow2 --backing-format raw
      blockyard image rebase top.qcow2 --format qcow2

    Parameters
    ----------
    target
        An open node; an image file with --format.
    backing
        The new backing node, or file with --format; none without it: then all that is below is copied.
    format
        The format of an image file that is not open.
    backing_format
        The format of a backing file that is not open; for a node, what to write into the header.
    backing_file
        The name to write into the header. Without it: the backing file's, as seen from the image.
    unsafe
        Copy nothing: for a file that was only moved.
    """
    from blockyard.cli import units

    async with connected(options) as (client, out), _node(client, target, format, alone=unsafe) as name:
        closing = _node(client, backing, backing_format, read_only=True) if backing and format else _named(backing)
        async with closing as below:
            with shown(options, f"rebase {target}") as progress:
                result = await client.operations.rebase(
                    name,
                    below,
                    backing_file=backing_file,
                    backing_format=backing_format if backing else "",
                    unsafe=unsafe,
                    progress=progress,
                )
            out.done(result, f"rebased {target}; {units.size(result.copied_bytes)} copied")
            if backing and format:
                # Closed first: the image holds the backing node that was opened for the command.
                await client.nodes.close(name, allow_missing=True)


async def compare(
    first: str,
    second: str,
    /,
    *,
    format: str = "",
    second_format: str = "",
    strict: bool = False,
    offset: Size = 0,
    length: Size = 0,
    options: Globals = DEFAULTS,
) -> None:
    """Tell whether two images show the same content, and where they begin to differ.

    Exits with 1 if they do. What neither holds is not read.

    Examples:
      blockyard image compare disk copy
      blockyard image compare disk.raw disk.qcow2 --format raw --second-format qcow2 --strict

    Parameters
    ----------
    first
        An open node; an image file with --format.
    second
        The other one.
    format
        The format of the first, if it is not open.
    second_format
        The format of the second, if it is not open and another.
    strict
        Sizes must be equal, and data, zeroes and holes in the same places.
    offset
        First byte.
    length
        How many bytes; to the end of the longer one without it.
    """
    from blockyard.cli.describe import comparison_facts

    async with (
        connected(options) as (client, out),
        _node(client, first, format, read_only=True) as one,
        _node(client, second, second_format or format, read_only=True) as other,
    ):
        with shown(options, f"compare {first} {second}") as progress:
            result = await client.operations.compare(
                one, other, strict=strict, offset=offset, length=length, progress=progress
            )
        out.one(result, comparison_facts)
    if not result.identical:
        raise CommandFailed(Exit.FAILED)


async def checksum(
    target: str,
    /,
    *,
    format: str = "",
    snapshot: str = "",
    chunk: Size = 0,
    keep: str = "",
    overwrite: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Sum up the content of a disk: equal content of any format has an equal checksum.

    Nobody may write meanwhile: of a disk in use, take a snapshot and sum up that.

    Examples:
      blockyard image checksum disk.qcow2 --format qcow2 --keep disk.sums
      blockyard image checksum disk --snapshot before-upgrade

    Parameters
    ----------
    target
        An open node; an image file with --format.
    format
        The format of an image file that is not open.
    snapshot
        A snapshot inside the image, by id or name.
    chunk
        Unit of the checksum, a power of two from 4K to 16M. Default 64K.
    keep
        A new file for the hashes of all chunks, beneath a storage root of the node service; `scrub` reads it.
    overwrite
        Replace an existing file.
    """
    from blockyard.cli.describe import checksum_facts

    async with connected(options) as (client, out), _node(client, target, format, read_only=True) as name:
        with shown(options, f"checksum {target}") as progress:
            result = await client.operations.checksum(
                name,
                snapshot=snapshot,
                chunk_bytes=chunk,
                filename=keep,
                overwrite=overwrite,
                progress=progress,
            )
        out.one(result, checksum_facts)


async def scrub(
    target: str,
    sums: str,
    /,
    *,
    format: str = "",
    snapshot: str = "",
    options: Globals = DEFAULTS,
) -> None:
    """Find what of a disk is no longer what it was when it was summed up.

    Exits with 1 if something is damaged.

    Examples:
      blockyard image scrub disk.qcow2 disk.sums --format qcow2

    Parameters
    ----------
    target
        An open node; an image file with --format.
    sums
        The file that `checksum --keep` wrote.
    format
        The format of an image file that is not open.
    snapshot
        The snapshot that was summed up, by id or name.
    """
    from blockyard.cli.describe import scrub_facts

    async with connected(options) as (client, out), _node(client, target, format, read_only=True) as name:
        with shown(options, f"scrub {target}") as progress:
            result = await client.operations.scrub(name, sums, snapshot=snapshot, progress=progress)
        out.one(result, scrub_facts)
    if not result.intact:
        raise CommandFailed(Exit.FAILED, f"{target}: {result.damaged_bytes} bytes are not what they were")


async def compact(
    target: str,
    /,
    *,
    format: str = "",
    detect_zeroes: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Make an image's file as short as what is in it; guests may go on.

    Examples:
      blockyard image compact disk
      blockyard image compact disk.qcow2 --format qcow2 --detect-zeroes

    Parameters
    ----------
    target
        An open node; an image file with --format.
    format
        The format of an image file that is not open.
    detect_zeroes
        Read all data, and give back what holds nothing but zeroes.
    """
    from blockyard.cli.describe import compaction_facts

    async with connected(options) as (client, out), _node(client, target, format, alone=True) as name:
        with shown(options, f"compact {target}") as progress:
            result = await client.operations.compact(name, detect_zeroes=detect_zeroes, progress=progress)
        out.one(result, compaction_facts)


async def measure(
    *,
    size: Size = 0,
    node: str = "",
    format: str = "qcow2",
    cluster_size: Size = 0,
    refcount_bits: int = 0,
    options: Globals = DEFAULTS,
) -> None:
    """Tell how large an image would become: for a size, or for the content of a node.

    Examples:
      blockyard image measure --size 1T
      blockyard image measure --node disk --cluster-size 2M

    Parameters
    ----------
    size
        An empty disk of this size.
    node
        The content of an open node.
    format
        The format of the new image. Default qcow2.
    cluster_size
        Its unit of allocation.
    refcount_bits
        Its width of reference counts.
    """
    from blockyard.cli.describe import measure_facts

    flags = {"cluster_size_bytes": cluster_size, "refcount_bits": refcount_bits}
    given: dict[str, Any] = {name: value for name, value in flags.items() if value}
    async with connected(options) as (client, out):
        out.one(await client.images.measure(format, size_bytes=size, node_name=node, **given), measure_facts)


_TEXTS = ("compat", "version", "backing_file", "backing_fmt")
"""Options that are words, whatever they look like: 1.1 is no number."""

_BY_BYTES = (
    "comparing",
    "copying",
    "hashing",
    "reading the hashes",
    "comparing hashes",
    "looking for zeroes",
    "moving",
)
"""Phases whose progress is told in bytes."""


COMMANDS = (amend, rebase, compare, checksum, scrub, compact, measure)


@asynccontextmanager
async def _named(name: str) -> AsyncIterator[str]:
    yield name


@asynccontextmanager
async def _node(
    client: "Client", target: str, format: str, *, read_only: bool = False, alone: bool = False
) -> AsyncIterator[str]:
    """The name of a node: the target, or one that is open as long as the command; `alone`: without its chain."""
    import asyncio

    from blockyard.client.definitions import NO_NODE, image, reference

    if not format:
        yield target
        return
    node_name = f"command-{uuid4().hex[:8]}"
    definition = image(format, target, node_name=node_name, read_only=read_only)
    if alone and definition.WhichOneof("driver") == "qcow2":
        definition.qcow2.backing.CopyFrom(reference(NO_NODE))
    await client.nodes.open(definition)
    try:
        yield node_name
    finally:
        # Also after Ctrl-C: a temporary node must not stay behind.
        await asyncio.shield(client.nodes.close(node_name, allow_missing=True))


class shown:  # noqa: N801
    """Shows the progress of an operation while the body runs."""

    def __init__(self, options: Globals, title: str) -> None:
        self._options = options
        self._title = title

    def __enter__(self) -> "Callable[[OperationProgress], None]":
        from blockyard.cli.progress import view

        self._view = view(self._options)
        return self._show

    def _show(self, progress: "OperationProgress") -> None:
        from blockyard.cli.progress import Counted, Step

        shown = Step if progress.phase in _BY_BYTES else Counted
        self._view.show(shown(self._title, progress.phase, progress.done, progress.total))

    def __exit__(self, *error: Any) -> None:
        self._view.close()
