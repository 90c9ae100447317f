"""Nodes of the graph as the wire shows them. Reads only; nothing here changes or waits, but `full_state`.

Two views: BASIC is what is in memory; FULL adds requests in flight, the account, and what the driver must be asked.
"""

import dataclasses
import json
from enum import Enum
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from blockyard.node.graph.bitmaps import Bitmap
from blockyard.node.graph.definition import driver_options, listed
from blockyard.node.graph.edge import Edge
from blockyard.node.graph.facts import copy_on_read_users, node_info
from blockyard.node.graph.node import Node
from blockyard.node.graph.permissions import blockers
from blockyard.node.graph.present import follows_header, full_definition
from blockyard.node.graph.tracking import TrackedRequest
from blockyard.node.graph.user import User
from blockyard.node.interface.driver import CheckReport, FormatDriver, NodeInfo, ProtocolDriver, Resizable
from blockyard.node.interface.flags import Role
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.permissions import names
from blockyard.node.rpc.accounts import account_stats
from blockyard.node.rpc.attachment_words import attachments_of
from blockyard.node.rpc.definitions import option_value
from blockyard.node.rpc.throttle import throttle_state
from blockyard.node.rpc.words import number_of, printable
from blockyard.v1 import node_pb2, types_pb2

_UNKNOWN: Final = NodeInfo()


def timestamp(wall_ns: int) -> Timestamp:
    result = Timestamp()
    result.FromNanoseconds(wall_ns)
    return result


def duration(nanoseconds: int) -> Duration:
    result = Duration()
    result.FromNanoseconds(nanoseconds)
    return result


def etag(node: Node) -> str:
    """Changes with every change of the node that clients can see."""
    return f"{node.uid[:8]}-{node.revision}"


def basic_state(node: Node, info: NodeInfo = _UNKNOWN) -> types_pb2.BlockDriverState:
    """What is in memory. `info` is what the driver told, for the full view."""
    definition = node.definition
    backing_file, backing_format = _backing(node)
    return types_pb2.BlockDriverState(
        node_name=node.name,
        uid=node.uid,
        etag=etag(node),
        driver=node.driver.name,
        size_bytes=node.driver.size,
        read_only=node.read_only,
        auto_read_only=definition.auto_read_only,
        cache=types_pb2.CacheOptions(direct=definition.direct, no_flush=node.no_flush),
        discard=number_of(types_pb2.DiscardMode, node.discard.value),  # type: ignore[arg-type]
        detect_zeroes=number_of(types_pb2.DetectZeroes, definition.detect_zeroes.value),  # type: ignore[arg-type]
        copy_on_read=copy_on_read_users(node),
        executor=node.executor,
        filename=node.filename,
        exact_filename=_exact_filename(node),
        full_open_options=full_definition(node).specification(),
        explicit_options=(node.given or definition).specification(),
        backing_file=printable(backing_file),
        backing_format=backing_format,
        children=[child(edge) for edge in node.children.values()],
        holders=[holder(edge) for edge in node.parents],
        in_flight=len(node.tracker.requests),
        serialising_in_flight=node.tracker.serialising,
        throttle=throttle_state(node),
        limits=block_limits(node.driver.limits),
        growable=isinstance(node.driver, ProtocolDriver) and isinstance(node.driver, Resizable),
        zero_beyond_eof=True,
        attachments=attachments_of(node),
        dirty_bitmaps=[dirty_bitmap(node, item) for item in node.bitmaps.values() if item.name],
        op_blockers=[
            types_pb2.OpBlocker(operation=item.operation, reason=item.reason, owner=item.owner)
            for item in blockers(node)
        ],
        jobs=_jobs(node),
        quiesce_counter=node.quiesced,
        implicit=node.implicit,
        active=node.active,
        write_generation=node.write_generation,
        flushed_generation=node.flushed_generation,
        write_highest_offset_bytes=node.write_highest,
        write_threshold_bytes=node.threshold.offset if node.threshold else 0,
        cluster_size_bytes=info.cluster_size or node.driver.limits.allocation_unit,
        allocated_bytes=info.allocated_bytes,
        vm_state_offset_bytes=info.vm_state_offset,
        labels=dict(definition.labels),
        create_time=timestamp(node.created_ns),
        inherits_from=_inherits_from(node),
    )


