"""NodeService, fifth part: several changes as one."""

from collections.abc import Callable
from typing import Any, Final

from google.rpc import code_pb2

from blockyard.base.errors import InvalidArgument, MissingOption, NotImplementedYet
from blockyard.node.copying.actions import CreateCopySession
from blockyard.node.exports.actions import CreateExport, DeleteExport
from blockyard.node.graph import actions, children, recording_actions
from blockyard.node.graph.internal_snapshots import CreateSnapshot
from blockyard.node.graph.medium_action import ChangeMedium
from blockyard.node.graph.overlays import CreateOverlay
from blockyard.node.graph.reopening import Reopen
from blockyard.node.graph.transaction import Action, EdgeFacts, Failed, Outcome, run
from blockyard.node.rpc.attachments import move_of
from blockyard.node.rpc.calls import Backstage, Calls
from blockyard.node.rpc.convert import basic_state, duration, full_state
from blockyard.node.rpc.copy import spec_from
from blockyard.node.rpc.definitions import definition_of, reference_of
from blockyard.node.rpc.exports import wanted_export
from blockyard.node.rpc.overlays import overlay_wish
from blockyard.node.rpc.snapshots import snapshot_wish
from blockyard.node.rpc.words import number_of
from blockyard.v1 import bitmap_pb2, node_pb2, types_pb2

Make = Callable[[Backstage, Any], Action]

ACTIONS: Final[dict[str, Make]] = {
    "open": lambda _, wish: actions.OpenNode(definition_of(wish.definition)),
    "close": lambda _, wish: actions.CloseNode(wish.node_name),
    "insert_overlay": lambda _, wish: actions.InsertOverlay(wish.node_name, wish.overlay_node_name),
    "insert_filter": lambda _, wish: actions.InsertFilter(wish.node_name, definition_of(wish.filter, "filter")),
    "remove_filter": lambda _, wish: actions.RemoveFilter(wish.node_name),
    "replace": lambda _, wish: actions.ReplaceNode(wish.node_name, wish.replacement_node_name),
    "reopen": lambda _, wish: _reopen(wish),
    "add_child": lambda _, wish: children.AddChild(wish.node_name, reference_of(wish.child, "child")),
    "remove_child": lambda _, wish: children.RemoveChild(wish.node_name, wish.child),
    "create_bitmap": lambda _, wish: _create_bitmap(wish),
    "delete_bitmap": lambda _, wish: recording_actions.DeleteBitmap(wish.node_name, wish.name),
    "clear_bitmap": lambda _, wish: recording_actions.ClearBitmap(wish.node_name, wish.name),
    "set_bitmap_recording": lambda _, wish: recording_actions.SetRecording(
        wish.node_name, wish.name, wish.recording
    ),
    "merge_bitmaps": lambda _, wish: recording_actions.MergeBitmaps(
        wish.target.node_name, wish.target.name, [(item.node_name, item.name) for item in wish.sources]
    ),
    "create_export": lambda backstage, wish: CreateExport(backstage.exports, *wanted_export(wish.export)),
    "create_snapshot": lambda backstage, wish: CreateSnapshot(
        wish.snapshot.node_name, snapshot_wish(wish, backstage.graph.environment.clock.wall_ns())
    ),
    "change_medium": lambda backstage, wish: ChangeMedium(
        backstage.attachments, wish.name, move_of(wish), wish.node_name, force=wish.force
    ),
    "create_overlay": lambda _, wish: CreateOverlay(overlay_wish(wish)),
    "delete_export": lambda backstage, wish: DeleteExport(backstage.exports, wish.export_id, force=wish.force),
    "create_copy_session": lambda backstage, wish: CreateCopySession(
        backstage.copies, spec_from(wish), wish.fencing_token
    ),
}
"""The arm of TransactionAction -> the action. A new arm is a row here."""

_NOT_HERE: Final = ("request_id", "validate_only", "etag", "allow_missing")
"""Fields of the single calls that mean nothing inside a transaction, which has its own."""


