"""backup: copy a node as it was at the start, while the guest goes on writing.

Theory: a copy-before-write filter at the node keeps the promise; the job only copies what the guest did not
touch. With sync NONE there is nothing to copy: old data goes to the target when the guest overwrites it, and
the job runs until it is cancelled (block/backup.c, backup_run), so its outcome is CANCELLED although nothing
went wrong.

Which bitmap and mode go together is QEMU's rule (blockdev.c, do_backup_common).
"""

from dataclasses import dataclass

from blockyard.jobs.copying.policy import ErrorPolicies, OnError
from blockyard.jobs.copying.window import DEFAULT_ORDER_BYTES, MAX_ORDERS, Window
from blockyard.jobs.kinds.base import Kind
from blockyard.jobs.node.port import (
    MAX_ORDER_BYTES,
    MIN_GRANULARITY,
    BitmapMode,
    CopyKind,
    NodePort,
    OnCbwError,
    SessionRequest,
    SyncMode,
)


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """job.proto, BackupOptions."""

    node_name: str = ""
    target_node_name: str = ""
    sync: SyncMode | None = None
    bitmap: str = ""
    bitmap_mode: BitmapMode | None = None
    compress: bool = False
    on_cbw_error: OnCbwError = OnCbwError.BREAK_GUEST_WRITE
    on_source_error: OnError = OnError.REPORT
    on_target_error: OnError = OnError.REPORT
    max_workers: int = 0
    max_chunk_bytes: int = 0
    target_is_zero: bool = False


class Backup(Kind):
    """Copy an instant."""

    name = "backup"
    Options = BackupOptions
    options: BackupOptions

    @property
    def endless(self) -> bool:
        return self.options.sync is SyncMode.NONE

    @property
    def policies(self) -> ErrorPolicies:
        return ErrorPolicies(self.options.on_source_error, self.options.on_target_error)

    @property
    def node_names(self) -> tuple[str, ...]:
        return (self.options.node_name, self.options.target_node_name)

    def check(self) -> None:
        options = self.options
        self.need(node_name=options.node_name, target_node_name=options.target_node_name)
        self.refuse_unless(options.sync is not None, "sync", "FULL, TOP, NONE or BITMAP", "nothing")
        apart = options.node_name != options.target_node_name
        self.refuse_unless(apart, "target_node_name", "another node than node_name", repr(options.node_name))
        self._check_bitmap()
        workers = options.max_workers
        self.refuse_unless(0 <= workers <= MAX_ORDERS, "max_workers", f"0 to {MAX_ORDERS}", workers)
        chunk = options.max_chunk_bytes
        fits = chunk == 0 or MIN_GRANULARITY <= chunk <= MAX_ORDER_BYTES
        self.refuse_unless(fits, "max_chunk_bytes", f"0, or {MIN_GRANULARITY} to {MAX_ORDER_BYTES}", chunk)

    def _check_bitmap(self) -> None:
        sync, bitmap, mode = self.options.sync, self.options.bitmap, self.options.bitmap_mode
        if not bitmap:
            self.refuse_unless(mode is None, "bitmap_mode", "nothing without a bitmap", mode)
            self.refuse_unless(sync is not SyncMode.BITMAP, "bitmap", "a bitmap's name for sync BITMAP", "nothing")
            return
        self.refuse_unless(sync is not SyncMode.NONE, "bitmap", "no bitmap with sync NONE", repr(bitmap))
        if sync is not SyncMode.BITMAP:
            useful = mode in (BitmapMode.ON_SUCCESS, BitmapMode.ALWAYS)
            self.refuse_unless(useful, "bitmap_mode", f"ON_SUCCESS or ALWAYS with sync {sync}", mode)

    async def session(self, job_id: str, filter_node_name: str, node: NodePort) -> SessionRequest:
        options = self.options
        assert options.sync is not None, "checked"
        return SessionRequest(
            session_id=job_id,
            kind=CopyKind.BACKUP,
            source=options.node_name,
            target=options.target_node_name,
            sync=options.sync,
            bitmap=options.bitmap,
            bitmap_mode=options.bitmap_mode,
            target_is_zero=options.target_is_zero,
            compress=options.compress,
            on_cbw_error=options.on_cbw_error,
            filter_node_name=filter_node_name,
        )

    def window(self) -> Window:
        return Window(
            order_bytes=self.options.max_chunk_bytes or DEFAULT_ORDER_BYTES,
            max_orders=self.options.max_workers or MAX_ORDERS,
        )
