"""What the parts of the driver share: one open image, its children, its header, its state of health.

Must not hold policy of any part; the parts (`refcounts`, `l2`, `allocator`, `writeback` ...) are attached here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from blockyard.base.errors import DataFileMissing, ImageCorrupt, ImageLocked, ImageMarkedCorrupt, NodeReadOnly
from blockyard.base.ranges import ByteRange
from blockyard.node.drivers.qcow2 import caches
from blockyard.node.drivers.qcow2.options import Qcow2Options
from blockyard.node.drivers.qcow2.ordering import Ledger
from blockyard.node.drivers.qcow2.overlap import checked
from blockyard.node.formats.qcow2 import extensions as ext
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2.geometry import Geometry
from blockyard.node.formats.qcow2.snapshots import Snapshot
from blockyard.node.interface.child import Child
from blockyard.node.interface.driver import BackingReference, DriverContext

if TYPE_CHECKING:
    from blockyard.node.drivers.qcow2.allocation import Space
    from blockyard.node.drivers.qcow2.allocator import Allocator
    from blockyard.node.drivers.qcow2.bitmaps import Bitmaps
    from blockyard.node.drivers.qcow2.compressed import Compressed
    from blockyard.node.drivers.qcow2.encryption import Encryption
    from blockyard.node.drivers.qcow2.guard import Guard
    from blockyard.node.drivers.qcow2.l1 import L1
    from blockyard.node.drivers.qcow2.l2 import L2
    from blockyard.node.drivers.qcow2.mapping import Mapper
    from blockyard.node.drivers.qcow2.refcounts import Refcounts
    from blockyard.node.drivers.qcow2.writeback import Writeback


class Image:
    """Attributes only; built by `opening.open_image`."""

    l1: L1
    l2: L2
    refcounts: Refcounts
    allocator: Allocator
    bitmaps: Bitmaps
    writeback: Writeback
    guard: Guard
    compressed: Compressed
    mapper: Mapper
    space: Space

    def __init__(self, context: DriverContext, options: Qcow2Options, cluster: hdr.HeaderCluster) -> None:
        self.context = context
        self.options = options
        self.file: Child = context.children["file"]
        self.name = self.file.filename or context.node_name
        self.cluster = cluster
        self.geometry = Geometry.of(cluster.header)
        self.has_data_file = bool(cluster.header.incompatible & hdr.DATA_FILE)
        self.data: Child | None = context.children.get("data-file") if self.has_data_file else self.file
        """Where guest data is; None if the image was opened without its data file, to look at it."""
        self.encryption: Encryption | None = None
        """None if the image is not encrypted. Then `data` is a view that enciphers, or None without the key."""
        self.crypto_place: ByteRange | None = None
        """The LUKS header with its key material."""
        self.cache_sizes = caches.sizes(options, self.geometry, cluster.header.size)
        self.looked_at = checked(options.overlap_check, options.overlap_checks)
        """Metadata that is kept from being written over."""
        self.snapshots: list[Snapshot] = []
        self.snapshot_table_bytes = 0
        self.shown: Snapshot | None = None
        """The snapshot that is shown instead of the disk."""
        self.changing = asyncio.Lock()
        """Held while snapshots change."""
        self.saves_state = False
        """A VM state is being saved: snapshots do not change until that is over."""
        self.reading: dict[str, int] = {}
        """Snapshots that are being read beside the disk, by identifier, and by how many."""
        self.awaits_backing = False
        """A backing file is about to come."""
        self.ledger = Ledger()
        self._signalled = False
        """An event has told of a corruption."""
        self.is_open = False
        """It was opened. An image that is refused is not written to, not even to be marked corrupt."""
        self.broken = False
        """Set on corruption: from then on nothing is written."""
        self.needs_repair = False
        """Opened to be repaired: until that is done only `check` may write."""
        self.unlocked = False
        """The first write of this session has announced itself in the header (see `before_write`)."""
        self.written = False
        """It was unlocked at some time."""

    @property
    def header(self) -> hdr.Header:
        return self.cluster.header

    @property
    def has_backing(self) -> bool:
        """Whether an unallocated cluster may read as something else than zeroes, now or once it is attached."""
        attached = self.context.children.get("backing") is not None
        return attached or self.awaits_backing or bool(self.cluster.backing_name)

    @property
    def has_zero_flag(self) -> bool:
        return self.header.version >= 3

    @property
    def is_raw_apart(self) -> bool:
        """Whether the data file alone shows what the guest sees (data-file-raw)."""
        return self.has_data_file and bool(self.header.autoclear & hdr.AUTOCLEAR_DATA_FILE_RAW)

    @property
    def data_file_name(self) -> str:
        """What the header names as data file; empty if nothing."""
        name = ext.find(self.cluster.extensions, ext.DATA_FILE) or b""
        return name.decode("utf-8", "surrogateescape")

    def without_data(self) -> DataFileMissing | ImageLocked:
        """The error for who wants the guest's data of an image that was opened without its data file, or key."""
        if self.encryption is not None and not self.encryption.key:
            return ImageLocked(self.name)
        return DataFileMissing(self.name, self.data_file_name, "the image was opened without it (no_io)")

    async def write_data(self, offset: int, data: bytes | memoryview) -> None:
        """Write guest data at its host place."""
        if self.data is None:
            raise self.without_data()
        if not self.data.write_now(offset, data):
            await self.data.write(offset, data)

    async def flush_data(self) -> None:
        """Guest data in a file of its own is durable afterwards; what is in the image's has its own barriers."""
        if self.has_data_file and self.data is not None:
            await self.data.flush()

    @property
    def is_lazy(self) -> bool:
        """Refcounts on disk may lag behind (invariant 7 of `ordering`)."""
        wanted = self.options.lazy_refcounts
        if wanted is None:
            wanted = bool(self.header.compatible & hdr.LAZY_REFCOUNTS)
        return wanted and self.header.version >= 3

    def backing_reference(self) -> BackingReference | None:
        if not self.cluster.backing_name:
            return None
        form = ext.find(self.cluster.extensions, ext.BACKING_FORMAT) or b""
        return BackingReference(
            self.cluster.backing_name.decode("utf-8", "surrogateescape"), form.decode("utf-8", "replace")
        )

    def update_header(self, **changes: int) -> None:
        """Change the header in memory; the caller writes the group of fields it belongs to."""
        self.cluster = self.cluster.with_header(**changes)

    async def event(self, name: str) -> None:
        """Tell a blkdebug node below, if there is one that listens, what comes next (QEMU's BLKDBG_EVENT)."""
        if self.file.listens:
            await self.file.debug_event(name)

    async def read(self, offset: int, length: int) -> bytearray:
        """Bytes of the file; zeroes past its end."""
        data = bytearray(length)
        view = memoryview(data)
        if not self.file.read_now(offset, view):
            await self.file.read(offset, view)
        return data

    async def write(self, offset: int, data: bytes | memoryview) -> None:
        if not self.file.write_now(offset, data):
            await self.file.write(offset, data)

    async def before_write(self) -> None:
        """Called before anything is changed. Guest writes in place are held back until it was (see `driver`)."""
        if self.unlocked:
            return
        if self.needs_repair:
            raise ImageMarkedCorrupt(self.name)
        if self.broken:
            raise NodeReadOnly(self.context.node_name)
        await self.unlock()

    async def unlock(self) -> None:
        """Announce the first change in the header."""
        if self.context.read_only:
            raise NodeReadOnly(self.context.node_name)
        await self.bitmaps.announce()
        maintained = hdr.AUTOCLEAR_BITMAPS if self.bitmaps.is_valid else 0
        maintained |= hdr.AUTOCLEAR_DATA_FILE_RAW if self.has_data_file else 0
        if self.header.version >= 3 and self.header.autoclear & ~maintained:
            # What we do not maintain must not be believed by those who do (spec, autoclear_features).
            self.update_header(autoclear=self.header.autoclear & maintained)
            await self.write_features()
            await self.file.flush()
        self.unlocked = self.written = True

    async def switch(self, offset: int, data: bytes) -> None:
        """Rewrite a group of header fields (one sector) durably.

        If that fails nobody knows which header the disk has, so nothing may be written any more.
        """
        try:
            await self.write(offset, data)
            await self.file.flush()
        except BaseException:
            self.broken, self.unlocked = True, False
            raise

    async def write_features(self) -> None:
        await self.write(hdr.FEATURES_AT, hdr.encode_features(self.header))

    def wrong(self, what: str, expected: str, found: str, *, offset: int = -1, size: int = -1) -> ImageCorrupt:
        """The error to raise for something that cannot be, after an event the first time (qcow2_signal_corruption:
        the guest can make it happen again and again). Host `offset` and `size` where one is to blame."""
        self._signal(what, expected, found, offset, size, fatal=False)
        return ImageCorrupt(self.name, what, expected, found)

    def _signal(self, what: str, expected: str, found: str, offset: int, size: int, *, fatal: bool) -> None:
        if self._signalled and not fatal:
            return
        self._signalled = True
        detail = {"what": what, "expected": expected, "found": found, "fatal": "true" if fatal else "false"}
        detail |= {"offset": str(offset)} if offset >= 0 else {}
        detail |= {"size": str(size)} if size >= 0 else {}
        self.context.report("corrupted", detail)

    async def corrupt(
        self, what: str, expected: str, found: str, *, offset: int = -1, size: int = -1
    ) -> ImageCorrupt:
        """Mark the image corrupt, go read-only, and give the error to raise. See `wrong`."""
        error = ImageCorrupt(self.name, what, expected, found)
        if self.broken:
            return error
        if self.context.read_only or not self.is_open:
            return self.wrong(what, expected, found, offset=offset, size=size)
        self.broken, self.unlocked = True, False
        self._signal(what, expected, found, offset, size, fatal=True)
        if self.header.version >= 3:
            self.update_header(incompatible=self.header.incompatible | hdr.CORRUPT)
            await self.write_features()
            await self.file.flush()
        return error
