"""Changing what an image's header fixes: version, width of refcounts, lazy refcounts, backing reference, size.

Each option is a step that leaves a whole image; the order is QEMU's (qcow2_amend_options): up to version 3 first,
down to version 2 last, so that what one version alone knows is changed while the image has it.

To add an option: a field of `Qcow2AmendOptions`, its rule in `_check`, its step in `plan`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from blockyard.base.errors import InvalidArgument, OperationUnsupported, ResourceBusy
from blockyard.base.ranges import is_power_of_two
from blockyard.node.drivers._luks import slots
from blockyard.node.drivers._luks.options import KeyAmendment
from blockyard.node.drivers.qcow2 import encryption, flattening, rebasing, widths
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.options import VERSIONS
from blockyard.node.drivers.qcow2.unbroken import unbroken
from blockyard.node.formats.qcow2 import extensions as ext
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.interface.driver import BackingReference
from blockyard.node.interface.operations import AmendStep, Progress

_V2_REFCOUNT_BITS: Final = 16
_MAX_V2_STATE: Final = (1 << 32) - 1
"""A version 2 record has 32 bits for the size of a VM state (spec, Snapshots)."""


Reload = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Qcow2AmendOptions:
    """Options of an image that can be changed. None: as it is."""

    compat: str | None = None
    """v2 (0.10) or v3 (1.1)."""
    lazy_refcounts: bool | None = None
    """Postpone refcount updates; version 3 only."""
    refcount_bits: int | None = None
    """Width of refcounts, 1 to 64; other than 16 in version 3 only."""
    backing_file: str | None = None
    """The backing file as the header names it; empty for none. No data is copied."""
    backing_fmt: str | None = None
    """Its format."""
    size: int | None = None
    """Guest bytes, a multiple of 512."""
    data_file: str | None = None
    """Another name of the external data file, of an image that has one; its content is not touched."""
    data_file_raw: bool | None = None
    """False: the data file need not show the disk by itself any more. Never the other way round."""
    encrypt: KeyAmendment | None = None
    """Key slots of LUKS to change, while guests go on."""


def plan(image: Image, options: Qcow2AmendOptions, reload: Reload, force: bool = False) -> list[AmendStep]:
    """The steps. `reload` takes up the image's parts anew after its geometry or version changed."""
    _check(image, options)
    version = _wanted_version(image, options)
    steps: list[AmendStep] = []

    async def amend_width(progress: Progress) -> None:
        assert options.refcount_bits is not None
        await widths.change(image, options.refcount_bits, reload, progress)

    async def upgrade(progress: Progress) -> None:
        await _upgrade(image, reload)

    async def downgrade(progress: Progress) -> None:
        await _downgrade(image, reload, progress)

    async def change_backing(progress: Progress) -> None:
        await rebasing.change_backing(image, wanted_reference(image, options))

    async def change_laziness(progress: Progress) -> None:
        await _set_lazy(image, bool(options.lazy_refcounts))

    async def change_data_file(progress: Progress) -> None:
        assert options.data_file is not None
        await rebasing.change_data_file(image, options.data_file)

    async def give_up_raw(progress: Progress) -> None:
        await rebasing.give_up_raw(image)

    if version > image.header.version:
        steps.append(AmendStep("upgrade", upgrade))
    if options.refcount_bits not in (None, image.geometry.refcount_bits):
        steps.append(AmendStep("refcount_bits", amend_width))
    if options.backing_file is not None or options.backing_fmt is not None:
        steps.append(AmendStep("backing_file", change_backing))
    if options.data_file is not None:
        steps.append(AmendStep("data_file", change_data_file))
    if options.data_file_raw is False and image.is_raw_apart:
        steps.append(AmendStep("data_file_raw", give_up_raw))
    is_lazy = bool(image.header.compatible & hdr.LAZY_REFCOUNTS)
    if options.lazy_refcounts not in (None, is_lazy):
        steps.append(AmendStep("lazy_refcounts", change_laziness))
    if options.size not in (None, image.header.size):
        assert options.size is not None
        steps.append(AmendStep("size", size=options.size))
    if version < image.header.version:
        steps.append(AmendStep("downgrade", downgrade))
    alone = [replace(step, run=_alone(image, step.run)) if step.run is not None else step for step in steps]
    if options.encrypt is not None:
        alone.append(_change_of_keys(image, options.encrypt, force))
    return alone


def _alone(image: Image, run: Callable[[Progress], Awaitable[None]]) -> Callable[[Progress], Awaitable[None]]:
    """The step, while no snapshot is taken or read."""

    async def locked(progress: Progress) -> None:
        async with image.changing:
            if image.reading:
                raise ResourceBusy("snapshot", ", ".join(image.reading), "a call that reads it")
            await run(progress)

    return locked


def _change_of_keys(image: Image, wanted: KeyAmendment, force: bool) -> AmendStep:
    change, header = wanted.change(force), encryption.luks_of(image).header
    assert header is not None
    slots.check(header.volume, change)

    async def run(progress: Progress) -> None:
        await encryption.change_keys(image, change)

    return AmendStep("encrypt", run, online=True)


