"""mirror: copy a node to a target and follow its writes, until it is completed.

Theory: the job is READY once nothing is left to copy. From then on it follows the guest, and COMPLETE either
moves the source's users to the target (PIVOT) or leaves a copy of this instant (DETACH). What is left at that
moment the node copies in the drained instant of the pivot, so that completing ends even under a guest that
never rests. Sync NONE has nothing to copy at first and is READY at once.
"""

from dataclasses import dataclass, replace

from blockyard.base.units import KIB
from blockyard.jobs.copying.policy import ErrorPolicies, OnError
from blockyard.jobs.copying.window import DEFAULT_WINDOW_BYTES, MAX_WINDOW_BYTES, Window
from blockyard.jobs.kinds.base import Kind
from blockyard.jobs.node.port import CopyKind, CopyMode, FinishAction, NodePort, SessionRequest, SyncMode

MIN_WINDOW_BYTES = 64 * KIB


@dataclass(frozen=True, slots=True)
class MirrorOptions:
    """job.proto, MirrorOptions."""

    node_name: str = ""
    target_node_name: str = ""
    replaces_node_name: str = ""
    sync: SyncMode | None = None
    copy_mode: CopyMode = CopyMode.BACKGROUND
    granularity_bytes: int = 0
    buf_size_bytes: int = 0
    unmap: bool | None = None
    target_is_zero: bool = False
    on_source_error: OnError = OnError.REPORT
    on_target_error: OnError = OnError.REPORT


class Mirror(Kind):
    """Copy and follow."""

    name = "mirror"
    Options = MirrorOptions
    options: MirrorOptions

    @property
    def converges(self) -> bool:
        return True

    @property
    def policies(self) -> ErrorPolicies:
        return ErrorPolicies(self.options.on_source_error, self.options.on_target_error)

    @property
    def node_names(self) -> tuple[str, ...]:
        options = self.options
        named = (options.node_name, options.target_node_name, options.replaces_node_name)
        return tuple(dict.fromkeys(filter(None, named)))

    def check(self) -> None:
        options = self.options
        self.need(node_name=options.node_name, target_node_name=options.target_node_name)
        self.refuse_unless(
            options.sync in (SyncMode.FULL, SyncMode.TOP, SyncMode.NONE), "sync", "FULL, TOP or NONE", options.sync
        )
        apart = options.node_name != options.target_node_name
        self.refuse_unless(apart, "target_node_name", "another node than node_name", repr(options.node_name))
        if options.replaces_node_name:
            # As QEMU: else the replaced node's other data would be lost (blockdev.c, blockdev_mirror_common).
            full = options.sync is SyncMode.FULL
            self.refuse_unless(full, "replaces_node_name", "sync FULL with it", f"sync {options.sync}")
        self.check_granularity(options.granularity_bytes)
        fits = MIN_WINDOW_BYTES <= options.buf_size_bytes <= MAX_WINDOW_BYTES
        self.refuse_unless(
            options.buf_size_bytes == 0 or fits,
            "buf_size_bytes",
            f"0, or {MIN_WINDOW_BYTES} to {MAX_WINDOW_BYTES}",
            options.buf_size_bytes,
        )

    async def session(self, job_id: str, filter_node_name: str, node: NodePort) -> SessionRequest:
        options = self.options
        assert options.sync is not None, "checked"
        return SessionRequest(
            session_id=job_id,
            kind=CopyKind.MIRROR,
            source=options.node_name,
            target=options.target_node_name,
            sync=options.sync,
            copy_mode=options.copy_mode,
            granularity_bytes=options.granularity_bytes,
            target_is_zero=options.target_is_zero,
            unmap=options.unmap,
            filter_node_name=filter_node_name,
            replaces=options.replaces_node_name,
        )

    def window(self) -> Window:
        return Window(self.options.buf_size_bytes or DEFAULT_WINDOW_BYTES)

    def finish(self, chosen: FinishAction | None) -> FinishAction:
        return chosen or FinishAction.PIVOT

    def with_copy_mode(self, mode: CopyMode) -> "Mirror":
        # The other way is refused, as in QEMU (block/mirror.c, mirror_change).
        self.refuse_unless(mode is CopyMode.WRITE_BLOCKING, "copy_mode", str(CopyMode.WRITE_BLOCKING), mode)
        return Mirror(replace(self.options, copy_mode=mode))
