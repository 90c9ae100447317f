"""Comparing refcounts and COPIED flags with what is really referenced; repairing what can be.

Counts follow QEMU's check: a cluster whose refcount is too high is a leak, one whose refcount is too low or
an entry that cannot be is a corruption. Leaks are repaired in place. Corruptions are repaired by writing the
whole refcount structure anew behind the end of the file and switching the header to it (one sector), so a
crash inside a repair leaves the image as it was, or repaired.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from blockyard.base.errors import NodeReadOnly
from blockyard.node.drivers.qcow2.counting import References, faults_of_l1, is_zero, note, pieces
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import Kind
from blockyard.node.drivers.qcow2.rebuilding import rebuild
from blockyard.node.drivers.qcow2.scanning import Entries
from blockyard.node.drivers.qcow2.tallying import Counts
from blockyard.node.drivers.qcow2.unbroken import unbroken
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import refcounts as codec
from blockyard.node.formats.qcow2 import tables
from blockyard.node.interface.driver import CheckReport
from blockyard.node.interface.operations import Progress, untold

_MAX_NAMED: Final = 20
"""Mismatches of one refcount block told in words."""
_STEP: Final = 1 << 20
"""Counters looked at in one step."""
_TABLES_AT_ONCE: Final = 16
_BLOCKS_AT_ONCE: Final = 64
"""L2 tables and refcount blocks looked at between two turns of the loop."""


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

    async def look(batch: Entries) -> None:
        await _check_flags(image, batch, report)

    references = References(image, progress=progress, look=look)
    async for first, counts in references.windows(report):
        for index, low, high in _counted(image, first, len(counts)):
            if index % _BLOCKS_AT_ONCE == 0:
                await asyncio.sleep(0)
            values = await _block_values(image, index)
            if values is None:
                continue
            start = index * image.refcounts.block_entries + low
            part = counts[start - first : start - first + high - low]
            _compare_block(start, values[low:high], part, report, image)
            part[:] = 0
        for at in range(0, len(counts), _STEP):
            _report_uncounted(first + at, counts[at : at + _STEP], report, image)
    clusters, counts = references.uncounted
    for cluster, count in zip(clusters[:1].tolist(), counts[:1].tolist(), strict=True):
        _note_wrong(report, cluster, 0, count)
    report.corruptions += len(clusters)
    if len(clusters):
        end = (int(clusters[-1]) + 1) << image.geometry.cluster_bits
        report.image_end_offset = max(report.image_end_offset, end)
    await _check_l1(image, report)
    return report


def _counted(image: Image, first: int, count: int) -> Iterator[tuple[int, int, int]]:
    """(Index, first entry, end) of the part of each refcount block that there is for a window of clusters."""
    per = image.refcounts.block_entries
    low = first // per
    table = image.refcounts.table[low : -(-(first + count) // per)]
    for index in (np.flatnonzero(table) + low).tolist():
        yield index, max(first - index * per, 0), min(per, first + count - index * per)


def _report_uncounted(first: int, counts: Counts, report: CheckReport, image: Image) -> None:
    """References to clusters that no refcount block counts."""
    wrong = np.flatnonzero(counts)
    if not len(wrong):
        return
    report.corruptions += len(wrong)
    report.image_end_offset = max(
        report.image_end_offset, (first + int(wrong[-1]) + 1) << image.geometry.cluster_bits
    )
    for at in wrong[:_MAX_NAMED].tolist():
        _note_wrong(report, first + at, 0, int(counts[at]))


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
        _note_wrong(report, start + at, int(stored[at]), int(wide[at]))


def _note_wrong(report: CheckReport, cluster: int, refcount: int, references: int) -> None:
    kind = "leaked" if refcount > references else "corrupt: too few references counted for"
    note(report, f"{kind} cluster {cluster}: refcount {refcount}, references {references}")


# --- COPIED flags ----------------------------------------------------------------------------------------


async def _refcounts_of(image: Image, clusters: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Stored refcounts of arbitrary clusters."""
    per, table = image.refcounts.block_entries, image.refcounts.table
    result = np.zeros(len(clusters), np.uint64)
    order = np.argsort(clusters, kind="stable")
    indexes = clusters[order] // per
    wanted, firsts = np.unique(indexes, return_index=True)
    ends = np.append(firsts[1:], len(indexes))
    exists = wanted < len(table)
    exists[exists] = table[wanted[exists]] != 0
    for number in np.flatnonzero(exists).tolist():
        index = int(wanted[number])
        values = await _block_values(image, index)
        if values is not None:
            here = order[firsts[number] : ends[number]]
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
    return _foreign(entries)


