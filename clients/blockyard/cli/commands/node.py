"""`blockyard node`: open, show, resize and close nodes; draw the graph."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from blockyard.cli.app import sub_app
from blockyard.cli.exits import Exit
from blockyard.cli.options import DEFAULTS, GLOBAL_GROUP, Globals, Seconds, Size
from blockyard.cli.running import CommandFailed, connected

if TYPE_CHECKING:
    from blockyard.v1.drivers_pb2 import NodeDefinition

app = sub_app("node")


@Parameter(name="*", group=GLOBAL_GROUP)
@dataclass(frozen=True, slots=True)
class GraphGlobals(Globals):
    """As everywhere, with one more form of output."""

    # A form more than the base has: no other command sees this class.
    output: Annotated[Literal["table", "dot", "json", "jsonl"], Parameter(name=["--output", "-o"])] = "table"  # type: ignore[assignment]
    """table draws a tree; dot is for Graphviz; json and jsonl are for programs."""


@app.command
async def open(
    filename: str = "",
    /,
    *,
    format: str = "",
    name: str = "",
    read_only: bool = False,
    auto_read_only: bool = False,
    force_share: bool = False,
    ephemeral: bool = False,
    backing: str = "",
    child: Annotated[tuple[str, ...], Parameter(name="--child", metavar="NODE")] = (),
    direct: bool = False,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", metavar="PATH=VALUE")] = (),
    definition: str = "",
    dry_run: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Open an image as a node, with everything below it. All or nothing.

    The format is always named, never guessed: `blockyard image info --probe FILE` tells what a file looks like.
    Backing files that the image names are opened with it.

    Examples:
      blockyard node open disk.qcow2 --format qcow2 --name disk
      blockyard node open base.raw --format raw --name base --read-only
      blockyard node open top.qcow2 --format qcow2 --name top --backing base
      blockyard node open disk.qcow2 --format qcow2 --set l2_cache_size=64M --set discard=ignore
      blockyard node open meta.qcow2 --format qcow2 --set follow_data_file=true --set overlap_check=all
      blockyard node open --format null --set size=1G --set latency_ns=100000
      blockyard node open --format throttle --set file=disk --set throttle_group=gold --name limited
      blockyard node open --format snapshot-access --set file=keep --name past --read-only
      blockyard node open --format quorum --child a --child b --child c --set vote_threshold=2 --name q
      blockyard node open --definition chain.json

    Parameters
    ----------
    filename
        The image file, beneath a storage root of the node service.
    format
        Its format: raw, qcow2, file ... (`blockyard driver list`).
    name
        Name of the node. Without it the service chooses one.
    read_only
        Refuse writes.
    auto_read_only
        Open it for reading, and for writing when a writer comes.
    force_share
        Share the file with writers in other processes; reads may be torn. Needs --read-only.
    ephemeral
        Put a temporary overlay above it: writes go there and are gone with the node.
    backing
        Name of the open node to use as backing, or none to ignore what the image names.
    child
        Name of an open node, for a driver that takes any number of children (quorum); once for each, in order.
    direct
        Bypass the host's page cache.
    set_
        Any other option by its name in the API, for the driver or for the node: --set cache.no_flush=true.
    definition
        A file with a whole NodeDefinition as JSON; - is standard input. Other options may change it.
    dry_run
        Check everything, open nothing.
    """
    from blockyard.cli.describe import node_facts

    wanted = _read(definition) if definition else _from_options(filename, format)
    if name:
        wanted.node_name = name
    wanted.read_only |= read_only
    wanted.auto_read_only |= auto_read_only
    wanted.force_share |= force_share
    wanted.ephemeral |= ephemeral
    wanted.cache.direct |= direct
    _finish(wanted, backing, child, set_)
    async with connected(options) as (client, out):
        out.one(await client.nodes.open(wanted, validate_only=dry_run), node_facts)


@app.command(name="list")
async def list_(
    *, all: Annotated[bool, Parameter(name=["--all", "-a"])] = False, options: Globals = DEFAULTS
) -> None:
    """List the open nodes.

    For example:
      blockyard node list
      blockyard node list --all --output jsonl

    Parameters
    ----------
    all
        Also nodes that were not opened by a client: files below images, backing files, filters of jobs.
    """
    from blockyard.cli.describe import NODES

    async with connected(options) as (client, out):
        out.many(await client.nodes.list(explicit_only=not all), NODES)


@app.command
async def show(node: str, /, *, options: Globals = DEFAULTS) -> None:
    """Show everything that is known about a node.

    For example:
      blockyard node show disk
      blockyard node show disk --output json

    Parameters
    ----------
    node
        The node.
    """
    from blockyard.cli.describe import node_facts

    async with connected(options) as (client, out):
        out.one(await client.nodes.get(node), node_facts)


