"""Builders of node definitions: `qcow2(file("disk.qcow2"), node_name="top", read_only=True)`.

What lives here: one function per driver that has an options message, `generic` for all others, and the
conversion of option values. What must not: calls. Everything here is a pure function on messages.

A child is given as another definition (opened with its parent), as the name of an open node, or, where a
backing node may be ignored on purpose, as `NO_NODE`.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, TypedDict, Unpack

from blockyard.base.errors import InvalidArgument
from blockyard.client.words import to_number
from blockyard.v1 import drivers_pb2 as drivers
from blockyard.v1 import types_pb2 as types
from blockyard.v1.drivers_pb2 import NodeDefinition, NodeReference


class NoNode(Enum):
    """Explicitly nothing, where leaving it out means something else."""

    NO_NODE = "none"


NO_NODE: Final = NoNode.NO_NODE
"""For `backing`: ignore what the image's header names."""

Scalar = bool | int | float | str | bytes
Plain = Scalar | Sequence["Plain"] | Mapping[str, "Plain"]
"""What an option value may be in Python."""

Child = NodeDefinition | str | NoNode


class Common(TypedDict, total=False):
    """Keywords that every driver takes; see the fields of NodeDefinition."""

    node_name: str
    read_only: bool
    auto_read_only: bool
    force_share: bool
    direct: bool
    no_flush: bool
    discard: str
    detect_zeroes: str
    labels: Mapping[str, str]
    executor: str
    ephemeral: bool


def reference(child: Child) -> NodeReference:
    """A child as the API has it."""
    if isinstance(child, NodeDefinition):
        return NodeReference(definition=child)
    if isinstance(child, NoNode):
        return NodeReference(none=True)
    return NodeReference(node_name=child)


def with_common(definition: NodeDefinition, common: Common) -> NodeDefinition:
    """Set the keywords that every driver takes."""
    for name in ("node_name", "read_only", "auto_read_only", "force_share", "executor", "ephemeral"):
        if name in common:
            setattr(definition, name, common[name])
    for name in ("direct", "no_flush"):
        if name in common:
            setattr(definition.cache, name, common[name])  # type: ignore[literal-required]
    definition.discard = to_number(types.DiscardMode, common.get("discard", ""), "discard")
    definition.detect_zeroes = to_number(types.DetectZeroes, common.get("detect_zeroes", ""), "detect_zeroes")
    definition.labels.update(common.get("labels", {}))
    return definition


def file(
    filename: str = "", *, locking: str = "", temporary: bool = False, **common: Unpack[Common]
) -> NodeDefinition:
    """A file of the node service's host, beneath a storage root; or one without a name, gone at close."""
    options = drivers.FileOptions(filename=filename, locking=locking, temporary=temporary)
    return with_common(NodeDefinition(file=options), common)


def memory(size: int = 0, **common: Unpack[Common]) -> NodeDefinition:
    """Bytes in memory, lost at close."""
    return with_common(NodeDefinition(memory=drivers.MemoryOptions(size=size)), common)


def null(
    size: int = 0, *, latency_ns: int = 0, read_zeroes: bool | None = None, **common: Unpack[Common]
) -> NodeDefinition:
    """Reads zeroes, forgets writes."""
    options = drivers.NullOptions(size=size, latency_ns=latency_ns, read_zeroes=read_zeroes)
    return with_common(NodeDefinition(null=options), common)


def nbd(
    address: str,
    export: str = "",
    *,
    reconnect_delay_seconds: int = 0,
    open_timeout_seconds: int = 0,
    **common: Unpack[Common],
) -> NodeDefinition:
    """An export of the NBD server at `address`: `unix:PATH`, `HOST:PORT`, `[V6]:PORT` or `HOST`."""
    options = drivers.NbdOptions(
        address=address,
        export=export,
        reconnect_delay_seconds=reconnect_delay_seconds,
        open_timeout_seconds=open_timeout_seconds,
    )
    return with_common(NodeDefinition(nbd=options), common)


def raw(file: Child, *, offset: int = 0, size: int | None = None, **common: Unpack[Common]) -> NodeDefinition:
    """Another node's bytes as they are, or a window of them."""
    options = drivers.RawOptions(file=reference(file), offset=offset, size=size)
    return with_common(NodeDefinition(raw=options), common)