def _foreign(entries: tables.Table) -> NDArray[np.int64]:
    """Indexes of plain entries without the flag."""
    plain = (entries & np.uint64(tables.COMPRESSED)) == 0
    wrong: NDArray[np.int64] = np.flatnonzero(
        plain & ((entries & np.uint64(tables.OFFSET)) != 0) & ((entries & np.uint64(tables.COPIED)) == 0)
    )
    return wrong


async def _wrong_in_l1(image: Image) -> NDArray[np.int64]:
    found = [np.zeros(0, np.int64)]
    at = 0
    for entries in pieces(image.l1.entries):
        found.append(await _wrong_copied(image, entries) + at)
        at += len(entries)
    return np.concatenate(found)


async def _check_l1(image: Image, report: CheckReport) -> None:
    keys = await _wrong_in_l1(image)
    report.corruptions += len(keys)
    for key in keys[:_MAX_NAMED].tolist():
        note(report, f"L1 entry {key}: COPIED flag disagrees with the refcount of its L2 table")


async def _check_flags(image: Image, batch: Entries, report: CheckReport) -> None:
    """Of L2 tables, in the same pass that counts what they refer to."""
    wrong = _foreign(batch.entries) if image.has_data_file else await _wrong_copied(image, batch.entries)
    if not len(wrong):
        return
    report.corruptions += len(wrong)
    numbers, times = np.unique(batch.owners[wrong], return_counts=True)
    for number, count in zip(numbers[:_MAX_NAMED].tolist(), times.tolist(), strict=False):
        offset = int(batch.offsets[number])
        note(report, f"L2 table at {offset:#x}: {count} COPIED flags disagree with refcounts")


async def _active_tables(image: Image) -> AsyncIterator[tuple[int, int, tables.Table]]:
    """(Offset, L1 index, words) of each distinct L2 table of the active L1 that lies in the file."""
    size = image.geometry.cluster_size
    at = 0
    for part in pieces(image.l1.entries):
        offsets = part & np.uint64(tables.OFFSET)
        used = np.flatnonzero(offsets)
        _, firsts = np.unique(offsets[used], return_index=True)
        for number, key in enumerate(np.sort(used[firsts]).tolist()):
            offset = int(offsets[key])
            if offset % size or offset >= image.file.size:
                continue
            data = await image.read(offset, size)
            if number % _TABLES_AT_ONCE == 0:
                await asyncio.sleep(0)
            if not is_zero(data):
                yield offset, at + key, tables.decode(data)
        at += len(part)


# --- repair ----------------------------------------------------------------------------------------------


async def _fix_leaks(image: Image, report: CheckReport) -> None:
    """Lower refcounts in place; a crash on the way leaves fewer leaks."""
    refcounts, alone = image.refcounts, False
    async for first, counts in References(image).windows(CheckReport()):
        for index, low, high in _counted(image, first, len(counts)):
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
                alone = alone or bool((leaks & (wanted == 1)).any())
            if image.writeback.is_due:
                await image.writeback.write_back()
    # More may be repaired than was found: what only invalid bitmaps refer to became a leak meanwhile.
    report.leaks = max(0, report.leaks - report.leaks_fixed)
    await image.writeback.flush()
    if alone:
        # What has one reference left, durably, is its owner's alone.
        await _fix_copied(image)


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
    """Set and clear COPIED by the (durable) refcounts, and clear bits of L1 that mean nothing."""
    flip = np.uint64(tables.COPIED)
    for key in np.flatnonzero(faults_of_l1(image.l1.entries)).tolist():
        entry = image.l1.view[key]
        image.l1.set(key, entry & (tables.OFFSET | tables.COPIED) if entry & tables.OFFSET else 0)
    for key in (await _wrong_in_l1(image)).tolist():
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