@app.command
async def graph(root: str = "", /, *, options: GraphGlobals = GraphGlobals()) -> None:
    """Draw the graph: who uses which node, and what is below it.

    For example:
      blockyard node graph
      blockyard node graph disk --output dot | dot -Tsvg > graph.svg

    Parameters
    ----------
    root
        Only what is at or below this node.
    """
    from blockyard.cli import tree

    async with connected(options) as (client, out):
        found = await client.nodes.graph(root)
        if options.output == "dot":
            out.text(tree.dot(found))
        elif options.output == "table":
            encoding = (sys.stdout.encoding or "").lower()
            out.text(tree.drawn(found, tree.LINES if encoding.startswith("utf") else tree.ASCII))
        else:
            out.done(found, "")


@app.command
async def resize(
    node: str,
    size: Size,
    /,
    *,
    shrink: bool = False,
    preallocation: str = "",
    dry_run: bool = False,
    options: Globals = DEFAULTS,
) -> None:
    """Change the size of a node.

    Examples:
      blockyard node resize disk 20G
      blockyard node resize disk 5G --shrink

    Parameters
    ----------
    node
        The node.
    size
        The new size.
    shrink
        Allow to become smaller and lose what lies beyond.
    preallocation
        How a new area is allocated: off, metadata, falloc or full.
    dry_run
        Check only.
    """
    from blockyard.cli.describe import node_facts

    async with connected(options) as (client, out):
        resized = await client.nodes.resize(
            node, size, preallocation=preallocation, allow_shrink=shrink, validate_only=dry_run
        )
        out.one(resized, node_facts)


@app.command(name="write-threshold")
async def write_threshold(node: str, offset: Size, /, *, options: Globals = DEFAULTS) -> None:
    """Raise the event write-threshold once, when a write of a node goes past an offset.

    For thin storage: set it on the file below an image, a little before the end of what the file may grow to.

    Examples:
      blockyard node write-threshold file 9G
      blockyard node write-threshold file 0

    Parameters
    ----------
    node
        The node, often the file of an image.
    offset
        The offset; 0 switches it off.
    """
    from blockyard.cli.describe import node_facts

    async with connected(options) as (client, out):
        out.one(await client.nodes.set_write_threshold(node, offset), node_facts)


@app.command
async def inflight(node: str = "", /, *, options: Globals = DEFAULTS) -> None:
    """Show the requests in flight: who asked, what serves them below, who waits for whom and why.

    Only requests that wait for something show: one that is served at once is over before anybody can look.

    For example:
      blockyard node inflight
      blockyard node inflight disk --output jsonl

    Parameters
    ----------
    node
        Only those at this node.
    """
    from blockyard.cli import inflight as picture
    from blockyard.cli import tree
    from blockyard.cli.describe import IN_FLIGHT

    async with connected(options) as (client, out):
        found = await client.nodes.in_flight(node)
        if options.output == "table":
            encoding = (sys.stdout.encoding or "").lower()
            out.text(picture.drawn(found, tree.LINES if encoding.startswith("utf") else tree.ASCII))
        else:
            out.many(found, IN_FLIGHT)


@app.command
async def watch(*nodes: str, since: int = 0, options: Globals = DEFAULTS) -> None:
    """Tell of nodes and attachments as they change, and of their events, until interrupted.

    It begins with the present state. A connection that drops is taken up again where it was.

    Examples:
      blockyard node watch
      blockyard node watch disk --output jsonl

    Parameters
    ----------
    nodes
        Only these, and the attachments that use them.
    since
        Go on after this revision instead of beginning with the present state.
    """
    from blockyard.cli.watching import change_line

    async with connected(options) as (client, out):
        async for change in client.nodes.watch(nodes, start_revision=since):
            out.live(change, change_line(change))


@app.command
async def drain(node: str, /, *, lease: Seconds | None = None, options: Globals = DEFAULTS) -> None:
    """Hold all requests of a node, and print the id of that hold. They go on with `node undrain`, or by themselves
    when the lease ends.

    Examples:
      id=$(blockyard node drain disk --lease 30s --quiet); fsfreeze ...; blockyard node undrain "$id"

    Parameters
    ----------
    node
        The node.
    lease
        How long at most: 1ms to 60s, 10s if it is left out.
    """
    from blockyard.v1.node_pb2 import DrainNodeResponse

    async with connected(options) as (client, out):
        drain_id = await client.nodes.drain(node, lease=lease)
        out.done(DrainNodeResponse(drain_id=drain_id), drain_id)


@app.command
async def undrain(drain_id: str, /, *, options: Globals = DEFAULTS) -> None:
    """Let requests go on that `node drain` holds. Exit code 1 if the lease had ended before.

    For example:
      blockyard node undrain dcd8ee49fab44252a74148dd79dd70cf

    Parameters
    ----------
    drain_id
        What `node drain` printed.
    """
    from blockyard.v1.node_pb2 import UndrainNodeResponse

    async with connected(options) as (client, out):
        held = await client.nodes.undrain(drain_id)
        out.done(UndrainNodeResponse(expired=not held), "" if options.quiet else "requests go on" if held else "")
        if not held:
            raise CommandFailed(Exit.FAILED, "the lease had ended before; requests may have run meanwhile")


