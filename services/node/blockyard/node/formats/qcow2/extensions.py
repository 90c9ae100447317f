"""Header extensions: typed, length-prefixed records after the fixed header, kept byte for byte.

An extension we do not know is carried as it is (spec: unknown extensions must be preserved or the
autoclear and compatible rules apply to them through feature bits).
"""

import struct
from typing import Final, NamedTuple

from blockyard.base.errors import ImageCorrupt
from blockyard.base.ranges import ByteRange, align_up

END: Final = 0x00000000
BACKING_FORMAT: Final = 0xE2792ACA
FEATURE_NAMES: Final = 0x6803F857
BITMAPS: Final = 0x23852875
ENCRYPTION: Final = 0x0537BE77
DATA_FILE: Final = 0x44415441

_PREFIX: Final = struct.Struct(">II")
_ENCRYPTION: Final = struct.Struct(">QQ")
_NAME: Final = struct.Struct(">BB46s")
_BITMAPS: Final = struct.Struct(">IIQQ")


class Extension(NamedTuple):
    """One record; `data` without its padding."""

    type: int
    data: bytes


class BitmapsExtension(NamedTuple):
    """Where the bitmap directory is (spec, Bitmaps extension)."""

    bitmaps: int
    directory_size: int
    directory_offset: int


class FeatureKind:
    """The three groups of feature bits, numbered as in the feature name table."""

    INCOMPATIBLE: Final = 0
    COMPATIBLE: Final = 1
    AUTOCLEAR: Final = 2


def decode(area: bytes | bytearray | memoryview, image: str) -> tuple[Extension, ...]:
    """Records up to the end mark, or to the end of `area` if there is none."""
    found: list[Extension] = []
    position = 0
    while position + _PREFIX.size <= len(area):
        kind, length = _PREFIX.unpack_from(area, position)
        if kind == END:
            break
        position += _PREFIX.size
        if length > len(area) - position:
            raise ImageCorrupt(
                image,
                f"length of header extension {kind:#010x}",
                f"at most {len(area) - position}",
                str(length),
            )
        found.append(Extension(kind, bytes(area[position : position + length])))
        position += align_up(length, 8)
    return tuple(found)


def encode(extensions: tuple[Extension, ...]) -> bytes:
    """All records with their padding, and the end mark."""
    parts: list[bytes] = []
    for kind, data in extensions:
        parts.append(_PREFIX.pack(kind, len(data)))
        parts.append(data)
        parts.append(bytes(align_up(len(data), 8) - len(data)))
    parts.append(_PREFIX.pack(END, 0))
    return b"".join(parts)


def find(extensions: tuple[Extension, ...], kind: int) -> bytes | None:
    """The data of the first record of a type."""
    return next((data for found, data in extensions if found == kind), None)


def replaced(extensions: tuple[Extension, ...], kind: int, data: bytes | None) -> tuple[Extension, ...]:
    """`extensions` with the record of a type changed in place, added in front, or (None) removed."""
    if data is None:
        return tuple(item for item in extensions if item.type != kind)
    if find(extensions, kind) is None:
        return (Extension(kind, data), *extensions)
    return tuple(Extension(kind, data) if item.type == kind else item for item in extensions)


def decode_feature_names(data: bytes) -> dict[tuple[int, int], str]:
    """(kind, bit) to name. A trailing fragment of a record is ignored, as QEMU does."""
    usable = len(data) - len(data) % _NAME.size
    return {(kind, bit): _shown(name.split(b"\0", 1)[0]) for kind, bit, name in _NAME.iter_unpack(data[:usable])}


def _shown(name: bytes) -> str:
    """It goes into messages that a terminal may show."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name.decode("utf-8", "replace"))


def encode_feature_names(names: dict[tuple[int, int], str]) -> bytes:
    return b"".join(_NAME.pack(kind, bit, name.encode()) for (kind, bit), name in names.items())


def decode_encryption(data: bytes, image: str) -> ByteRange:
    """Where the encryption header is (spec, Full disk encryption header pointer)."""
    if len(data) != _ENCRYPTION.size:
        raise ImageCorrupt(image, "length of the encryption extension", str(_ENCRYPTION.size), str(len(data)))
    offset, length = _ENCRYPTION.unpack(data)
    if offset + length >= 1 << 63:
        raise ImageCorrupt(image, "place of the encryption header", "inside the file", f"[{offset}, +{length})")
    return ByteRange(offset, length)


def encode_encryption(place: ByteRange) -> bytes:
    return _ENCRYPTION.pack(place.offset, place.length)


def decode_bitmaps(data: bytes, image: str) -> BitmapsExtension:
    if len(data) != _BITMAPS.size:
        raise ImageCorrupt(image, "length of the bitmaps extension", str(_BITMAPS.size), str(len(data)))
    count, _, size, offset = _BITMAPS.unpack(data)
    return BitmapsExtension(count, size, offset)


def encode_bitmaps(place: BitmapsExtension) -> bytes:
    return _BITMAPS.pack(place.bitmaps, 0, place.directory_size, place.directory_offset)
