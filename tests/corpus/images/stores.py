"""Snapshot tables and bitmap directories."""

import struct

from tests.corpus.entry import Answer, Entry, image, refused
from tests.corpus.writer import (
    GIB,
    MIB,
    TIB,
    Bitmap,
    Image,
    Record,
    bitmaps_extension,
    extra_of,
    plain,
    with_bitmap,
    with_snapshot,
)

SNAPSHOTS = "snapshot table"
BITMAPS = "bitmap directory"
CLUSTER = 1 << 16
SOUND = {"l1_offset": 3 * CLUSTER, "l1_size": 1}


def _snapshot(**fields: object) -> Image:
    return with_snapshot(plain(), Record(**{**SOUND, **fields}))  # type: ignore[arg-type]


def _many(count: int, cluster_bits: int = 16, **fields: object) -> Image:
    """So many snapshots that differ in their names only."""
    made = plain(cluster_bits=cluster_bits)
    place = {"l1_offset": made.places["l1"], "l1_size": 1, **fields}
    records = [Record(**place, identifier=b"%d" % number, name=b"n") for number in range(count)]  # type: ignore[arg-type]
    return with_snapshot(made, *records)


def _many_large(count: int) -> Image:
    """Each snapshot has the same L1 table of 32 MiB, which is a hole."""
    made = _many(count, cluster_bits=9, l1_offset=GIB, l1_size=4 * MIB)
    made.length = GIB + 32 * MIB
    return made


_SNAPSHOTS = [
    Entry(
        "snapshots-2-to-32",
        SNAPSHOTS,
        "CVE-2014-0144; limit: 65,536",
        image(lambda: plain(fields={"nb_snapshots": 0xFFFFFFFF, "snapshots_offset": 4 * CLUSTER})),
        refused("IMAGE_CORRUPT", "nb_snapshots"),
    ),
    Entry(
        "snapshots-past-the-end",
        SNAPSHOTS,
        "CVE-2014-0146",
        image(lambda: plain(fields={"nb_snapshots": 1, "snapshots_offset": GIB})),
        refused("IMAGE_CORRUPT", "snapshot table"),
    ),
    Entry(
        "snapshots-unaligned",
        SNAPSHOTS,
        "spec: cluster aligned",
        image(lambda: plain(fields={"nb_snapshots": 1, "snapshots_offset": 4 * CLUSTER + 8})),
        refused("IMAGE_CORRUPT", "snapshot table"),
    ),
    Entry(
        "snapshots-over-the-l1",
        SNAPSHOTS,
        "overlap",
        image(lambda: plain(fields={"nb_snapshots": 1, "snapshots_offset": 3 * CLUSTER})),
        refused("IMAGE_CORRUPT", "overlap"),
    ),
    Entry(
        "snapshots-more-than-there-are",
        SNAPSHOTS,
        "CVE-2014-0144",
        image(lambda: with_snapshot(plain(), Record(3 * CLUSTER, 1), count=65536)),
        refused("IMAGE_CORRUPT", "snapshot"),
    ),
    Entry(
        "snapshot-l1-of-32-gib",
        SNAPSHOTS,
        "CVE-2014-0145, 0143",
        image(lambda: _snapshot(l1_size=0xFFFFFFFF)),
        refused("IMAGE_CORRUPT", "snapshot 0"),
    ),
    Entry(
        "snapshot-l1-unaligned",
        SNAPSHOTS,
        "spec: cluster aligned",
        image(lambda: _snapshot(l1_offset=12345)),
        refused("IMAGE_CORRUPT", "snapshot 0"),
    ),
    Entry(
        "snapshot-l1-past-the-end",
        SNAPSHOTS,
        "CVE-2014-0143",
        image(lambda: _snapshot(l1_offset=TIB)),
        refused("IMAGE_CORRUPT", "metadata table", "write"),
    ),
    Entry(
        "snapshot-extra-of-4-gib",
        SNAPSHOTS,
        "limit: extra data <= 1,024",
        image(lambda: _snapshot(extra_size=0xFFFFFFFF)),
        refused("IMAGE_CORRUPT", "extra data of snapshot 0"),
    ),
    Entry(
        "snapshot-extra-of-1025",
        SNAPSHOTS,
        "limit: extra data <= 1,024",
        image(lambda: _snapshot(extra=bytes(1025))),
        refused("IMAGE_CORRUPT", "extra data of snapshot 0"),
    ),
    Entry(
        "snapshot-name-past-the-table",
        SNAPSHOTS,
        "CVE-2014-0144",
        image(lambda: _name_past_the_end()),
        refused("IMAGE_CORRUPT", "snapshot table"),
    ),
    Entry(
        "snapshot-name-not-text",
        SNAPSHOTS,
        "name not UTF-8",
        image(lambda: _snapshot(name=b"\xff\xfe\0\n", identifier=b"\x80")),
        {},
    ),
    Entry(
        "snapshot-disk-of-16-eib",
        SNAPSHOTS,
        "CVE-2014-0145",
        image(lambda: _snapshot(extra=extra_of((1 << 64) - 512))),
        {},
    ),
    Entry("snapshots-all-65536", SNAPSHOTS, "limit: 65,536", image(lambda: _many(65536)), {}),
    Entry(
        "snapshots-of-the-same-hole",
        SNAPSHOTS,
        "exhaustion: 64 GiB of L1 tables in one hole",
        image(lambda: _many_large(2048)),
        {},
    ),
]