@app.command(name="set-executor")
async def set_executor(node: str, executor: str, /, *, options: Globals = DEFAULTS) -> None:
    """Move a node and everything below it to another executor.

    They are drained for that moment. `blockyard executor list` shows who is where.

    Examples:
      blockyard node set-executor disk slow

    Parameters
    ----------
    node
        The node.
    executor
        The executor; main is the default one.
    """
    from blockyard.cli.describe import node_facts

    async with connected(options) as (client, out):
        out.one(await client.nodes.set_executor(node, executor), node_facts)


@app.command
async def deactivate(node: str, /, *, options: Globals = DEFAULTS) -> None:
    """Hand a node's files over to another process, until `node activate`.

    Refused, naming who it is, while someone writes. Nodes below go with it, unless something else stands on them.

    For example:
      blockyard node deactivate disk

    Parameters
    ----------
    node
        The node.
    """
    from blockyard.cli.describe import node_facts

    async with connected(options) as (client, out):
        out.one(await client.nodes.deactivate(node), node_facts)


@app.command
async def activate(node: str, /, *, options: Globals = DEFAULTS) -> None:
    """Take a node back that was handed over. Fails while another process has the file.

    For example:
      blockyard node activate disk

    Parameters
    ----------
    node
        The node.
    """
    from blockyard.cli.describe import node_facts

    async with connected(options) as (client, out):
        out.one(await client.nodes.activate(node), node_facts)


@app.command
async def close(
    node: str, /, *, allow_missing: bool = False, dry_run: bool = False, options: Globals = DEFAULTS
) -> None:
    """Close a node and the children that were opened with it.

    Refused, naming who holds it, while a parent, an export or a job uses the node.

    Examples:
      blockyard node close disk

    Parameters
    ----------
    node
        The node.
    allow_missing
        No error if there is no such node.
    dry_run
        Check only.
    """
    from blockyard.v1.node_pb2 import CloseNodeResponse

    async with connected(options) as (client, out):
        closed = await client.nodes.close(node, allow_missing=allow_missing, validate_only=dry_run)
        words = f"closed {', '.join(closed)}" if closed else f"no node {node} was open"
        out.done(CloseNodeResponse(closed=closed), "" if options.quiet else words)


@app.command
async def add_child(node: str, child: str, /, *, dry_run: bool = False, options: Globals = DEFAULTS) -> None:
    """Give a node one more child, if its driver takes any number (quorum).

    Its content should be the same already: a mirror job makes it so, or rewrite_corrupted as it is read.

    Examples:
      blockyard node add-child q copy3
      blockyard node add-child q copy3 --dry-run

    Parameters
    ----------
    node
        The node.
    child
        Name of the open node that becomes its child.
    dry_run
        Check only.
    """
    from blockyard.cli.describe import node_facts

    async with connected(options) as (client, out):
        out.one(await client.nodes.add_child(node, child, validate_only=dry_run), node_facts)


@app.command
async def remove_child(node: str, child: str, /, *, dry_run: bool = False, options: Globals = DEFAULTS) -> None:
    """Take a child out of a node. It is closed if it was opened with its parent.

    Examples:
      blockyard node remove-child q children.1

    Parameters
    ----------
    node
        The node.
    child
        Name of the edge, as `blockyard node graph` draws it.
    dry_run
        Check only.
    """
    from blockyard.cli.describe import node_facts

    async with connected(options) as (client, out):
        out.one(await client.nodes.remove_child(node, child, validate_only=dry_run), node_facts)


def _from_options(filename: str, format: str) -> "NodeDefinition":
    from blockyard.client import definitions

    if not format:
        raise CommandFailed(
            Exit.USAGE,
            "node open needs --format (or --definition)",
            "Formats are not guessed; `blockyard image info --probe FILE` tells what a file looks like.",
        )
    if filename:
        return definitions.image(format, filename)
    wanted = definitions.without_file(format)
    if wanted is None:
        raise CommandFailed(Exit.USAGE, f"node open --format {format} needs a file", "`blockyard node open --help`")
    return wanted


def _read(source: str) -> "NodeDefinition":
    from blockyard.cli.messages import read
    from blockyard.v1.drivers_pb2 import NodeDefinition

    return read(
        source,
        NodeDefinition(),
        "Its fields stand in protos/blockyard/v1/drivers.proto; `node show NAME -o json` shows examples.",
    )


def _finish(wanted: "NodeDefinition", backing: str, children: tuple[str, ...], settings: tuple[str, ...]) -> None:
    from blockyard.cli import setting

    if children:
        setting.add_children(wanted, children)
    if backing:
        setting.apply(wanted, [f"backing={backing}"])
    setting.apply(wanted, settings)
    arm = wanted.WhichOneof("driver")
    below = getattr(wanted, arm).file if arm in ("raw", "qcow2") else None
    if below is not None and below.WhichOneof("reference") == "definition":
        # The file is opened the way its format is.
        for name in ("read_only", "auto_read_only", "force_share"):
            setattr(below.definition, name, getattr(below.definition, name) or getattr(wanted, name))
        below.definition.cache.MergeFrom(wanted.cache)
