"""Writes qcow2 images with struct alone, so that any field of them can lie.

An image is built sound, every table of it known by place, and is then damaged by its maker. All places are byte
offsets of the host file. Files are sparse: `far` bytes may lie terabytes away, `length` may be anything.

Spec: docs/interop/qcow2.txt of QEMU; names of fields are the spec's.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40
COPIED: Final = 1 << 63
COMPRESSED: Final = 1 << 62
ZERO: Final = 1

HEADER: Final[dict[str, tuple[int, str]]] = {
    "magic": (0, ">I"),
    "version": (4, ">I"),
    "backing_file_offset": (8, ">Q"),
    "backing_file_size": (16, ">I"),
    "cluster_bits": (20, ">I"),
    "size": (24, ">Q"),
    "crypt_method": (32, ">I"),
    "l1_size": (36, ">I"),
    "l1_table_offset": (40, ">Q"),
    "refcount_table_offset": (48, ">Q"),
    "refcount_table_clusters": (56, ">I"),
    "nb_snapshots": (60, ">I"),
    "snapshots_offset": (64, ">Q"),
    "incompatible_features": (72, ">Q"),
    "compatible_features": (80, ">Q"),
    "autoclear_features": (88, ">Q"),
    "refcount_order": (96, ">I"),
    "header_length": (100, ">I"),
    "compression_type": (104, ">B"),
}
"""Field to place and form."""
V2_LENGTH: Final = 72
V3_LENGTH: Final = 112

BACKING_FORMAT: Final = 0xE2792ACA
FEATURE_NAMES: Final = 0x6803F857
BITMAPS: Final = 0x23852875
ENCRYPTION: Final = 0x0537BE77
DATA_FILE: Final = 0x44415441

_BLOCK: Final = 64 * KIB
_NOTHING: Final = bytes(_BLOCK)

RECORD: Final = struct.Struct(">QIHHIIQII")
"""A snapshot: L1 offset, L1 entries, lengths of id and name, date, clock, VM state, length of the extra data."""
BITMAP: Final = struct.Struct(">QIIBBHI")
"""A bitmap: table offset, entries, flags, type, granularity, length of the name, of the extra data."""


@dataclass
class Image:
    """An image in memory."""

    data: bytearray
    places: dict[str, int] = field(default_factory=dict)
    """Where what is: l1, l2, refcount_table, refcount_block, data, end, snapshot_table, bitmap_directory ..."""
    far: list[tuple[int, bytes]] = field(default_factory=list)
    length: int | None = None
    """Bytes of the file; None is what the data fills."""

    def header(self, **fields: int) -> "Image":
        """Set fields of the header by the spec's names."""
        for name, value in fields.items():
            at, form = HEADER[name]
            struct.pack_into(form, self.data, at, value)
        return self

    def get(self, name: str) -> int:
        at, form = HEADER[name]
        return int(struct.unpack_from(form, self.data, at)[0])

    @property
    def cluster(self) -> int:
        return 1 << self.get("cluster_bits")

    def put(self, place: int | str, *values: int, form: str = ">Q") -> "Image":
        """Numbers from a place on."""
        at = self.places[place] if isinstance(place, str) else place
        step = struct.calcsize(form)
        self.room(at + step * len(values))
        for number, value in enumerate(values):
            struct.pack_into(form, self.data, at + step * number, value)
        return self

    def write(self, at: int, data: bytes) -> "Image":
        self.room(at + len(data))
        self.data[at : at + len(data)] = data
        return self

    def entry(self, place: int | str, index: int = 0) -> int:
        at = self.places[place] if isinstance(place, str) else place
        return int(struct.unpack_from(">Q", self.data, at + 8 * index)[0])

    def room(self, end: int) -> None:
        if end > len(self.data):
            self.data.extend(bytes(end - len(self.data)))

    def append(self, data: bytes, name: str = "") -> int:
        """At the next free cluster; not counted in the refcounts (see `counted`)."""
        at = -(-len(self.data) // self.cluster) * self.cluster
        self.room(-(-(at + len(data)) // self.cluster) * self.cluster)
        self.data[at : at + len(data)] = data
        if name:
            self.places[name] = at
        return at

    def counted(self, first: int, length: int, by: int = 1) -> "Image":
        """Raise the refcounts (16 bits, first block) of what lies there."""
        for number in range(first // self.cluster, -(-(first + length) // self.cluster)):
            at = self.places["refcount_block"] + 2 * number
            (now,) = struct.unpack_from(">H", self.data, at)
            struct.pack_into(">H", self.data, at, now + by)
        return self

    def save(self, path: Path) -> None:
        """Blocks of zeroes become holes."""
        with path.open("wb") as file:
            for at in range(0, len(self.data), _BLOCK):
                part = self.data[at : at + _BLOCK]
                if part != _NOTHING[: len(part)]:
                    file.seek(at)
                    file.write(part)
            for at, data in self.far:
                file.seek(at)
                file.write(data)
            end = max([len(self.data), *(at + len(data) for at, data in self.far)])
            file.truncate(end if self.length is None else self.length)


def extension(kind: int, data: bytes, length: int | None = None) -> bytes:
    """A header extension; `length` may lie."""
    said = len(data) if length is None else length
    return struct.pack(">II", kind, said) + data + bytes(-len(data) % 8)


def feature_name(kind: int, bit: int, name: bytes) -> bytes:
    return struct.pack(">BB46s", kind, bit, name)


def deflated(data: bytes) -> bytes:
    """A compressed cluster as QEMU writes it: raw deflate, 12-bit window."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    return packer.compress(data) + packer.flush()


def compressed_entry(at: int, length: int, cluster_bits: int) -> int:
    sectors = (at + length - 1) // 512 - at // 512
    return COMPRESSED | sectors << (62 - (cluster_bits - 8)) | at


def plain(
    *,
    size: int = MIB,
    cluster_bits: int = 16,
    version: int = 3,
    l1_entries: int | None = None,
    written: Sequence[int] = (0, 1),
    packed: Sequence[int] = (),
    extensions: Sequence[bytes] = (),
    end_mark: bool = True,
    backing: bytes = b"",
    fields: Mapping[str, int] | None = None,
) -> Image:
    """A sound image: header, refcount table, one refcount block, L1, one L2, data.

    `written` are guest clusters of the first L2 table that hold data (each byte its number + 1), `packed` those
    that are compressed.
    """
    cluster = 1 << cluster_bits
    needed = max(1, -(-size // (cluster * cluster // 8)))
    entries = needed if l1_entries is None else l1_entries
    l1_clusters = max(1, -(-entries * 8 // cluster))
    image = Image(bytearray(cluster * (4 + l1_clusters)))
    image.places |= {
        "refcount_table": cluster,
        "refcount_block": 2 * cluster,
        "l1": 3 * cluster,
        "l2": (3 + l1_clusters) * cluster,
    }
    length = V3_LENGTH if version >= 3 else V2_LENGTH
    image.header(
        magic=0x514649FB, version=version, cluster_bits=cluster_bits, size=size, l1_size=entries,
        l1_table_offset=image.places["l1"], refcount_table_offset=cluster, refcount_table_clusters=1,
    )  # fmt: skip
    if version >= 3:
        image.header(refcount_order=4, header_length=length)
    tail = b"".join(extensions) + (extension(0, b"") if end_mark else b"")
    image.data[length : length + len(tail)] = tail
    if backing:
        at = length + len(tail)
        image.data[at : at + len(backing)] = backing
        image.header(backing_file_offset=at, backing_file_size=len(backing))
    image.put("refcount_table", image.places["refcount_block"])
    image.put("l1", image.places["l2"] | COPIED)
    image.counted(0, len(image.data))
    _fill(image, written, packed)
    image.header(**(fields or {}))
    return image


def _fill(image: Image, written: Sequence[int], packed: Sequence[int]) -> None:
    cluster = image.cluster
    for number in written:
        at = image.append(bytes([number % 255 + 1]) * cluster)
        image.places.setdefault("data", at)
        image.counted(at, cluster)
        image.put(image.places["l2"] + 8 * number, at | COPIED)
    for number in packed:
        blob = deflated(bytes([number % 255 + 1]) * cluster)
        at = image.append(blob)
        image.places.setdefault("packed", at)
        image.counted(at, len(blob))
        image.put(image.places["l2"] + 8 * number, compressed_entry(at, len(blob), image.get("cluster_bits")))
    image.places["end"] = len(image.data)


@dataclass(frozen=True)
class Record:
    """A snapshot's record; lengths may lie."""

    l1_offset: int
    l1_size: int
    identifier: bytes = b"1"
    name: bytes = b"one"
    extra: bytes = b""
    extra_size: int | None = None
    id_size: int | None = None
    name_size: int | None = None
    vm_state: int = 0

    def packed(self) -> bytes:
        lengths = (
            len(self.identifier) if self.id_size is None else self.id_size,
            len(self.name) if self.name_size is None else self.name_size,
        )
        extra = len(self.extra) if self.extra_size is None else self.extra_size
        head = RECORD.pack(self.l1_offset, self.l1_size, *lengths, 0, 0, 0, self.vm_state, extra)
        body = head + self.extra + self.identifier + self.name
        return body + bytes(-len(body) % 8)


def extra_of(size: int, vm_state: int = 0) -> bytes:
    """Extra data that says the disk's size."""
    return struct.pack(">QQ", vm_state, size)


def with_snapshot(image: Image, *records: Record, count: int | None = None) -> Image:
    """A snapshot table of these records, or of one sound snapshot that shares the disk's L2 table and data."""
    if not records:
        entries = image.get("l1_size")
        l1 = image.append(bytes(entries * 8), "snapshot_l1")
        for index in range(entries):
            shared = image.entry("l1", index) & ~COPIED
            image.put(l1 + 8 * index, shared)
            image.put(image.places["l1"] + 8 * index, shared)
        image.counted(l1, entries * 8)
        _share(image)
        records = (Record(l1, entries, extra=extra_of(image.get("size"))),)
    table = b"".join(record.packed() for record in records)
    at = image.append(table, "snapshot_table")
    image.counted(at, len(table))
    return image.header(nb_snapshots=len(records) if count is None else count, snapshots_offset=at)


def _share(image: Image) -> None:
    """One more reference to the L2 table and to what it refers to."""
    l2 = image.places["l2"]
    image.counted(l2, image.cluster)
    shift = 62 - (image.get("cluster_bits") - 8)
    for index in range(image.cluster // 8):
        entry = image.entry(l2, index)
        if entry & COMPRESSED:
            at = entry & (1 << shift) - 1
            image.counted(at, ((entry & COMPRESSED - 1) >> shift) * 512 + 512 - at % 512)
        elif at := entry & 0x00FFFFFFFFFFFE00:
            image.counted(at, image.cluster)
            image.put(l2 + 8 * index, entry & ~COPIED)


@dataclass(frozen=True)
class Bitmap:
    """A record of the bitmap directory; lengths may lie."""

    table_offset: int
    table_size: int
    flags: int = 2
    kind: int = 1
    granularity_bits: int = 16
    name: bytes = b"bits"
    name_size: int | None = None
    extra: bytes = b""
    extra_size: int | None = None

    def packed(self) -> bytes:
        name = len(self.name) if self.name_size is None else self.name_size
        extra = len(self.extra) if self.extra_size is None else self.extra_size
        head = BITMAP.pack(
            self.table_offset, self.table_size, self.flags, self.kind, self.granularity_bits, name, extra
        )
        body = head + self.extra + self.name
        return body + bytes(-len(body) % 8)


def bitmaps_extension(count: int, size: int, offset: int, reserved: int = 0) -> bytes:
    return extension(BITMAPS, struct.pack(">IIQQ", count, reserved, size, offset))


def with_bitmap(*bitmaps: Bitmap, count: int | None = None, **options: Any) -> Image:
    """An image with a directory of these bitmaps, or of one sound bitmap that has its first bits set.

    `options` are those of `plain`. The autoclear bit says that all of it is valid.
    """
    image = plain(extensions=[bitmaps_extension(0, 0, 0)], **options)
    if not bitmaps:
        bits = image.append(b"\3" + bytes(image.cluster - 1), "bitmap_bits")
        table = image.append(struct.pack(">Q", bits), "bitmap_table")
        image.counted(bits, image.cluster).counted(table, 8)
        bitmaps = (Bitmap(table, 1),)
    directory = b"".join(bitmap.packed() for bitmap in bitmaps)
    at = image.append(directory, "bitmap_directory")
    image.counted(at, len(directory))
    said = len(bitmaps) if count is None else count
    record = bitmaps_extension(said, len(directory), at)
    image.data[V3_LENGTH : V3_LENGTH + len(record)] = record
    return image.header(autoclear_features=1)