def qcow2(
    file: Child,
    *,
    backing: Child | None = None,
    lazy_refcounts: bool | None = None,
    l2_cache_size: int | None = None,
    refcount_cache_size: int | None = None,
    pass_discard_request: bool | None = None,
    overlap_check: str = "",
    overlap_checks: Mapping[str, bool] | None = None,
    data_file: Child | None = None,
    follow_data_file: bool = False,
    key_secret: str = "",
    **common: Unpack[Common],
) -> NodeDefinition:
    """A qcow2 image. `backing` left out is what the header names; `NO_NODE` is none. An external data file is
    `data_file`, or what the header names if `follow_data_file` says that it may choose. `key_secret` opens an
    image that is encrypted."""
    options = drivers.Qcow2Options(
        file=reference(file),
        backing=None if backing is None else reference(backing),
        lazy_refcounts=lazy_refcounts,
        l2_cache_size=l2_cache_size,
        refcount_cache_size=refcount_cache_size,
        pass_discard_request=pass_discard_request,
        overlap_check=overlap_check,
        overlap_checks=None if overlap_checks is None else drivers.OverlapChecks(**overlap_checks),
        data_file=None if data_file is None else reference(data_file),
        follow_data_file=follow_data_file,
        encrypt=drivers.Qcow2Encryption(key_secret=key_secret) if key_secret else None,
    )
    return with_common(NodeDefinition(qcow2=options), common)


def copy_before_write(
    file: Child,
    target: Child,
    *,
    bitmap_node: str = "",
    bitmap_name: str = "",
    on_cbw_error: str = "",
    cbw_timeout: int = 0,
    min_cluster_size: int = 0,
    **common: Unpack[Common],
) -> NodeDefinition:
    """Keeps a point in time of `file` while it is written: old data goes to `target` first.

    Insert it above the node with `client.nodes.insert_filter`, and read it through `snapshot_access`.
    """
    options = drivers.CopyBeforeWriteOptions(
        file=reference(file),
        target=reference(target),
        bitmap_node=bitmap_node,
        bitmap_name=bitmap_name,
        on_cbw_error=to_number(drivers.OnCbwError, on_cbw_error, "on_cbw_error"),
        cbw_timeout=cbw_timeout,
        min_cluster_size=min_cluster_size,
    )
    return with_common(NodeDefinition(copy_before_write=options), common)


def snapshot_access(file: Child, **common: Unpack[Common]) -> NodeDefinition:
    """Shows the point in time that a copy-before-write filter keeps."""
    return with_common(NodeDefinition(snapshot_access=drivers.SnapshotAccessOptions(file=reference(file))), common)


def copy_on_read(file: Child, *, bottom: str = "", **common: Unpack[Common]) -> NodeDefinition:
    """Stores in the image below what is read through it from a backing chain, down to `bottom`."""
    options = drivers.CopyOnReadOptions(file=reference(file), bottom=bottom)
    return with_common(NodeDefinition(copy_on_read=options), common)


def compress(file: Child, **common: Unpack[Common]) -> NodeDefinition:
    """Has the image below store what is written compressed."""
    return with_common(NodeDefinition(compress=drivers.CompressOptions(file=reference(file))), common)


def preallocate(
    file: Child,
    *,
    prealloc_align: int | None = None,
    prealloc_size: int | None = None,
    **common: Unpack[Common],
) -> NodeDefinition:
    """Grows the file below ahead of writes."""
    options = drivers.PreallocateOptions(
        file=reference(file), prealloc_align=prealloc_align, prealloc_size=prealloc_size
    )
    return with_common(NodeDefinition(preallocate=options), common)


def blkdebug(
    image: Child,
    *,
    config: str = "",
    inject_error: Sequence[drivers.BlkdebugInjectError] = (),
    set_state: Sequence[drivers.BlkdebugSetState] = (),
    align: int = 0,
    max_transfer: int = 0,
    opt_write_zero: int = 0,
    max_write_zero: int = 0,
    opt_discard: int = 0,
    max_discard: int = 0,
    take_child_perms: Sequence[str] = (),
    unshare_child_perms: Sequence[str] = (),
    seed: int = 0,
    **common: Unpack[Common],
) -> NodeDefinition:
    """Breaks things on purpose: by rules given here, or by `client.debug` later."""
    options = drivers.BlkdebugOptions(
        image=reference(image),
        config=config,
        inject_error=inject_error,
        set_state=set_state,
        align=align,
        max_transfer=max_transfer,
        opt_write_zero=opt_write_zero,
        max_write_zero=max_write_zero,
        opt_discard=opt_discard,
        max_discard=max_discard,
        take_child_perms=[to_number(types.Permission, word, "take_child_perms") for word in take_child_perms],
        unshare_child_perms=[
            to_number(types.Permission, word, "unshare_child_perms") for word in unshare_child_perms
        ],
        seed=seed,
    )
    return with_common(NodeDefinition(blkdebug=options), common)


