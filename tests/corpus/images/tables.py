"""L1 and L2 tables, refcounts, and places that two things claim."""

import struct

from tests.corpus.entry import ENDLESS, Entry, image, refused
from tests.corpus.writer import COMPRESSED, COPIED, GIB, MIB, TIB, ZERO, Image, plain

L1 = "L1 table"
L2 = "L2 tables"
REFCOUNTS = "refcounts"
OVERLAPS = "overlapping metadata"


def _l1(entry: int) -> Image:
    return plain().put("l1", entry)


def _l2(*entries: int) -> Image:
    return plain().put("l2", *entries)


def _one_table_for_all() -> Image:
    """A million L1 entries, one L2 table."""
    made = plain(cluster_bits=16, size=1 << 49, l1_entries=1 << 20, written=(0,))
    l1, entry = made.places["l1"], made.entry("l1")
    made.data[l1 : l1 + (8 << 20)] = struct.pack(">Q", entry & ~COPIED) * (1 << 20)
    return made


def _loop() -> Image:
    """The L2 table is the L1 table: entries lead back to it."""
    made = plain()
    return made.put("l1", made.places["l1"] | COPIED)


def _far_tables() -> Image:
    """4,096 L2 tables of 512 bytes, each alone in a hole of a file of 2 TiB."""
    made = plain(cluster_bits=9, size=1 << 27, l1_entries=1 << 12, written=())
    l1 = made.places["l1"]
    places = [((1 << 29) * number + (1 << 26)) | COPIED for number in range(1 << 12)]
    made.data[l1 : l1 + (8 << 12)] = struct.pack(f">{len(places)}Q", *places)
    made.length = (1 << 41) + (1 << 27)
    return made


CLUSTER = 1 << 16
READ = ("read",)
_L1 = [
    Entry(
        "l1-entry-unaligned",
        L1,
        "spec: bits 9 to 55",
        image(lambda: _l1(CLUSTER * 4 + 512 | COPIED)),
        refused("IMAGE_CORRUPT", "L1 entry 0", "map", "measure", "read"),
    ),
    Entry(
        "l1-entry-past-the-end",
        L1,
        "spec: inside the file",
        image(lambda: _l1(TIB | COPIED)),
        {
            **refused("IMAGE_CORRUPT", "L1 entry 0", "map", "measure", "read"),
            **refused("IMAGE_CORRUPT", "metadata table", "write"),
        },
    ),
    Entry(
        "l1-entry-all-bits",
        L1,
        "spec: reserved bits",
        image(lambda: _l1((1 << 64) - 1)),
        {
            **refused("IMAGE_CORRUPT", "L1 entry 0", "map", "measure", "read"),
            **refused("IMAGE_CORRUPT", "metadata table", "write"),
        },
    ),
    Entry("l1-flag-without-a-table", L1, "at offset 0 is the header", image(lambda: _l1(COPIED)), {}),
    Entry(
        "l1-reserved-bits",
        L1,
        "spec: bits 0 to 8 and 56 to 62",
        image(lambda: _l1(0x7F00000000040100 | COPIED)),
        {},
    ),
    Entry("l1-loop", L1, "an L2 table that is the L1 table", image(_loop), {}),
    Entry(
        "l1-all-one-table",
        L1,
        "exhaustion: 32 TiB of data out of one table",
        image(_one_table_for_all),
        {"measure": ENDLESS},
    ),
    Entry(
        "l1-far-tables",
        L1,
        "exhaustion: a table in each of 4,096 holes",
        image(_far_tables),
        refused("SIZE_TOO_LARGE", "refcount table", "repair"),
    ),
]


def alternating() -> Image:
    """Every extent is one cluster long: no map is longer."""
    made = plain(cluster_bits=9, size=8192 * 512, l1_entries=128, written=())
    l2 = made.append(struct.pack(">64Q", *([ZERO, 0] * 32)))
    made.counted(l2, 512)
    l1 = made.places["l1"]
    made.data[l1 : l1 + 1024] = struct.pack(">Q", l2) * 128
    return made


_L2 = [
    Entry(
        "l2-entry-unaligned",
        L2,
        "spec: cluster aligned",
        image(lambda: _l2(5 * CLUSTER + 512 | COPIED)),
        refused("IMAGE_CORRUPT", "L2 entry", "map", "measure", "read"),
    ),
    Entry("l2-entry-past-the-end", L2, "spec: inside the file", image(lambda: _l2(TIB | COPIED)), {}),
    Entry(
        "l2-entry-at-2-to-56",
        L2,
        "limit: host offset < 2^56",
        image(lambda: _l2(((1 << 56) - CLUSTER) | COPIED)),
        {},
    ),
    Entry(
        "l2-reserved-bits",
        L2,
        "spec: bits 1 to 8 and 56 to 61",
        image(lambda: _l2(5 * CLUSTER | COPIED | 0x3F000000000001FE)),
        {},
    ),
    Entry(
        "l2-zero-flag-in-version-2", L2, "spec: version 3 only", image(lambda: plain(version=2).put("l2", ZERO)), {}
    ),
    Entry(
        "l2-zero-and-compressed",
        L2,
        "spec: not both",
        image(lambda: _l2(COMPRESSED | ZERO | COPIED)),
        refused("IMAGE_CORRUPT", "compressed cluster", *READ),
    ),
    Entry(
        "l2-one-cluster-for-all",
        L2,
        "16 guest clusters, one host cluster",
        image(lambda: _l2(*[5 * CLUSTER | COPIED] * 16)),
        {},
    ),
    Entry("l2-alternating", L2, "exhaustion: an extent for every cluster", image(alternating), {}),
    Entry(
        "compressed-past-the-end",
        L2,
        "spec: inside the file",
        image(lambda: _l2(COMPRESSED | 255 << 54 | TIB)),
        refused("IMAGE_CORRUPT", "compressed cluster", *READ),
    ),
    Entry(
        "compressed-at-the-last-byte",
        L2,
        "host offset < 2^54 here",
        image(lambda: _l2(COMPRESSED | 255 << 54 | (1 << 54) - 1)),
        refused("IMAGE_CORRUPT", "compressed cluster", *READ),
    ),
    Entry(
        "compressed-over-the-header",
        L2,
        "metadata as a stream",
        image(lambda: _l2(COMPRESSED)),
        refused("IMAGE_CORRUPT", "compressed cluster", *READ),
    ),
]