def wanted_reference(image: Image, options: Qcow2AmendOptions) -> BackingReference | None:
    """What the header shall name. Raises InvalidArgument for half a reference."""
    old = image.backing_reference()
    name = options.backing_file if options.backing_file is not None else (old.filename if old else "")
    if not name:
        if options.backing_fmt:
            raise InvalidArgument("backing_fmt", "a backing_file with it", options.backing_fmt)
        return None
    form = options.backing_fmt or (old.format if old and old.filename == name else "")
    if not form:
        raise InvalidArgument("backing_fmt", "the format of backing_file", "nothing")
    return BackingReference(name, form)


def _wanted_version(image: Image, options: Qcow2AmendOptions) -> int:
    return image.header.version if options.compat is None else VERSIONS[options.compat]


def _check(image: Image, options: Qcow2AmendOptions) -> None:
    if options.compat is not None and options.compat not in VERSIONS:
        raise InvalidArgument("compat", "one of " + ", ".join(VERSIONS), options.compat)
    version = _wanted_version(image, options)
    bits = options.refcount_bits
    if bits is not None and not (is_power_of_two(bits) and bits <= 64):
        raise InvalidArgument("refcount_bits", "a power of two from 1 to 64", str(bits))
    after = bits or image.geometry.refcount_bits
    if version < 3 and after != _V2_REFCOUNT_BITS:
        raise InvalidArgument("refcount_bits", f"{_V2_REFCOUNT_BITS} in a version 2 image", str(after))
    if version < 3 and options.lazy_refcounts:
        raise InvalidArgument("lazy_refcounts", "false in a version 2 image", "true")
    if options.backing_file is not None or options.backing_fmt is not None:
        rebasing.rewritten(image.cluster, wanted_reference(image, options))
    _check_data_file(image, options)
    if version < image.header.version:
        _check_downgrade(image, options)


def _check_data_file(image: Image, options: Qcow2AmendOptions) -> None:
    """qcow2_amend_options: the flag can only be given up, for nobody knows what the file held before."""
    if options.data_file is not None:
        if not image.has_data_file:
            raise InvalidArgument("data_file", "none: the image keeps its data in itself", options.data_file)
        rebasing.with_data_file(image.cluster, options.data_file)
    if options.data_file_raw and not image.is_raw_apart:
        raise InvalidArgument("data_file_raw", "false, as it is", "true")


def _check_downgrade(image: Image, options: Qcow2AmendOptions) -> None:
    """What version 2 cannot say (qcow2_downgrade)."""
    header = image.header
    size = header.size if options.size is None else options.size
    other = header.incompatible & ~(hdr.DIRTY | hdr.CORRUPT)
    records = image.snapshots
    rules = (
        (not other & hdr.COMPRESSION, "compression other than zlib"),
        (not header.crypt_method, "encryption"),
        (not other & ~hdr.COMPRESSION, "an incompatible feature"),
        (ext.find(image.cluster.extensions, ext.BITMAPS) is None, "persistent bitmaps"),
        (not image.options.lazy_refcounts, "a node that was opened with lazy_refcounts"),
        (all(item.disk_size in (-1, size) for item in records), "snapshots of another disk size"),
        (all(item.vm_state_bytes <= _MAX_V2_STATE for item in records), "VM states of 4 GiB or more"),
    )
    for holds, what in rules:
        if not holds:
            raise OperationUnsupported(image.context.node_name, "qcow2", f"become version 2 with {what}")


# --- the steps -------------------------------------------------------------------------------------------


async def _upgrade(image: Image, reload: Reload) -> None:
    await image.before_write()
    await image.writeback.settle()
    await flattening.complete_snapshot_records(image)
    header = replace(
        image.header, version=3, header_length=hdr.LONG_LENGTH, refcount_order=4, unknown_fields=bytes(7)
    )
    names = ext.encode_feature_names(hdr.FEATURE_NAMES)
    records = ext.replaced(image.cluster.extensions, ext.FEATURE_NAMES, None)
    records = (*records, ext.Extension(ext.FEATURE_NAMES, names))
    changed = rebasing.laid_out(image.cluster, header, records, image.cluster.backing_name)
    await unbroken(_take_over(image, changed, reload))


async def _downgrade(image: Image, reload: Reload, progress: Progress) -> None:
    await image.before_write()
    await flattening.remove_zero_flags(image, progress)
    await image.writeback.retire()
    header = replace(
        image.header, version=2, header_length=hdr.V2_LENGTH, unknown_fields=b"",
        incompatible=0, compatible=0, autoclear=0, compression_type=hdr.ZLIB,
    )  # fmt: skip
    records = ext.replaced(image.cluster.extensions, ext.FEATURE_NAMES, None)
    changed = rebasing.laid_out(image.cluster, header, records, image.cluster.backing_name)
    await unbroken(_take_over(image, changed, reload))


async def _take_over(image: Image, changed: hdr.HeaderCluster, reload: Reload) -> None:
    """Not to be broken off. What is in memory only would be lost, so there is nothing."""
    assert image.ledger.is_empty
    await rebasing.replace_header(image, changed)
    await reload()


async def _set_lazy(image: Image, lazy: bool) -> None:
    """Off: refcounts are exact, and the dirty bit away, before the header says so."""
    await image.before_write()
    await image.writeback.retire()

    async def switch() -> None:
        async with image.writeback.lock:
            bit = hdr.LAZY_REFCOUNTS
            compatible = image.header.compatible | bit if lazy else image.header.compatible & ~bit
            image.update_header(compatible=compatible)
            await image.switch(hdr.FEATURES_AT, hdr.encode_features(image.header))

    await unbroken(switch())
