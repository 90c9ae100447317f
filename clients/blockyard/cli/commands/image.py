"""`blockyard image`: image files that need not be open."""

import uuid
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from blockyard.cli.app import sub_app
from blockyard.cli.commands import image_operations
from blockyard.cli.exits import Exit
from blockyard.cli.options import DEFAULTS, Globals, Size
from blockyard.cli.running import CommandFailed, connected, remark

if TYPE_CHECKING:
    from blockyard.client.client import Client

app = sub_app("image")


@app.command
async def create(
    filename: str,
    /,
    *,
    format: str = "raw",
    size: Size = 0,
    backing_file: str = "",
    backing_format: str = "",
    cluster_size: Size = 0,
    refcount_bits: int = 0,
    lazy_refcounts: bool = False,
    preallocation: str = "",
    compression_type: str = "",
    version: Annotated[str, Parameter(name="--compat")] = "",
    extended_l2: bool = False,
    data_file: str = "",
    data_file_raw: bool = False,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", metavar="OPTION=VALUE")] = (),
    overwrite: bool = False,
    dry_run: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Create an image file. Nothing is opened.

    Examples:
      blockyard image create disk.raw --size 10G
      blockyard image create disk.qcow2 --format qcow2 --size 10G
      blockyard image create top.qcow2 --format qcow2 --backing-file base.qcow2 --backing-format qcow2
      blockyard image create disk.qcow2 --format qcow2 --size 1T --cluster-size 2M --preallocation metadata
      blockyard image create meta.qcow2 --format qcow2 --size 10G --data-file disk.raw --data-file-raw

    Parameters
    ----------
    filename
        Where, beneath a storage root of the node service. Its directory must exist.
    format
        raw (default), qcow2, or any driver that can create (`blockyard driver list`).
    size
        The size that a guest sees. With a backing file it may be left out: as large as that.
    backing_file
        The backing file as it shall stand in the header: relative to the image's directory, or absolute.
    backing_format
        Its format; needed with --backing-file, because formats are never guessed.
    cluster_size
        Unit of allocation, a power of two: 512 to 2M for qcow2. Default 64K.
    refcount_bits
        Width of reference counts, 1 to 64. Default 16.
    lazy_refcounts
        Postpone reference counts: faster, with a repair after a crash.
    preallocation
        What is allocated ahead: off (default), metadata, falloc or full.
    compression_type
        How compressed clusters are stored: zlib (default) or zstd.
    version
        Version of the format: v2 or v3 (default) for qcow2.
    extended_l2
        Allocate and zero by subclusters, 32 to a cluster of at least 16K.
    data_file
        Keep guest data in this file, beside the image. It is made, empty.
    data_file_raw
        The data file alone reads as the disk.
    set_
        An option of a driver that has no flags here.
    overwrite
        Replace an existing file.
    dry_run
        Check everything, create nothing.
    """
    from blockyard.cli.describe import image_facts

    flags: dict[str, Any] = {
        "backing_file": backing_file,
        "backing_format": backing_format,
        "cluster_size_bytes": cluster_size,
        "refcount_bits": refcount_bits,
        "lazy_refcounts": lazy_refcounts,
        "preallocation": preallocation,
        "compression_type": compression_type,
        "version": version,
        "extended_l2": extended_l2,
        "data_file": data_file,
        "data_file_raw": data_file_raw,
    }
    given = _given(flags, set_)
    async with connected(options) as (client, out):
        image = await client.images.create(
            filename, size, format=format, overwrite=overwrite, validate_only=dry_run, **given
        )
        out.one(image, image_facts)


def _given(flags: dict[str, Any], settings: tuple[str, ...]) -> dict[str, Any]:
    """The options of a new image that were said, by flags of their own or by --set."""
    from blockyard.cli.setting import guessed

    given = {name: value for name, value in flags.items() if value}
    for setting in settings:
        name, _, text = setting.partition("=")
        given[name] = guessed(text)
    return given


@app.command
async def info(
    filename: str,
    /,
    *,
    format: str = "",
    probe: bool = False,
    chain: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Look at an image file: what its header says. Nothing is opened for use.

    Examples:
      blockyard image info disk.qcow2 --format qcow2 --chain
      blockyard image info unknown.img --probe

    Parameters
    ----------
    filename
        The image file.
    format
        Its format. Without it the format is guessed, which is safe here because nothing is written.
    probe
        Tell what the file looks like, with the certainty of each guess, and nothing else.
    chain
        Follow the backing files.
    """
    from blockyard.cli.describe import GUESSES, image_facts

    async with connected(options) as (client, out):
        if probe:
            found = await client.images.probe_all(filename)
            guesses = found.guesses
            certain = [guess.driver for guess in guesses if guess.score == 100]
            if len(certain) > 1:
                remark(options, f"{filename} looks like {' and '.join(certain)} at once: do not trust it")
            if found.kind not in ("", "file"):
                remark(options, f"{filename} is a {found.kind}")
            out.many(guesses, GUESSES)
            return
        images = await client.images.info(filename, format=format, backing_chain=chain)
        if not chain:
            out.one(images[0], image_facts)
        else:
            out.blocks(images, image_facts)


@app.command
async def parse(filename: str, /, *, options: Globals = DEFAULTS) -> None:
    """Tell what a file name or json: specification stands for. Nothing is looked at.

    For example:
      blockyard image parse 'json:{"driver":"qcow2","file.filename":"disk.qcow2"}'

    Parameters
    ----------
    filename
        The name.
    """
    from google.protobuf import json_format

    async with connected(options) as (client, out):
        found = await client.images.parse(filename)
        out.done(found, json_format.MessageToJson(found, preserving_proto_field_name=True))


@app.command(name="map")
async def map_(
    filename: str,
    /,
    *,
    format: str,
    offset: Size = 0,
    length: Size = 0,
    top_only: bool = False,
    force_share: bool = False,
    follow_data_file: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """List where an image has data, zeroes and holes, layer by layer.

    The image is opened read-only for the time of the command. A node that is open already: `blockyard io map`.

    Examples:
      blockyard image map disk.qcow2 --format qcow2
      blockyard image map disk.qcow2 --format qcow2 --output jsonl | jq 'select(.data)'

    Parameters
    ----------
    filename
        The image file.
    format
        Its format.
    offset
        First byte.
    length
        How many bytes; to the end without it.
    top_only
        Only what this image holds itself: its backing files are not opened.
    force_share
        Also if another process writes to it; the map may be torn.
    follow_data_file
        Open the external data file that the image names; else such an image is refused.
    """
    from blockyard.cli.describe import EXTENTS
    from blockyard.client.definitions import NO_NODE, image, reference

    node_name = f"map-{uuid.uuid4().hex[:8]}"
    definition = image(format, filename, node_name=node_name, read_only=True, force_share=force_share)
    if definition.WhichOneof("driver") == "qcow2":
        definition.qcow2.follow_data_file = follow_data_file
        if top_only:
            definition.qcow2.backing.CopyFrom(reference(NO_NODE))
    async with connected(options) as (client, out):
        await client.nodes.open(definition)
        try:
            with out.stream(EXTENTS) as add:
                async for extent in client.data.block_status(node_name, offset, length):
                    add(extent)
        finally:
            await _close(client, node_name)


@app.command
async def check(filename: str, /, *, format: str = "", repair: str = "", options: Globals = DEFAULTS) -> None:
    """Compare an image's metadata with itself, and repair it if asked.

    A file must not be open. The guests of an open node wait while it is checked.

    Exits with 1 if errors or leaks are left.

    Examples:
      blockyard image check disk.qcow2 --format qcow2
      blockyard image check disk.qcow2 --format qcow2 --repair leaks
      blockyard image check disk

    Parameters
    ----------
    filename
        The image file; without --format an open node.
    format
        The format of the file.
    repair
        leaks: give lost clusters back. all: errors too; work on a copy.
    """
    from blockyard.cli.describe import check_facts

    async with connected(options) as (client, out):
        if format:
            result = await client.images.check(filename, format, repair=repair)
        else:
            with image_operations.shown(options, f"check {filename}") as progress:
                result = await client.operations.check(filename, repair=repair, progress=progress)
        out.one(result, check_facts)
    if result.corruptions or result.check_errors:
        raise CommandFailed(
            Exit.FAILED,
            f"{filename} is damaged: {result.corruptions} errors, {result.check_errors} places not checked",
            "Copy the file, then repair the copy with --repair all.",
        )
    if result.leaks:
        raise CommandFailed(
            Exit.FAILED,
            f"{filename} has {result.leaks} lost clusters",
            "--repair leaks gives them back; no data is at risk.",
        )


for operation in image_operations.COMMANDS:
    app.command(operation)


async def _close(client: "Client", node_name: str) -> None:
    import asyncio

    # Also after Ctrl-C: a temporary node must not stay behind.
    await asyncio.shield(client.nodes.close(node_name, allow_missing=True))
