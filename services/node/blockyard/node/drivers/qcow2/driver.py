"""The qcow2 driver: one class that names the parts. What each part does stands in its own module.

The hot path is `lookup`: an L2 table in memory answers a request inside one cluster with two dictionary
accesses and no allocation but the answer.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar, Final, Self

from blockyard.base.errors import OperationUnsupported, ResourceBusy, ResourceNotFound
from blockyard.node.drivers.qcow2 import (
    amending,
    caches,
    checking,
    compacting,
    creating,
    encryption,
    opening,
    rebasing,
    snapshots,
    storing,
    vmstate,
)
from blockyard.node.drivers.qcow2.allocation import Reservation
from blockyard.node.drivers.qcow2.dropping import Dropper
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.options import Qcow2CreateOptions, Qcow2Options
from blockyard.node.drivers.qcow2.resizing import Resizer
from blockyard.node.drivers.qcow2.subcluster_dropping import SubclusterDropper
from blockyard.node.drivers.qcow2.views import View
from blockyard.node.formats.ciphers import VECTOR_UNIT
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import measuring
from blockyard.node.formats.qcow2 import snapshots as records
from blockyard.node.formats.qcow2.tables import COPIED, OFFSET
from blockyard.node.interface.abilities import KeySlotChange
from blockyard.node.interface.bitmaps import ImageBitmap
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.driver import (
    BackingReference,
    CheckReport,
    ChildSlot,
    DriverContext,
    FormatDriver,
    NodeInfo,
)
from blockyard.node.interface.flags import MAY_UNMAP, Preallocation, Role
from blockyard.node.interface.internal_snapshots import SnapshotFacts, SnapshotView, SnapshotWish
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import Allocation, MapKind, Mapping
from blockyard.node.interface.operations import AmendStep, CompactStep, Progress, untold
from blockyard.node.interface.permissions import ALL, CONSISTENT_READ, Permissions

_DATA = MapKind.DATA
_make = tuple.__new__
_BESIDE_A_WRITER: Final = Permissions(CONSISTENT_READ, ALL)
"""Of the file below a snapshot that is shown: what it reads is not written while the snapshot is there."""


class Qcow2(FormatDriver):
    """QEMU's native image format, versions 2 and 3: copy on write, compression, internal snapshots."""

    name: ClassVar[str] = "qcow2"
    Options: ClassVar[type[Qcow2Options]] = Qcow2Options
    CreateOptions: ClassVar[type[Qcow2CreateOptions]] = Qcow2CreateOptions
    AmendOptions: ClassVar[type[amending.Qcow2AmendOptions]] = amending.Qcow2AmendOptions
    compresses: ClassVar[bool] = True
    children: ClassVar[tuple[ChildSlot, ...]] = (
        ChildSlot("file", Role.FILE),
        ChildSlot("backing", Role.BACKING, required=False),
        ChildSlot("data-file", Role.DATA, required=False),
    )

    def __init__(self, image: Image) -> None:
        self.image = image
        geometry = image.geometry
        self.limits = Limits(
            request_alignment=1 if image.encryption is None else VECTOR_UNIT,
            zero_alignment=geometry.subcluster_size,
            discard_alignment=geometry.cluster_size,
            allocation_unit=geometry.cluster_size,
            copy_unit=geometry.subcluster_size,
        )
        self._data = image.data
        self._cleaner = caches.Cleaner(image)
        self._table_bits = geometry.table_bits
        self._bits = geometry.cluster_bits
        self._index_mask = geometry.entries_per_table - 1
        self._within_mask = geometry.cluster_size - 1
        # All bits that a plain entry has only as COPIED: then the rest is an aligned offset.
        self._flags = (1 << 64) - 1 - (OFFSET & ~self._within_mask)
        if geometry.extended or image.data is None or image.header.crypt_method == hdr.CRYPT_AES:
            self._flags = 0  # then no entry passes, and the mapper answers everything
        self._adopt()

    def _adopt(self) -> None:
        """Take up the image's parts, anew after a repair."""
        image = self.image
        self.size = image.header.size
        self._tables = image.l2.tables.items
        self._dropper = (SubclusterDropper if image.geometry.extended else Dropper)(image, image.space)
        self._resizer = Resizer(image, self._dropper)

    @classmethod
    async def open(cls, options: Qcow2Options, context: DriverContext) -> Self:
        driver = cls(await opening.open_image(context, options))
        driver._cleaner.start()
        return driver

    @classmethod
    async def create(cls, options: Qcow2CreateOptions, context: DriverContext) -> None:
        await creating.create(options, context)

    @classmethod
    async def named_files(cls, options: Qcow2Options, context: DriverContext) -> dict[str, str]:
        """See `NamesFiles`: an external data file."""
        if not options.follow_data_file or context.children.get("data-file") is not None:
            return {}
        name = opening.data_file_named_in(await opening.read_header(context))
        return {"data-file": name} if name else {}

    async def close(self) -> None:
        await self._cleaner.stop()
        image = self.image
        if image.context.read_only or image.broken or not image.written:
            return
        await image.writeback.retire()

    # --- where bytes are ---------------------------------------------------------------------------------

    def lookup(self, offset: int, length: int) -> Mapping | None:
        table = self._tables.get(offset >> self._table_bits)
        if table is None:
            return self.image.mapper.without_table(offset, length)
        table.used = True
        entry = table.view[(offset >> self._bits) & self._index_mask]
        within = offset & self._within_mask
        if entry & self._flags == COPIED and within + length <= self._within_mask + 1 and self.image.unlocked:
            # A named tuple's own constructor is a Python function and would be a third of the look-up.
            return _make(Mapping, (_DATA, length, self._data, (entry ^ COPIED) + within, True))
        return self.image.mapper.answer(table, offset, length, self.image.unlocked)

    async def map(self, offset: int, length: int) -> Mapping:
        answer = self.lookup(offset, length)
        if answer is None:
            table = await self.image.l2.get(offset >> self._table_bits)
            answer = self.image.mapper.answer(table, offset, length, self.image.unlocked)
        return answer

    # --- room for writes ---------------------------------------------------------------------------------

    async def allocate(self, offset: int, length: int, flags: int) -> Allocation:
        return await self.image.space.allocate(offset, length)

    async def commit(self, allocation: Allocation) -> None:
        assert isinstance(allocation.token, Reservation)
        await self.image.space.commit(allocation.token)

    async def abandon(self, allocation: Allocation) -> None:
        assert isinstance(allocation.token, Reservation)
        await self.image.space.abandon(allocation.token)

    async def read_encoded(self, offset: int, into: memoryview) -> None:
        await encryption.read_encoded(self.image, offset, into)

    async def write_compressed(self, offset: int, data: Buffer) -> bool:
        if self.image.encryption is not None:  # compressed clusters are not enciphered
            return False
        await self.image.compressed.write(offset, data)
        return True

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        return await self._dropper.zero(offset, length, flags)

    async def discard(self, offset: int, length: int) -> None:
        await self._dropper.discard(offset, length)

    # --- durability --------------------------------------------------------------------------------------

    async def flush(self) -> None:
        await self.image.writeback.flush()

    async def flush_to_os(self) -> None:
        await self.image.writeback.write_out()

    # --- size, backing reference, health -----------------------------------------------------------------

    async def truncate(self, size: int, preallocation: Preallocation, exact: bool) -> None:
        try:
            await self._resizer.resize(size, preallocation)
        finally:
            self.size = self.image.header.size

    def await_backing(self, awaited: bool) -> None:
        self.image.awaits_backing = awaited

    async def change_backing(self, reference: BackingReference | None) -> None:
        await rebasing.change_backing(self.image, reference)

    def amendment(self, options: amending.Qcow2AmendOptions, force: bool) -> list[AmendStep]:
        self._refuse_while_saving()
        return amending.plan(self.image, options, self._reload, force)

    async def _reload(self) -> None:
        """Take up what is in the file now: its geometry or version is another one."""
        try:
            await opening.assemble(self.image)
        except BaseException:
            self.image.broken, self.image.unlocked = True, False
            raise
        self._adopt()

    async def reclaim(self) -> int:
        compacting.check(self.image)
        async with self.image.changing:
            found = await self._dropper.reclaim()
            await self.image.writeback.settle()
            return found * self.image.geometry.cluster_size

    async def compact(self) -> CompactStep:
        self._refuse_while_saving()
        async with self.image.changing:
            done = await compacting.step(self.image)
            await self._resizer.trim_file()
            return done

    async def change_keys(self, change: KeySlotChange) -> None:
        await encryption.change_keys(self.image, change)

    async def make_empty(self) -> None:
        async with self.image.changing:
            await self.image.event("empty_image_prepare")
            if self.image.is_raw_apart:
                await self._dropper.zero(0, self.size, MAY_UNMAP)
                await self.flush()
                return
            await self._dropper.forget_tables(0)
            await self.image.writeback.settle()
            await self._resizer.trim_file()

    async def check(self, fix_leaks: bool, fix_errors: bool, progress: Progress = untold) -> CheckReport:
        if self.image.shown is not None:
            node_name = self.image.context.node_name
            raise OperationUnsupported(node_name, "qcow2", "check an image through one of its snapshots")
        async with self.image.changing:
            return await checking.check(self.image, fix_leaks, fix_errors, self._reload, progress)

    # --- snapshots and the VM state ----------------------------------------------------------------------

    @property
    def shown_snapshot(self) -> str:
        shown = self.image.shown
        return shown.identifier if shown is not None else ""

    def snapshots(self) -> list[SnapshotFacts]:
        return [self._facts(item) for item in self.image.snapshots]

    def find_snapshot(self, identifier: str, name: str) -> SnapshotFacts:
        found = records.find_exactly(self.image.snapshots, identifier, name)
        if found is None:
            raise ResourceNotFound("snapshot", " ".join(part for part in (identifier, name) if part))
        return self._facts(found)

    def snapshot_named(self, wanted: str) -> SnapshotFacts:
        found = records.find(self.image.snapshots, wanted)
        if found is None:
            raise ResourceNotFound("snapshot", wanted)
        return self._facts(found)

    async def create_snapshot(self, wish: SnapshotWish) -> SnapshotFacts:
        self._refuse_while_saving()
        async with self.image.changing:
            return self._facts(await snapshots.create(self.image, wish))

    async def revert_to_snapshot(self, identifier: str) -> None:
        self._refuse_while_saving()
        async with self.image.changing:
            try:
                await snapshots.revert(self.image, self._record(identifier))
            finally:
                self.size = self.image.header.size

    async def delete_snapshot(self, identifier: str) -> None:
        self._refuse_while_saving()
        async with self.image.changing:
            record = self._record(identifier)
            if identifier in self.image.reading:
                raise ResourceBusy("snapshot", record.name, "a call that reads it")
            await snapshots.delete(self.image, record)

    async def confirm_shown(self) -> None:
        await opening.confirm(self.image)

    async def save_vm_state(self, pieces: AsyncIterator[bytes | memoryview]) -> int:
        self._refuse_while_saving()
        if self.image.changing.locked():
            raise ResourceBusy("VM state of node", self.image.context.node_name, "a call that changes snapshots")
        self.image.saves_state = True
        try:
            return await vmstate.save(self.image, self._resizer, self._dropper, pieces)
        finally:
            self.image.saves_state = False

    def _refuse_while_saving(self) -> None:
        if self.image.saves_state:
            raise ResourceBusy("VM state of node", self.image.context.node_name, "a call that saves it")

    async def load_vm_state(self, identifier: str, length: int) -> AsyncIterator[bytes]:
        if not identifier:
            async for piece in vmstate.load(self.image, length):
                yield piece
            return
        async with self._read(identifier) as (image, record):
            async for piece in vmstate.load(image, record.vm_state_bytes):
                yield piece

    @asynccontextmanager
    async def view(self, identifier: str) -> AsyncIterator[SnapshotView]:
        if not identifier:
            yield View(self.image)
            return
        async with self._read(identifier) as (image, _):
            yield View.beside(image)

    @asynccontextmanager
    async def _read(self, identifier: str) -> AsyncIterator[tuple[Image, records.Snapshot]]:
        """The image as a snapshot has it, which is kept meanwhile."""
        record = self._record(identifier)
        reading = self.image.reading
        reading[identifier] = reading.get(identifier, 0) + 1
        try:
            yield await opening.view_of(self.image, record), record
        finally:
            reading[identifier] -= 1
            if not reading[identifier]:
                del reading[identifier]

    def _record(self, identifier: str) -> records.Snapshot:
        found = records.find_exactly(self.image.snapshots, identifier, "")
        if found is None:
            raise ResourceNotFound("snapshot", identifier)
        return found

    def _facts(self, item: records.Snapshot) -> SnapshotFacts:
        size = self.image.header.size if item.disk_size < 0 else item.disk_size
        return SnapshotFacts(
            item.identifier,
            item.name,
            item.date_s * 10**9 + item.date_ns,
            item.vm_clock_ns,
            item.vm_state_bytes,
            size,
            item.icount,
        )

    # --- dirty bitmaps -----------------------------------------------------------------------------------

    @property
    def stores_bitmaps(self) -> bool:
        return self.image.header.version >= 3 and self.image.shown is None

    def take_bitmaps(self) -> list[ImageBitmap]:
        return self.image.bitmaps.take()

    def check_can_store(self, names: Sequence[str], granularity: int) -> None:
        storing.check_can_store(self.image, names, granularity)

    async def use_bitmaps(self) -> None:
        await self.image.before_write()

    async def store_bitmaps(self, bitmaps: Sequence[ImageBitmap]) -> None:
        async with self.image.changing:
            await storing.store(self.image, bitmaps)

    async def remove_bitmap(self, name: str) -> None:
        async with self.image.changing:
            await storing.remove(self.image, name)

    # --- permissions -------------------------------------------------------------------------------------

    @classmethod
    def opening_permissions(cls, role: Role, options: Qcow2Options, *, writable: bool) -> Permissions:
        if options.snapshot and role is Role.FILE:
            return _BESIDE_A_WRITER
        return super().opening_permissions(role, options, writable=writable)

    def child_permissions(self, child: str, role: Role, above: Permissions, *, writable: bool) -> Permissions:
        if self.image.shown is not None and role is Role.FILE:
            return _BESIDE_A_WRITER
        return super().child_permissions(child, role, above, writable=writable)

    # --- images that are not open ------------------------------------------------------------------------

    @classmethod
    def probe(cls, head: bytes) -> int:
        return measuring.looks_like(head)

    @classmethod
    def measure(cls, options: Qcow2CreateOptions, data_bytes: int) -> tuple[int, int]:
        creating.check(options)
        words = 2 if options.extended_l2 else 1
        extra = creating.crypto_bytes(options)
        now, whole = measuring.file_bytes(
            options.size, options.cluster_size, options.refcount_bits, data_bytes, words
        )
        return now + extra, whole + extra

    @classmethod
    def measure_unit(cls, options: Qcow2CreateOptions) -> int:
        creating.check(options)
        return options.cluster_size

    # --- facts -------------------------------------------------------------------------------------------

    def backing(self) -> BackingReference | None:
        return self.image.backing_reference()

    async def info(self) -> NodeInfo:
        image, header = self.image, self.image.header
        reference, apart = self.backing(), image.has_data_file
        return NodeInfo(
            cluster_size=header.cluster_size,
            subcluster_size=image.geometry.subcluster_size if image.geometry.extended else 0,
            encrypted=image.encryption is not None,
            is_dirty=bool(header.incompatible & hdr.DIRTY),
            is_corrupt=bool(header.incompatible & hdr.CORRUPT),
            vm_state_offset=vmstate.start_of(image),
            has_zero_init=not image.has_backing,
            filename=image.name,
            backing_filename=reference.filename if reference else "",
            backing_format=reference.format if reference else "",
            specific={
                "compat": "1.1" if header.version >= 3 else "0.10",
                "compression-type": hdr.COMPRESSION_NAMES[header.compression_type],
                "lazy-refcounts": bool(header.compatible & hdr.LAZY_REFCOUNTS),
                "refcount-bits": image.geometry.refcount_bits,
                "corrupt": bool(header.incompatible & hdr.CORRUPT),
                "extended-l2": image.geometry.extended,
                **caches.statistics(image),
                **(image.encryption.facts() if image.encryption is not None else {}),
                **({"data-file": image.data_file_name, "data-file-raw": image.is_raw_apart} if apart else {}),
            },
        )
