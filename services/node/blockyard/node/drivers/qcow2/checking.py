"""Comparing refcounts and COPIED flags with what is really referenced; repairing what can be.

Counts follow QEMU's check: a cluster whose refcount is too high is a leak, one whose refcount is too low or
an entry that cannot be is a corruption. Leaks are repaired in place. Corruptions are repaired by writing the
whole refcount structure anew behind the end of the file and switching the header to it (one sector), so a
crash inside a repair leaves the image as it was, or repaired.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from blockyard.base.errors import NodeReadOnly
from blockyard.node.drivers.qcow2.counting import Counts, References, note
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import Kind
from blockyard.node.drivers.qcow2.rebuilding import rebuild
from blockyard.node.drivers.qcow2.unbroken import unbroken
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import refcounts as codec
from blockyard.node.formats.qcow2 import tables
from blockyard.node.interface.driver import CheckReport
from blockyard.node.interface.operations import Progress, untold

_MAX_NAMED: Final = 20
"""Mismatches of one refcount block told in words."""


async def check(
    image: Image,
    fix_leaks: bool,
    fix_errors: bool,
    reload: Callable[[], Awaitable[None]],
    progress: Progress = untold,
) -> CheckReport:
    """Compare, and repair as asked. The caller keeps guest requests away.

    `reload` takes up the image's parts after a repair of errors: what memory has of refcounts and L2 is stale then.
    Looking can be broken off at any time, repairing of errors cannot.
    """
    if (fix_leaks or fix_errors) and image.context.read_only:
        raise NodeReadOnly(image.context.node_name)
    if image.unlocked:
        await image.writeback.settle()
    report = await compare(image, progress)
    if fix_errors and (report.corruptions or image.header.incompatible & hdr.DIRTY):
        await unbroken(_repair(image, report, reload))
    elif fix_leaks and report.leaks:
        await image.unlock()
        await _fix_leaks(image, report)
    if fix_errors and not report.corruptions and not report.check_errors:
        await _clear_marks(image)
    elif report.corruptions and image.needs_repair:
        image.unlocked = False
    return report


async def compare(image: Image, progress: Progress = untold) -> CheckReport:
    """Look, change nothing."""
    report = CheckReport(total_clusters=image.geometry.clusters(image.header.size))
    async for first, counts in References(image, progress=progress).windows(report):
        async for start, stored in _stored(image, first, len(counts), report):
            _compare_block(start, stored, counts[start - first : start - first + len(stored)], report, image)
    await _check_copied(image, report, progress)
    return report


async def _stored(
    image: Image, first: int, count: int, report: CheckReport
) -> AsyncIterator[tuple[int, codec.Counters]]:
    """(First cluster, refcounts) of each block's part of a window; zeroes where there is no usable block."""
    refcounts = image.refcounts
    for index, low, high in refcounts.pieces(first, count):
        values = await _block_values(image, index)
        if values is None:
            values = np.zeros(refcounts.block_entries, np.uint8)
        yield index * refcounts.block_entries + low, values[low:high]


async def _block_values(image: Image, index: int) -> codec.Counters | None:
    """A block as it is on disk; None if there is none in a place where one may be."""
    offset, size = image.refcounts.block_offset(index), image.geometry.cluster_size
    if not offset or offset % size or offset >= image.file.size:
        return None
    block = image.refcounts.blocks.items.get(index)
    if block is not None:
        return block.values
    return codec.decode(await image.read(offset, size), image.geometry.refcount_order)


def _compare_block(start: int, stored: codec.Counters, counts: Counts, report: CheckReport, image: Image) -> None:
    wide = counts.astype(np.uint64)
    stored = stored.astype(np.uint64)
    used = np.flatnonzero(stored | wide)
    if len(used):
        end = (start + int(used[-1]) + 1) << image.geometry.cluster_bits
        report.image_end_offset = max(report.image_end_offset, end)
    leaks, errors = stored > wide, stored < wide
    report.leaks += int(leaks.sum())
    report.corruptions += int(errors.sum())
    for at in np.flatnonzero(leaks | errors)[:_MAX_NAMED].tolist():
        kind = "leaked" if leaks[at] else "corrupt: too few references counted for"
        note(report, f"{kind} cluster {start + at}: refcount {int(stored[at])}, references {int(wide[at])}")


# --- COPIED flags ----------------------------------------------------------------------------------------