def _refcount(value: int, cluster: int) -> Image:
    made = plain()
    return made.put(made.places["refcount_block"] + 2 * cluster, value, form=">H")


def _dirty(made: Image) -> Image:
    return made.header(incompatible_features=1, compatible_features=1)


def _last_block() -> Image:
    """A refcount block for the last cluster of 16 TiB of holes."""
    made = plain(cluster_bits=9, written=())
    table = made.places["refcount_table"]
    made.put(table + 8 * 63, made.places["refcount_block"])
    return made


def _data_at_the_end_of_16_tib() -> Image:
    """One cluster of data behind 16 TiB of holes: 34 thousand million clusters lie before it."""
    made = plain(cluster_bits=9, size=MIB, written=())
    end = (16 << 40) - (1 << 20)
    made.put("l2", end | COPIED)
    made.far.append((end, b"\1" * 512))
    return made


_REFCOUNTS = [
    Entry("refcount-0-of-data", REFCOUNTS, "refcount lies", image(lambda: _refcount(0, 5)), {}),
    Entry("refcount-0-of-metadata", REFCOUNTS, "CVE-2014-0147", image(lambda: _refcount(0, 3)), {}),
    Entry("refcount-65535-of-data", REFCOUNTS, "refcount lies", image(lambda: _refcount(65535, 5)), {}),
    Entry(
        "refcounts-all-0", REFCOUNTS, "refcount lies", image(lambda: plain().put("refcount_block", *[0] * 8)), {}
    ),
    Entry(
        "refcount-block-past-the-end",
        REFCOUNTS,
        "CVE-2014-0143",
        image(lambda: plain().put("refcount_table", TIB)),
        refused("IMAGE_CORRUPT", "metadata table", "write"),
    ),
    Entry(
        "refcount-block-unaligned",
        REFCOUNTS,
        "spec: cluster aligned",
        image(lambda: plain().put("refcount_table", 2 * CLUSTER + 512)),
        refused("IMAGE_CORRUPT", "refcount table entry 0", "write"),
    ),
    Entry(
        "refcount-block-is-the-table",
        REFCOUNTS,
        "refcount lies",
        image(lambda: plain().put("refcount_table", CLUSTER)),
        {},
    ),
    Entry("refcount-block-twice", REFCOUNTS, "refcount lies", image(_last_block), {}),
    Entry(
        "dirty-with-lies",
        REFCOUNTS,
        "spec: refcounts may be wrong",
        image(lambda: _dirty(_refcount(0, 5))),
        mended_on_write=True,
    ),
    Entry(
        "dirty-beyond-repair",
        REFCOUNTS,
        "recovery of a broken table",
        image(lambda: _dirty(_l2(5 * CLUSTER + 512 | COPIED))),
        {
            **refused("IMAGE_CORRUPT", "L2 entry", "map", "measure", "read"),
            **refused("IMAGE_CORRUPT", "recovery", "write"),
        },
        mended_on_write=True,
    ),
    Entry(
        "marked-corrupt",
        REFCOUNTS,
        "spec: no writing",
        image(lambda: plain(fields={"incompatible_features": 2})),
        refused("IMAGE_MARKED_CORRUPT", "", "write"),
    ),
    Entry(
        "data-behind-16-tib-of-holes",
        REFCOUNTS,
        "exhaustion: check counts clusters",
        image(_data_at_the_end_of_16_tib),
        refused("SIZE_TOO_LARGE", "refcount table", "repair"),
    ),
]


def _over(what: str) -> Image:
    """A guest cluster that is `what`."""
    made = plain()
    return made.put("l2", (0 if what == "header" else made.places[what]) | COPIED)


def _twice() -> Image:
    """Two L1 entries, one L2 table, both claiming to own it."""
    made = plain(size=GIB, l1_entries=2)
    return made.put("l1", made.entry("l1"), made.entry("l1"))


_OVERLAPS = [
    Entry(
        f"data-over-the-{what.replace('_', '-')}",
        OVERLAPS,
        "guest writes would change metadata",
        image(lambda what=what: _over(what)),
        {},
    )
    for what in ("refcount_table", "refcount_block", "l1", "l2")
]
_OVERLAPS += [
    Entry(
        "l2-over-the-refcount-table",
        OVERLAPS,
        "allocation would change refcounts",
        image(lambda: _l1(CLUSTER | COPIED)),
        {},
    ),
    Entry("l2-table-twice", OVERLAPS, "two owners", image(_twice), {}),
    Entry(
        "refcount-table-over-the-l1",
        OVERLAPS,
        "CVE-2014-0143",
        image(lambda: plain(fields={"refcount_table_offset": 3 * CLUSTER})),
        refused("IMAGE_CORRUPT", "overlap"),
    ),
]

ENTRIES = (*_L1, *_L2, *_REFCOUNTS, *_OVERLAPS)