def _name_past_the_end() -> Image:
    made = _snapshot(name_size=0xFFFF)
    del made.data[made.places["snapshot_table"] + 64 :]
    return made


def _bitmap(**fields: object) -> Image:
    return with_bitmap(Bitmap(**{"table_offset": 4 * CLUSTER, "table_size": 1, **fields}))  # type: ignore[arg-type]


def _extension(count: int, size: int, offset: int) -> Image:
    return plain(extensions=[bitmaps_extension(count, size, offset)], fields={"autoclear_features": 1})


def _bitmap_of_ones() -> Image:
    """2,147,483,648 bits, all set, by 4,096 entries of a table: a disk of 1 TiB whose sectors are all dirty."""
    made = with_bitmap(size=TIB, l1_entries=2048)
    table = made.append(struct.pack(">4096Q", *[1] * 4096))
    made.counted(table, 32768)
    made.write(made.places["bitmap_directory"], Bitmap(table, 4096, granularity_bits=9).packed())
    return made.header(autoclear_features=1)


def _bitmaps_in_a_hole(count: int) -> Image:
    """Every table is 1 GiB of the same hole."""
    made = with_bitmap(*[Bitmap(GIB, 1 << 27, name=b"%d" % number) for number in range(count)], cluster_bits=9)
    made.length = 2 * GIB
    return made


def broken(word: str) -> dict[str, Answer]:
    """Refused but for a repair, which sees to the rest of the image."""
    answers = refused("IMAGE_CORRUPT", word)
    del answers["repair"]
    return answers


BAD_EXTENSION = broken("bitmaps extension")
BAD_DIRECTORY = broken("bitmap directory")
_BITMAPS = [
    Entry(
        "bitmaps-2-to-32",
        BITMAPS,
        "limit: 65,535",
        image(lambda: _extension(0xFFFFFFFF, 1 << 20, 4 * CLUSTER)),
        BAD_EXTENSION,
    ),
    Entry(
        "bitmaps-directory-of-16-eib",
        BITMAPS,
        "limit: 64 MiB",
        image(lambda: _extension(1, (1 << 64) - 1, 4 * CLUSTER)),
        BAD_EXTENSION,
    ),
    Entry(
        "bitmaps-directory-past-the-end",
        BITMAPS,
        "inside the file",
        image(lambda: _extension(1, 64, TIB)),
        BAD_EXTENSION,
    ),
    Entry(
        "bitmaps-directory-at-2-to-63",
        BITMAPS,
        "host offset < 2^56",
        image(lambda: _extension(1, 64, 1 << 63)),
        BAD_EXTENSION,
    ),
    Entry(
        "bitmaps-directory-short",
        BITMAPS,
        "record inside it",
        image(lambda: with_bitmap(Bitmap(4 * CLUSTER, 1), count=9)),
        BAD_DIRECTORY,
    ),
    Entry(
        "bitmap-table-of-32-gib",
        BITMAPS,
        "limit: 0x8000000 entries",
        image(lambda: _bitmap(table_size=0xFFFFFFFF)),
        BAD_DIRECTORY,
    ),
    Entry(
        "bitmap-table-unaligned",
        BITMAPS,
        "spec: cluster aligned",
        image(lambda: _bitmap(table_offset=12345)),
        BAD_DIRECTORY,
    ),
    Entry("bitmap-table-past-the-end", BITMAPS, "inside the file", image(lambda: _bitmap(table_offset=TIB)), {}),
    Entry(
        "bitmap-name-past-the-directory",
        BITMAPS,
        "limit: name <= 1,023",
        image(lambda: _bitmap(name_size=0xFFFF)),
        BAD_DIRECTORY,
    ),
    Entry("bitmap-name-not-text", BITMAPS, "name not UTF-8", image(lambda: _bitmap(name=b"\xff\xfe\n")), {}),
    Entry(
        "bitmap-extra-of-4-gib",
        BITMAPS,
        "extra data inside it",
        image(lambda: _bitmap(extra_size=0xFFFFFFFF)),
        BAD_DIRECTORY,
    ),
    Entry(
        "bitmap-granularity-2-to-255", BITMAPS, "limit: 2^9..2^31", image(lambda: _bitmap(granularity_bits=255)), {}
    ),
    Entry(
        "bitmap-flags-unknown",
        BITMAPS,
        "spec: unknown flags",
        image(lambda: _bitmap(flags=0xFFFFFFFF, kind=77)),
        {},
    ),
    Entry("bitmap-of-ones", BITMAPS, "exhaustion: 256 MiB of bits out of 32 KiB", image(_bitmap_of_ones), {}),
    Entry(
        "bitmaps-of-the-same-hole",
        BITMAPS,
        "exhaustion: 1 TiB of tables in one hole",
        image(lambda: _bitmaps_in_a_hole(1000)),
        {},
    ),
]

ENTRIES = (*_SNAPSHOTS, *_BITMAPS)