async def _refcounts_of(image: Image, clusters: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Stored refcounts of arbitrary clusters."""
    per = image.refcounts.block_entries
    result = np.zeros(len(clusters), np.uint64)
    indexes = clusters // per
    for index in np.unique(indexes).tolist():
        values = await _block_values(image, index)
        if values is not None:
            here = indexes == index
            result[here] = values[clusters[here] - index * per]
    return result


async def _wrong_copied(image: Image, entries: tables.Table) -> NDArray[np.int64]:
    """Indexes of entries whose COPIED flag disagrees with the refcount."""
    size, end = np.uint64(image.geometry.cluster_size - 1), np.uint64(image.file.size)
    places = entries & np.uint64(tables.OFFSET)
    sound = (
        ((entries & np.uint64(tables.COMPRESSED)) == 0) & (places != 0) & ((places & size) == 0) & (places < end)
    )
    found = np.flatnonzero(sound)
    clusters = (places[found] >> np.uint64(image.geometry.cluster_bits)).astype(np.int64)
    counts = await _refcounts_of(image, clusters)
    copied = (entries[found] & np.uint64(tables.COPIED)) != 0
    wrong: NDArray[np.int64] = found[copied != (counts == 1)]
    return wrong


async def _wrong_in_l2(image: Image, words: tables.Table) -> NDArray[np.int64]:
    """The same of an L2 table. In an external data file everything is the guest's alone (spec, external data)."""
    entries = words[:: image.geometry.entry_words]
    if not image.has_data_file:
        return await _wrong_copied(image, entries)
    plain = (entries & np.uint64(tables.COMPRESSED)) == 0
    wrong: NDArray[np.int64] = np.flatnonzero(
        plain & ((entries & np.uint64(tables.OFFSET)) != 0) & ((entries & np.uint64(tables.COPIED)) == 0)
    )
    return wrong


async def _check_copied(image: Image, report: CheckReport, progress: Progress) -> None:
    wrong = await _wrong_copied(image, image.l1.entries)
    report.corruptions += len(wrong)
    for key in wrong[:_MAX_NAMED].tolist():
        note(report, f"L1 entry {key}: COPIED flag disagrees with the refcount of its L2 table")
    async for offset, key, words in _active_tables(image):
        progress("flags", key, len(image.l1))
        wrong = await _wrong_in_l2(image, words)
        report.corruptions += len(wrong)
        await asyncio.sleep(0)
        if len(wrong):
            note(report, f"L2 table at {offset:#x}: {len(wrong)} COPIED flags disagree with refcounts")


async def _active_tables(image: Image) -> AsyncIterator[tuple[int, int, tables.Table]]:
    """(Offset, L1 index, words) of each distinct L2 table of the active L1 that lies in the file."""
    size = image.geometry.cluster_size
    offsets = image.l1.entries & np.uint64(tables.OFFSET)
    _, firsts = np.unique(offsets, return_index=True)
    for key in np.sort(firsts).tolist():
        offset = int(offsets[key])
        if offset and offset % size == 0 and offset < image.file.size:
            yield offset, key, tables.decode(await image.read(offset, size))


# --- repair ----------------------------------------------------------------------------------------------


async def _fix_leaks(image: Image, report: CheckReport) -> None:
    """Lower refcounts in place; a crash on the way leaves fewer leaks."""
    refcounts = image.refcounts
    async for first, counts in References(image).windows(CheckReport()):
        for index, low, high in refcounts.pieces(first, len(counts)):
            block = await refcounts.usable_block(index)
            if block is None:
                continue
            start = index * refcounts.block_entries + low - first
            wanted = counts[start : start + high - low].astype(np.uint64)
            stored = block.values[low:high]
            leaks = stored.astype(np.uint64) > wanted
            if leaks.any():
                freed = np.flatnonzero(leaks & (wanted == 0)) + first + start
                block.values[low:high] = np.where(leaks, wanted, stored.astype(np.uint64)).astype(stored.dtype)
                image.ledger.mark(Kind.BLOCK, index, low, high)
                image.allocator.freed(freed)
                report.leaks_fixed += int(leaks.sum())
            if image.writeback.is_due:
                await image.writeback.write_back()
    report.leaks -= report.leaks_fixed
    await image.writeback.flush()


async def _repair(image: Image, report: CheckReport, reload: Callable[[], Awaitable[None]]) -> None:
    """New refcounts, then flags that agree with them."""
    image.broken = False
    await image.unlock()
    before = (report.corruptions, report.leaks)
    await rebuild(image, report)
    await _fix_copied(image)
    after = await compare(image)
    report.corruptions, report.leaks = after.corruptions, after.leaks
    report.corruptions_fixed = max(0, before[0] - after.corruptions)
    report.leaks_fixed = max(0, before[1] - after.leaks)
    report.image_end_offset = after.image_end_offset
    await reload()


async def _fix_copied(image: Image) -> None:
    """Set and clear COPIED by the (durable) refcounts."""
    flip = np.uint64(tables.COPIED)
    wrong = await _wrong_copied(image, image.l1.entries)
    for key in wrong.tolist():
        image.l1.set(key, image.l1.view[key] ^ tables.COPIED)
    for number in sorted(image.ledger.marks[Kind.L1]):
        at, data = image.l1.encode_sector(number)
        await image.write(image.header.l1_table_offset + at, data)
    image.ledger.marks[Kind.L1].clear()
    async for offset, _, words in _active_tables(image):
        wrong = await _wrong_in_l2(image, words)
        if len(wrong):
            words[wrong * image.geometry.entry_words] ^= flip
            await image.write(offset, tables.encode(words))
    image.l2.tables.items.clear()
    await image.file.flush()


async def _clear_marks(image: Image) -> None:
    """The image is sound: say so in its header."""
    image.needs_repair = False
    marks = hdr.DIRTY | hdr.CORRUPT
    if image.header.incompatible & marks:
        image.update_header(incompatible=image.header.incompatible & ~marks)
        await image.switch(hdr.FEATURES_AT, hdr.encode_features(image.header))
