"""Damage to images that knows where their tables are: a few lies in a place where a lie has a meaning.

Random bytes mostly hit data or are refused by the first check of the header. Here every change is to a field or an
entry, with values that mean something there: another table's place, past the end, unaligned, a loop, absurd counts.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.corpus.writer import COMPRESSED, COPIED, HEADER, ZERO, Image

OFFSET: Final = 0x00FFFFFFFFFFFE00
MOST_TABLES: Final = 64


@dataclass(frozen=True)
class Region:
    """Entries of one size, one behind another."""

    name: str
    offset: int
    count: int
    size: int = 8


class Map:
    """Where the tables of a sound image are."""

    def __init__(self, data: bytes) -> None:
        self.image = Image(bytearray(data))
        self.regions: list[Region] = []
        get = self.image.get
        cluster = self.image.cluster
        self._add("l1", get("l1_table_offset"), get("l1_size"))
        self._add("refcount_table", get("refcount_table_offset"), get("refcount_table_clusters") * cluster // 8)
        for number in range(min(get("l1_size"), MOST_TABLES)):
            self._add("l2", self._entry(get("l1_table_offset") + 8 * number) & OFFSET, cluster // 8)
        for number in range(MOST_TABLES):
            block = self._entry(get("refcount_table_offset") + 8 * number) & OFFSET
            self._add("refcount_block", block, cluster // 2, 2)
        if get("nb_snapshots"):
            self._add("snapshots", get("snapshots_offset"), 40 * get("nb_snapshots") // 4, 4)
        self._extensions()

    def _add(self, name: str, offset: int, count: int, size: int = 8) -> None:
        room = max(0, (len(self.image.data) - offset) // size)
        if offset and room:
            self.regions.append(Region(name, offset, min(count, room), size))

    def _entry(self, at: int) -> int:
        return int(struct.unpack_from(">Q", self.image.data, at)[0]) if at + 8 <= len(self.image.data) else 0

    def _extensions(self) -> None:
        at = self.image.get("header_length") if self.image.get("version") >= 3 else 72
        end = self.image.get("backing_file_offset") or self.image.cluster
        while at + 8 <= end:
            kind, length = struct.unpack_from(">II", self.image.data, at)
            self.regions.append(Region("extension", at, 2 + min(length, 512) // 4, 4))
            if kind == 0x23852875 and length == 24:
                count, _, size, offset = struct.unpack_from(">IIQQ", self.image.data, at + 8)
                self._add("bitmap_directory", offset, size // 4, 4)
                for number in range(min(count, 1)):
                    self._add("bitmap_table", self._entry(offset + 24 * number), 8)
            if not kind:
                return
            at += 8 + -(-length // 8) * 8


Change = Callable[[Random, Map], None]


def mutate(data: bytes, numbers: Random) -> bytes:
    """One to five changes."""
    known = Map(data)
    for _ in range(numbers.choice((1, 1, 1, 2, 3, 5))):
        numbers.choices([change for change, _ in CHANGES], [weight for _, weight in CHANGES])[0](numbers, known)
    return bytes(known.image.data)


def _header(numbers: Random, known: Map) -> None:
    """A field of the header."""
    name = numbers.choice(list(HEADER))
    _, form = HEADER[name]
    bits = 8 * struct.calcsize(form)
    known.image.header(**{name: _number(numbers, known, known.image.get(name), bits)})


def _entry(numbers: Random, known: Map) -> None:
    """An entry of a table."""
    region = numbers.choice(known.regions)
    used = [number for number in range(region.count) if _value(known, region, number)]
    index = numbers.choice(used) if used and numbers.random() < 0.7 else numbers.randrange(region.count)
    old = _value(known, region, index)
    if region.size == 8 and numbers.random() < 0.8:
        new = _place(numbers, known, region, old)
    else:
        new = _number(numbers, known, old, 8 * region.size)
    form = {2: ">H", 4: ">I", 8: ">Q"}[region.size]
    known.image.put(region.offset + index * region.size, new, form=form)


def _value(known: Map, region: Region, index: int) -> int:
    at = region.offset + index * region.size
    return int.from_bytes(known.image.data[at : at + region.size], "big")


def _place(numbers: Random, known: Map, region: Region, old: int) -> int:
    """What an entry that points somewhere may say."""
    cluster, end = known.image.cluster, len(known.image.data)
    where = numbers.choice(known.regions).offset
    choices = (
        where, where // cluster * cluster, where | COPIED, region.offset | COPIED, region.offset,
        (old & OFFSET) + cluster, (old & OFFSET) + 512 | COPIED, old ^ COPIED, old ^ COMPRESSED, old ^ ZERO,
        -(-end // cluster) * cluster | COPIED, end + (1 << 40) | COPIED, OFFSET | COPIED, OFFSET, 0, COPIED,
        COMPRESSED | numbers.randrange(end), COMPRESSED | numbers.getrandbits(62), COMPRESSED | COPIED | where,
        numbers.randrange(end) // cluster * cluster | COPIED, old | 0x3F000000000001FE, numbers.getrandbits(64),
    )  # fmt: skip
    return numbers.choice(choices)


def _number(numbers: Random, known: Map, old: int, bits: int) -> int:
    """A count, a length, a flag, a place: near its bounds, or another bit."""
    most = (1 << bits) - 1
    choices = (
        0, 1, old + 1, old - 1, old * 2, old // 2, most, most - 1, most >> 1, 1 << numbers.randrange(bits),
        old ^ 1 << numbers.randrange(bits), known.image.cluster, len(known.image.data), 65536, 1 << 25,
        numbers.choice(known.regions).offset, numbers.getrandbits(bits),
    )  # fmt: skip
    return numbers.choice(choices) & most


def _copy(numbers: Random, known: Map) -> None:
    """One table's bytes over another's."""
    one, other = numbers.choice(known.regions), numbers.choice(known.regions)
    length = min(one.count * one.size, other.count * other.size, known.image.cluster)
    known.image.write(other.offset, bytes(known.image.data[one.offset : one.offset + length]))


def _repeat(numbers: Random, known: Map) -> None:
    """Many entries that are all the same."""
    region = numbers.choice(known.regions)
    value = _value(known, region, numbers.randrange(region.count)).to_bytes(region.size, "big")
    count = numbers.randrange(1, region.count + 1)
    known.image.write(region.offset, value * count)


def _cut(numbers: Random, known: Map) -> None:
    """The file ends early."""
    cluster, end = known.image.cluster, len(known.image.data)
    keep = numbers.choice((numbers.randrange(end), numbers.randrange(end) // cluster * cluster, end - 1, end - 512))
    data = known.image.data[:keep]
    known.image.data[:] = data + bytes(0)
    known.image.room(512)
    end = len(known.image.data)
    known.regions = [item for item in known.regions if item.offset + item.size * item.count <= end]
    if not known.regions:
        known.regions = [Region("header", 0, 64)]


def _noise(numbers: Random, known: Map) -> None:
    """A few random bytes in a table."""
    region = numbers.choice(known.regions)
    at = region.offset + numbers.randrange(region.count * region.size)
    known.image.write(at, numbers.randbytes(numbers.choice((1, 8, 64))))


CHANGES: Final[tuple[tuple[Change, int], ...]] = (
    (_header, 6),
    (_entry, 12),
    (_copy, 1),
    (_repeat, 2),
    (_cut, 1),
    (_noise, 2),
)
