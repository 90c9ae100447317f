"""The qcow2 driver: one class that names the parts. What each part does stands in its own module.

The hot path is `lookup`: an L2 table in memory answers a request inside one cluster with two dictionary
accesses and no allocation but the answer.
"""

from typing import ClassVar, Self

from blockyard.node.drivers.qcow2 import checking, creating, opening, rebasing
from blockyard.node.drivers.qcow2.allocation import Reservation
from blockyard.node.drivers.qcow2.dropping import Dropper
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.options import Qcow2CreateOptions, Qcow2Options
from blockyard.node.drivers.qcow2.resizing import Resizer
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import measuring
from blockyard.node.formats.qcow2.tables import COPIED, OFFSET
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.driver import (
    BackingReference,
    CheckReport,
    ChildSlot,
    DriverContext,
    FormatDriver,
    NodeInfo,
)
from blockyard.node.interface.flags import Preallocation, Role
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import Allocation, MapKind, Mapping

_DATA = MapKind.DATA
_make = tuple.__new__


class Qcow2(FormatDriver):
    """QEMU's native image format, versions 2 and 3: copy on write, compression, internal snapshots kept."""

    name: ClassVar[str] = "qcow2"
    Options: ClassVar[type[Qcow2Options]] = Qcow2Options
    CreateOptions: ClassVar[type[Qcow2CreateOptions]] = Qcow2CreateOptions
    compresses: ClassVar[bool] = True
    children: ClassVar[tuple[ChildSlot, ...]] = (
        ChildSlot("file", Role.FILE),
        ChildSlot("backing", Role.BACKING, required=False),
    )

    def __init__(self, image: Image) -> None:
        self.image = image
        geometry = image.geometry
        self.limits = Limits(
            zero_alignment=geometry.cluster_size,
            discard_alignment=geometry.cluster_size,
            allocation_unit=geometry.cluster_size,
        )
        self._file = image.file
        self._table_bits = geometry.table_bits
        self._bits = geometry.cluster_bits
        self._index_mask = geometry.entries_per_table - 1
        self._within_mask = geometry.cluster_size - 1
        # All bits that a plain entry has only as COPIED: then the rest is an aligned offset.
        self._flags = (1 << 64) - 1 - (OFFSET & ~self._within_mask)
        self._adopt()

    def _adopt(self) -> None:
        """Take up the image's parts, anew after a repair."""
        image = self.image
        self.size = image.header.size
        self._tables = image.l2.tables.items
        self._dropper = Dropper(image, image.space)
        self._resizer = Resizer(image, self._dropper)

    @classmethod
    async def open(cls, options: Qcow2Options, context: DriverContext) -> Self:
        return cls(await opening.open_image(context, options))

    @classmethod
    async def create(cls, options: Qcow2CreateOptions, context: DriverContext) -> None:
        await creating.create(options, context)

    async def close(self) -> None:
        image = self.image
        if image.context.read_only or image.broken or not image.unlocked:
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
            return _make(Mapping, (_DATA, length, self._file, (entry ^ COPIED) + within, True))
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
        await self.image.compressed.read(offset, into)

    async def write_compressed(self, offset: int, data: Buffer) -> bool:
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

    async def change_backing(self, reference: BackingReference | None) -> None:
        await rebasing.change_backing(self.image, reference)

    async def make_empty(self) -> None:
        await self.image.event("empty_image_prepare")
        await self._dropper.forget_tables(0)
        await self.image.writeback.settle()
        await self._resizer.trim_file()

    async def check(self, fix_leaks: bool, fix_errors: bool) -> CheckReport:
        report = await checking.check(self.image, fix_leaks, fix_errors)
        if fix_errors:
            await opening.assemble(self.image)
            self._adopt()
        return report

    # --- images that are not open ------------------------------------------------------------------------

    @classmethod
    def probe(cls, head: bytes) -> int:
        return measuring.looks_like(head)

    @classmethod
    def measure(cls, options: Qcow2CreateOptions, data_bytes: int) -> tuple[int, int]:
        creating.check(options)
        return measuring.file_bytes(options.size, options.cluster_size, options.refcount_bits, data_bytes)

    @classmethod
    def measure_unit(cls, options: Qcow2CreateOptions) -> int:
        creating.check(options)
        return options.cluster_size

    # --- facts -------------------------------------------------------------------------------------------

    def backing(self) -> BackingReference | None:
        return self.image.backing_reference()

    async def info(self) -> NodeInfo:
        image, header = self.image, self.image.header
        reference = self.backing()
        return NodeInfo(
            cluster_size=header.cluster_size,
            is_dirty=bool(header.incompatible & hdr.DIRTY),
            is_corrupt=bool(header.incompatible & hdr.CORRUPT),
            vm_state_offset=len(image.l1) << image.geometry.table_bits,
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
                "extended-l2": False,
            },
        )
