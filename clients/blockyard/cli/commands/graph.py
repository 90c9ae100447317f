"""`blockyard graph`: change what lies above what, while guests go on."""

from typing import TYPE_CHECKING, TypeVar

from blockyard.cli.app import sub_app
from blockyard.cli.exits import Exit
from blockyard.cli.options import DEFAULTS, Globals
from blockyard.cli.running import CommandFailed, connected

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from blockyard.v1.node_pb2 import GetGraphResponse, RunTransactionResponse

    Read = TypeVar("Read", bound=Message)

app = sub_app("graph")


@app.command
async def overlay(node: str, overlay: str, /, *, options: Globals = DEFAULTS) -> None:
    """Put an open overlay above a node, under its users: an external snapshot.

    Examples:
      blockyard node open top.qcow2 --format qcow2 --name top --backing none
      blockyard graph overlay disk top

    Parameters
    ----------
    node
        The node whose users move to the overlay.
    overlay
        The overlay: open, without users and without a backing node.
    """
    from blockyard.cli.describe import node_facts

    async with connected(options) as (client, out):
        out.one(await client.nodes.insert_overlay(node, overlay), node_facts)


@app.command(name="insert-filter")
async def insert_filter(node: str, definition: str, /, *, options: Globals = DEFAULTS) -> None:
    """Put a filter between a node and its users.

    Examples:
      echo '{"nodeName": "slow", "throttle": {"file": {"nodeName": "disk"}, "throttleGroup": "g"}}' |
          blockyard graph insert-filter disk -

    A point in time of a disk for a backup program, while guests write on:
      echo '{"nodeName": "keep", "copyBeforeWrite": {"file": {"nodeName": "disk"}, "target": {"nodeName": "t"}}}' |
          blockyard graph insert-filter disk -
      blockyard node open --format snapshot-access --set file=keep --name past --read-only
      blockyard export add past
      nbdcopy nbd://localhost/past backup.raw

    Parameters
    ----------
    node
        The node whose users move to the filter.
    definition
        A file with a NodeDefinition as JSON, or - for standard input; its child must be the node.
    """
    from blockyard.cli.describe import node_facts
    from blockyard.v1.drivers_pb2 import NodeDefinition

    wanted = _read(definition, NodeDefinition())
    async with connected(options) as (client, out):
        out.one(await client.nodes.insert_filter(node, wanted), node_facts)


@app.command(name="remove-filter")
async def remove_filter(node: str, /, *, options: Globals = DEFAULTS) -> None:
    """Take a filter out from under its users, and close it.

    For example:
      blockyard graph remove-filter slow

    Parameters
    ----------
    node
        The filter.
    """
    from blockyard.cli.describe import node_facts

    async with connected(options) as (client, out):
        out.one(await client.nodes.remove_filter(node), node_facts)


@app.command
async def replace(node: str, replacement: str, /, *, options: Globals = DEFAULTS) -> None:
    """Give all users of one node another one.

    Examples:
      blockyard graph replace disk copy

    Parameters
    ----------
    node
        The node whose users move.
    replacement
        Where they move to; at least as large.
    """
    from blockyard.cli.describe import node_facts

    async with connected(options) as (client, out):
        out.one(await client.nodes.replace(node, replacement), node_facts)


@app.command(name="change-backing-file")
async def change_backing_file(
    node: str, backing_file: str = "", /, *, format: str = "", options: Globals = DEFAULTS
) -> None:
    """Rewrite the backing reference in an image's header; no data moves.

    Examples:
      blockyard graph change-backing-file disk ../base.qcow2 --format qcow2
      blockyard graph change-backing-file disk

    Parameters
    ----------
    node
        The image's node.
    backing_file
        The name to write; without one the reference is removed.
    format
        Its format; required with a name.
    """
    from blockyard.cli.describe import node_facts

    async with connected(options) as (client, out):
        out.one(await client.nodes.change_backing_file(node, backing_file, format), node_facts)


@app.command
async def reopen(definitions: str, /, *, dry_run: bool = False, options: Globals = DEFAULTS) -> None:
    """Change options of open nodes, all of them or none.

    An option that is left out returns to its default; a child that is left out stays.

    Examples:
      echo '{"definitions": [{"nodeName": "disk", "readOnly": true, "qcow2": {}}]}' | blockyard graph reopen -

    Parameters
    ----------
    definitions
        A file with a ReopenNodesRequest as JSON, or - for standard input.
    dry_run
        Check only.
    """
    from blockyard.cli.describe import NODES
    from blockyard.v1.node_pb2 import ReopenNodesRequest

    wanted = _read(definitions, ReopenNodesRequest())
    async with connected(options) as (client, out):
        out.many(await client.nodes.reopen(list(wanted.definitions), validate_only=dry_run), NODES)


@app.command
async def transaction(actions: str, /, *, dry_run: bool = False, options: Globals = DEFAULTS) -> None:
    """Several changes at one instant, all of them or none.

    Prints what changed: edges that went (-) and came (+). With --dry-run what would, and every action that would
    fail; then the exit code is 1.

    Examples:
      blockyard graph transaction snapshot-all.json --dry-run

    Parameters
    ----------
    actions
        A file with a RunTransactionRequest as JSON, or - for standard input.
    dry_run
        Check only.
    """
    from blockyard.v1.node_pb2 import RunTransactionRequest

    wanted = _read(actions, RunTransactionRequest())
    async with connected(options) as (client, out):
        told = await client.nodes.transaction(list(wanted.actions), validate_only=dry_run)
        out.done(told, "\n".join(_changes(told)) or "nothing changes")
    if told.failures:
        raise CommandFailed(Exit.FAILED, f"{len(told.failures)} of {len(wanted.actions)} actions would fail", "")


def _changes(told: "RunTransactionResponse") -> list[str]:
    difference = told.difference
    lines = [f"- node {name}" for name in difference.removed_nodes]
    lines += [f"- {_edge(edge)}" for edge in difference.removed_edges]
    lines += [f"+ node {name}" for name in difference.added_nodes]
    lines += [f"+ {_edge(edge)}" for edge in difference.added_edges]
    lines += [f"~ node {name}" for name in difference.changed_nodes]
    return [*lines, *(f"! action {each.index}: {each.error_message}" for each in told.failures)]


def _edge(edge: "GetGraphResponse.Edge") -> str:
    owner = f"{edge.parent}.{edge.child.name}" if edge.parent else f"{edge.holder.kind} {edge.holder.name}"
    return f"{owner} -> {edge.child.node_name}"


def _read(source: str, message: "Read") -> "Read":
    from blockyard.cli.messages import read

    return read(source, message, f"Its fields stand in protos/blockyard/v1 under {message.DESCRIPTOR.name}.")