async def full_state(node: Node) -> types_pb2.BlockDriverState:
    """Everything, with facts that the driver must be asked for."""
    info = await node_info(node)
    state = basic_state(node, info)
    state.encrypted, state.dirty, state.corrupt = info.encrypted, info.is_dirty, info.is_corrupt
    state.subcluster_size_bytes = info.subcluster_size
    state.scsi_generic = info.scsi_generic
    state.variable_length, state.has_zero_init = info.variable_length, info.has_zero_init
    state.effective_options = _effective_options(node)
    state.tracked_requests.extend(tracked_requests(node))
    state.stats.CopyFrom(account_stats(node))
    for name, value in info.specific.items():
        state.format_specific[name].CopyFrom(option_value(value))
    return state


def _jobs(node: Node) -> list[str]:
    """Ids of the jobs that use the node. A session's edge is called `ID:source` or `ID:target`."""
    names = (edge.name for edge in node.parents if isinstance(edge, User) and edge.kind == "job")
    return sorted({name.rpartition(":")[0] or name for name in names})


def _backing(node: Node) -> tuple[str, str]:
    # The driver may have changed its header since the node was opened.
    reference = node.driver.backing() if isinstance(node.driver, FormatDriver) else None
    return (reference.filename, reference.format) if reference else ("", "")


def _exact_filename(node: Node) -> str:
    """The file's name, if opening it with the node's driver and no option more gives the same node
    (bdrv_refresh_filename)."""
    options = node.definition.options
    if not node.children:
        return str(options["filename"]) if list(options) == ["filename"] else ""
    below = node.primary
    if options or below is None or below.role is not Role.FILE or set(node.children) - {below.name, "backing"}:
        return ""
    if any(slot.name == "backing" for slot in node.driver.children) and not follows_header(node):
        return ""
    return _exact_filename(below.node)


def _effective_options(node: Node) -> str:
    definition = node.definition
    options = driver_options(type(node.driver), definition.options)
    values = {name.replace("_", "-"): value for name, value in _plain(options).items()}
    common: dict[str, Any] = {
        "read-only": node.read_only,
        "auto-read-only": definition.auto_read_only,
        "force-share": definition.force_share,
        "cache": {"direct": definition.direct, "no-flush": node.no_flush},
        "discard": node.discard.value,
        "detect-zeroes": definition.detect_zeroes.value,
    }
    children = listed({name: edge.node.name for name, edge in node.children.items()})
    whole = {"driver": definition.driver, "node-name": node.name, **common, **values, **children}
    return "json:" + json.dumps(whole, sort_keys=True, default=str)


def _plain(value: Any) -> Any:
    """Options as JSON has them; what is not set is left out."""
    if dataclasses.is_dataclass(value):
        found = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        return {name: _plain(item) for name, item in found.items() if item is not None}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _inherits_from(node: Node) -> str:
    if not node.implicit:
        return ""
    return next((edge.parent.name for edge in node.parents if edge.parent is not None), "")


def child(edge: Edge) -> types_pb2.BlockChild:
    return types_pb2.BlockChild(
        name=edge.name,
        node_name=edge.node.name,
        role=number_of(types_pb2.ChildRole, edge.role.value),  # type: ignore[arg-type]
        frozen_reason=edge.frozen_reason,
        permissions=_permissions(edge.permissions.used),
        shared_permissions=_permissions(edge.permissions.shared),
    )


def _permissions(bits: int) -> Any:
    return [number_of(types_pb2.Permission, name) for name in names(bits)]