def throttle(file: Child, throttle_group: str, **common: Unpack[Common]) -> NodeDefinition:
    """Another node's bytes, at the rates of a throttle group (`client.throttle`)."""
    options = drivers.ThrottleOptions(file=reference(file), throttle_group=throttle_group)
    return with_common(NodeDefinition(throttle=options), common)


def blkverify(test: Child, raw: Child, **common: Unpack[Common]) -> NodeDefinition:
    """Compares an image under test with a raw copy of what it should contain."""
    options = drivers.BlkverifyOptions(test=reference(test), raw=reference(raw))
    return with_common(NodeDefinition(blkverify=options), common)


def quorum(
    children: Sequence[Child],
    vote_threshold: int,
    *,
    blkverify: bool = False,
    rewrite_corrupted: bool = False,
    read_pattern: str = "",
    **common: Unpack[Common],
) -> NodeDefinition:
    """Writes to several nodes and reads what most of them say. `read_pattern` is "quorum" or "fifo"."""
    options = drivers.QuorumOptions(
        children=[reference(child) for child in children],
        vote_threshold=vote_threshold,
        blkverify=blkverify,
        rewrite_corrupted=rewrite_corrupted,
        read_pattern=to_number(drivers.QuorumReadPattern, read_pattern, "read_pattern"),
    )
    return with_common(NodeDefinition(quorum=options), common)


def luks(
    file: Child,
    key_secret: str = "",
    *,
    header: Child | None = None,
    no_io: bool = False,
    **common: Unpack[Common],
) -> NodeDefinition:
    """An encrypted disk. `header` holds the header if the file does not; `no_io` opens it without its key."""
    options = drivers.LuksOptions(
        file=reference(file),
        header=None if header is None else reference(header),
        key_secret=key_secret,
        no_io=no_io,
    )
    return with_common(NodeDefinition(luks=options), common)


def generic(
    driver: str,
    options: Mapping[str, Plain] | None = None,
    children: Mapping[str, Child] | None = None,
    **common: Unpack[Common],
) -> NodeDefinition:
    """A driver without a message of its own."""
    message = drivers.GenericOptions(
        driver=driver,
        options={name: option_value(value) for name, value in (options or {}).items()},
        children={name: reference(child) for name, child in (children or {}).items()},
    )
    return with_common(NodeDefinition(generic=message), common)


def image(format: str, filename: str, **common: Unpack[Common]) -> NodeDefinition:
    """A file with a format by name: the short form of `raw(file(...))`, `qcow2(file(...))` and the like.

    The file node inherits whether it is written; every other keyword belongs to the format node.
    """
    below = file(
        filename,
        read_only=common.get("read_only", False),
        auto_read_only=common.get("auto_read_only", False),
        force_share=common.get("force_share", False),
    )
    if format == "file":
        return with_common(below, common)
    if format == "raw":
        return raw(below, **common)
    if format == "qcow2":
        return qcow2(below, **common)
    return generic(format, children={"file": below}, **common)


def without_file(driver: str) -> NodeDefinition | None:
    """A driver that needs no file name: its options and children are set in its message. None if it is no such."""
    arm = NodeDefinition.DESCRIPTOR.fields_by_name.get(driver.replace("-", "_"))
    if arm is None or arm.containing_oneof is None or arm.name in ("generic", "file"):
        return None
    made = NodeDefinition()
    getattr(made, arm.name).SetInParent()
    return made


def option_value(value: Plain) -> types.OptionValue:
    """A Python value as the API carries it. Integers keep all 64 bits."""
    if isinstance(value, bool):
        return types.OptionValue(bool_value=value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InvalidArgument(name="option", expected="an integer of 64 bits", found=str(value))
        return types.OptionValue(int_value=value)
    if isinstance(value, float):
        return types.OptionValue(double_value=value)
    if isinstance(value, str):
        return types.OptionValue(string_value=value)
    if isinstance(value, bytes):
        return types.OptionValue(bytes_value=value)
    if isinstance(value, Mapping):
        values = {name: option_value(item) for name, item in value.items()}
        return types.OptionValue(map_value=types.OptionMap(values=values))
    return types.OptionValue(list_value=types.OptionList(values=[option_value(item) for item in value]))


def plain_value(value: types.OptionValue) -> Plain:
    """An option value as Python has it; the reverse of `option_value`. Unset is an empty string."""
    kind = value.WhichOneof("kind")
    if kind is None:
        return ""
    if kind == "list_value":
        return [plain_value(item) for item in value.list_value.values]
    if kind == "map_value":
        return {name: plain_value(item) for name, item in value.map_value.values.items()}
    found: Scalar = getattr(value, kind)
    return found