class TransactionCalls(Calls):
    """All or nothing."""

    async def RunTransaction(  # noqa: N802
        self, request: node_pb2.RunTransactionRequest, context: Any
    ) -> node_pb2.RunTransactionResponse:
        async def work() -> node_pb2.RunTransactionResponse:
            wanted = [self._action(index, each) for index, each in enumerate(request.actions)]
            outcome = await run(self._graph, wanted, validate_only=request.validate_only)
            return self._told(outcome)

        return await self._memory.once(request, work)

    async def ReopenNodes(  # noqa: N802
        self, request: node_pb2.ReopenNodesRequest, context: Any
    ) -> node_pb2.ReopenNodesResponse:
        outcome = await run(self._graph, [_reopen(request)], validate_only=request.validate_only)
        if outcome.failures:
            raise outcome.failures[0].error
        names = [each.node_name for each in request.definitions]
        return node_pb2.ReopenNodesResponse(nodes=[await full_state(self._graph.get(name)) for name in names])

    def _action(self, index: int, message: node_pb2.TransactionAction) -> Action:
        arm = message.WhichOneof("action")
        if arm is None:
            raise MissingOption(f"actions[{index}]", "action")
        if arm not in ACTIONS:
            raise NotImplementedYet(f"{arm} in a transaction", "call it by itself")
        wish = getattr(message, arm)
        for field, _ in wish.ListFields():
            if field.name in _NOT_HERE:
                raise InvalidArgument(
                    f"actions[{index}].{arm}.{field.name}", "unset: it belongs to single calls", "set"
                )
        return ACTIONS[arm](self._backstage, wish)

    def _told(self, outcome: Outcome) -> node_pb2.RunTransactionResponse:
        names = [*outcome.added_nodes, *outcome.changed_nodes]
        names += [edge.node_name for edge in outcome.added_edges] + [edge.parent for edge in outcome.added_edges]
        present = dict.fromkeys(name for name in names if name in self._graph.nodes)
        return node_pb2.RunTransactionResponse(
            nodes=[basic_state(self._graph.nodes[name]) for name in present],
            closed=outcome.removed_nodes,
            difference=_difference(outcome),
            failures=map(_failure, outcome.failures),
            pause=duration(outcome.pause_ns),
            skew=duration(outcome.skew_ns),
        )


def _reopen(wish: node_pb2.ReopenNodesRequest) -> Action:
    if not wish.definitions:
        raise MissingOption("a reopen", "definitions")
    return Reopen([definition_of(each, f"definitions[{at}]") for at, each in enumerate(wish.definitions)])


def _create_bitmap(wish: bitmap_pb2.CreateBitmapRequest) -> Action:
    return recording_actions.CreateBitmap(
        wish.node_name,
        wish.name,
        wish.granularity_bytes,
        is_recording=not wish.disabled,
        is_persistent=wish.persistent,
    )


def _difference(outcome: Outcome) -> node_pb2.GraphDifference:
    return node_pb2.GraphDifference(
        added_nodes=outcome.added_nodes,
        removed_nodes=outcome.removed_nodes,
        changed_nodes=outcome.changed_nodes,
        added_edges=map(_edge, outcome.added_edges),
        removed_edges=map(_edge, outcome.removed_edges),
    )


def _edge(facts: EdgeFacts) -> node_pb2.GetGraphResponse.Edge:
    edge = node_pb2.GetGraphResponse.Edge(
        parent=facts.parent,
        child=types_pb2.BlockChild(
            name=facts.name,
            node_name=facts.node_name,
            role=number_of(types_pb2.ChildRole, facts.role),  # type: ignore[arg-type]
        ),
    )
    if not facts.parent:
        kind, _, name = facts.holder.partition("/")
        edge.holder.CopyFrom(types_pb2.Holder(kind=kind, name=name))
    return edge


def _failure(failed: Failed) -> node_pb2.ActionFailure:
    error = failed.error
    return node_pb2.ActionFailure(
        index=failed.index,
        code=code_pb2.Code.Value(error.canonical()),
        reason=error.reason,
        error_message=str(error),
    )