def holder(edge: Edge) -> types_pb2.Holder:
    """Who keeps a node by this edge."""
    if isinstance(edge, User):
        found = types_pb2.Holder(kind=edge.kind, name=edge.name, hold_time=timestamp(edge.held_since_ns))
    elif edge.parent is None:
        # Its parent is being opened, and has no name in the graph yet.
        found = types_pb2.Holder(kind="node", name=edge.coming, edge=edge.name)
    else:
        found = types_pb2.Holder(
            kind="node", name=edge.parent.name, edge=edge.name, hold_time=timestamp(edge.parent.created_ns)
        )
    found.permissions.extend(_permissions(edge.permissions.used))
    found.shared_permissions.extend(_permissions(edge.permissions.shared))
    return found


def block_limits(limits: Limits) -> types_pb2.BlockLimits:
    return types_pb2.BlockLimits(
        request_alignment_bytes=limits.request_alignment,
        max_transfer_bytes=limits.max_transfer,
        opt_transfer_bytes=limits.opt_transfer,
        max_discard_bytes=limits.max_discard,
        discard_alignment_bytes=limits.discard_alignment,
        max_write_zeroes_bytes=limits.max_zeroes,
        write_zeroes_alignment_bytes=limits.zero_alignment,
        min_mem_alignment_bytes=limits.min_mem_alignment,
        opt_mem_alignment_bytes=limits.opt_mem_alignment,
        max_iov=limits.max_iov,
    )


def dirty_bitmap(node: Node, bitmap: Bitmap) -> types_pb2.DirtyBitmap:
    return types_pb2.DirtyBitmap(
        name=bitmap.name,
        node_name=node.name,
        granularity_bytes=bitmap.bits.granularity,
        dirty_bytes=bitmap.bits.dirty_bytes,
        recording=bitmap.recording,
        busy=bool(bitmap.owner),
        persistent=bitmap.persistent,
        inconsistent=bitmap.inconsistent,
        owner=bitmap.owner,
    )


def tracked_requests(node: Node) -> list[types_pb2.TrackedRequest]:
    """Requests in flight at a node and those held outside, oldest first, with who waits for whom."""
    blocking: dict[int, list[int]] = {}
    for waiter, other in node.tracker.edges():
        blocking.setdefault(other.request_id, []).append(waiter.request_id)
    now_ns = node.now_ns()
    requests = sorted(node.tracker.requests | node.tracker.held)
    found = [node.tracker.requests.get(number) or node.tracker.held[number] for number in requests]
    return [_tracked(node, request, blocking.get(request.request_id, []), now_ns) for request in found]


def _tracked(node: Node, request: TrackedRequest, blocking: list[int], now_ns: int) -> types_pb2.TrackedRequest:
    return types_pb2.TrackedRequest(
        request_id=request.request_id,
        node_name=node.name,
        type=request.type,  # type: ignore[arg-type]
        range=types_pb2.ByteRange(offset_bytes=request.offset, length_bytes=request.length),
        serialising=request.serialising,
        overlap_range=types_pb2.ByteRange(offset_bytes=request.overlap_offset, length_bytes=request.overlap_length),
        owner=request.owner,
        trace_id=request.trace_id,
        waiting_for=request.waiting_for.request_id if request.waiting_for else 0,
        blocking=blocking,
        age=duration(now_ns - request.started_ns),
        parent_request_id=request.parent.request_id if request.parent and not request.parent.over else 0,
        wait_reason=number_of(types_pb2.WaitReason, request.wait_reason.value),  # type: ignore[arg-type]
    )


def check_response(report: CheckReport) -> node_pb2.CheckImageResponse:
    return node_pb2.CheckImageResponse(
        corruptions=report.corruptions,
        leaks=report.leaks,
        check_errors=report.check_errors,
        corruptions_fixed=report.corruptions_fixed,
        leaks_fixed=report.leaks_fixed,
        image_end_offset_bytes=report.image_end_offset,
        total_clusters=report.total_clusters,
        allocated_clusters=report.allocated_clusters,
        fragmented_clusters=report.fragmented_clusters,
        compressed_clusters=report.compressed_clusters,
        findings=report.findings,
    )
