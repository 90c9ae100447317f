"""The header of LUKS1 (LUKS On-Disk Format Specification 1.2.3; QEMU's crypto/block-luks-priv.h).

592 bytes, big-endian: names of the ciphers, the digest of the volume key, eight key slots. QEMU writes it, inside
of qcow2 too. `decode` judges everything before anything is done with it.

A slot is switched on and off by its first field, four bytes inside one sector, so that a torn write leaves the slot
on or off; `encode_slot` and `encode_state` are written one after the other (see `drivers/_luks/changing.py`).
"""

import itertools
import struct
from dataclasses import replace
from typing import Final

from blockyard.base.errors import FormatMismatch, ImageCorrupt, UnsupportedFeature
from blockyard.base.ranges import ByteRange, align_up
from blockyard.node.formats.ciphers import VECTOR_UNIT
from blockyard.node.formats.luks.cipher import HASHES, CipherSpec
from blockyard.node.formats.luks.derivation import check_cost
from blockyard.node.formats.luks.limits import LUKS1_SLOTS, MAX_HEADER_LUKS1, MAX_ITERATIONS, STRIPES
from blockyard.node.formats.luks.volume import Derivation, KeyDigest, KeySlot, Volume

MAGIC: Final = b"LUKS\xba\xbe"
_FIXED: Final = struct.Struct(">6sH32s32s32sII20s32sI40s")
_SLOT: Final = struct.Struct(">II32sII")
SIZE: Final = _FIXED.size + LUKS1_SLOTS * _SLOT.size
DIGEST_BYTES: Final = 20
ENABLED: Final = 0x00AC71F3
DISABLED: Final = 0x0000DEAD
MATERIAL_AT: Final = 4096
"""Of the first slot (QCRYPTO_BLOCK_LUKS_KEY_SLOT_OFFSET)."""
_ALIGNMENT: Final = 4096
"""Of key material and payload (LUKS_ALIGN_KEYSLOTS)."""


def looks_like(head: bytes) -> int:
    """The version that a file's first bytes say; 0 if it is no LUKS."""
    if len(head) < 8 or head[:6] != MAGIC:
        return 0
    return int.from_bytes(head[6:8])


def decode(data: bytes, image: str, room: int, *, detached: bool = False, inside: bool = False) -> Volume:
    """The header out of its first `SIZE` bytes; `room` is where it and its key material must end.

    `detached`: the payload is in another file, and begins there with the offset that is said, which may be 0.
    `inside`: of a qcow2 image, whose clusters are the payload. Raises FormatMismatch, ImageCorrupt,
    UnsupportedFeature.
    """
    if looks_like(data) != 1 or len(data) < SIZE:
        raise FormatMismatch(image, "luks", f"it begins with {bytes(data[:8])!r}, {len(data)} bytes")
    fixed = _FIXED.unpack_from(data)
    algorithm, mode, hash_name = (
        _text(image, what, fixed[at]) for at, what in enumerate(("cipher", "mode", "hash"), 2)
    )
    payload_sectors, key_bytes, digest, salt, iterations = fixed[5:10]
    if hash_name not in HASHES:
        raise UnsupportedFeature(image, f"hash {hash_name!r}")
    spec = CipherSpec.parse(algorithm, mode, image)
    if not spec.takes_key(key_bytes):
        raise ImageCorrupt(image, "key size", f"bytes that {spec} takes", str(key_bytes))
    if not 1 <= iterations <= MAX_ITERATIONS:
        raise ImageCorrupt(image, "iterations of the volume key", f"1 to {MAX_ITERATIONS}", str(iterations))
    slots = tuple(_slot(data, number, spec, key_bytes, hash_name, image) for number in range(LUKS1_SLOTS))
    end = _check_places(slots, key_bytes, image, room)
    payload = payload_sectors * VECTOR_UNIT
    if not detached and not inside and not end <= payload <= room:
        raise ImageCorrupt(image, "payload offset", f"from {end}, after the key slots, to {room}", str(payload))
    return Volume(
        version=1,
        uuid=fixed[10].split(b"\0", 1)[0].decode("ascii", "replace"),
        label="",
        spec=spec,
        key_bytes=key_bytes,
        sector_size=VECTOR_UNIT,
        payload_offset=payload,
        payload_size=-1,
        first_vector=0,
        digest=KeyDigest(hash_name, iterations, salt, digest),
        slots=slots,
        header_bytes=end,
    )


def _text(image: str, what: str, field: bytes) -> str:
    if b"\0" not in field:
        raise ImageCorrupt(image, f"name of the {what}", "text that ends with a NUL", repr(bytes(field)))
    return field.split(b"\0", 1)[0].decode("ascii", "replace")


def _slot(data: bytes, number: int, spec: CipherSpec, key_bytes: int, hash_name: str, image: str) -> KeySlot:
    state, iterations, salt, material_sector, stripes = _SLOT.unpack_from(data, _FIXED.size + number * _SLOT.size)
    what = f"key slot {number}"
    if state not in (ENABLED, DISABLED):
        raise ImageCorrupt(image, f"state of {what}", f"{ENABLED:#x} or {DISABLED:#x}", f"{state:#x}")
    if stripes != STRIPES:
        raise ImageCorrupt(image, f"stripes of {what}", str(STRIPES), str(stripes))
    length = -(-key_bytes * STRIPES // VECTOR_UNIT) * VECTOR_UNIT
    slot = KeySlot(
        number=number,
        active=state == ENABLED,
        area=ByteRange(material_sector * VECTOR_UNIT, length),
        derivation=Derivation("pbkdf2", salt, hash_name, iterations),
        spec=spec,
        area_key_bytes=key_bytes,
        stripes=stripes,
        split_hash=hash_name,
    )
    if slot.active:
        assert slot.derivation is not None
        check_cost(slot.derivation, image, what)
    return slot


def _check_places(slots: tuple[KeySlot, ...], key_bytes: int, image: str, room: int) -> int:
    """Where the last area ends; no area may overlap the header, another, or leave the room."""
    ordered = sorted(slots, key=lambda slot: slot.area.offset)
    first = ordered[0]
    if first.area.offset < SIZE:
        raise ImageCorrupt(image, f"key material of slot {first.number}", f"from {SIZE} on", str(first.area.offset))
    for one, other in itertools.pairwise(ordered):
        if one.area.end > other.area.offset:
            raise ImageCorrupt(
                image, "key material", "areas apart", f"slots {one.number} and {other.number} overlap"
            )
    end = ordered[-1].area.end
    if end > min(room, MAX_HEADER_LUKS1):
        expected = f"an end of at most {min(room, MAX_HEADER_LUKS1)}"
        raise ImageCorrupt(image, f"key material of slot {ordered[-1].number}", expected, str(end))
    return end


# --- writing -------------------------------------------------------------------------------------------------


def fresh(
    spec: CipherSpec, key_bytes: int, hash_name: str, digest: KeyDigest, uuid: str, *, detached: bool
) -> Volume:
    """A header with eight free slots, laid out as QEMU does."""
    length = align_up(key_bytes * STRIPES, VECTOR_UNIT)
    stride = align_up(length, _ALIGNMENT)
    slots = tuple(
        KeySlot(
            number,
            False,
            ByteRange(MATERIAL_AT + number * stride, length),
            Derivation("pbkdf2", bytes(32), hash_name, 0),
            spec,
            key_bytes,
            STRIPES,
            hash_name,
        )
        for number in range(LUKS1_SLOTS)
    )
    end = MATERIAL_AT + LUKS1_SLOTS * stride
    return Volume(
        1, uuid, "", spec, key_bytes, VECTOR_UNIT, 0 if detached else end, -1, 0, digest, slots, end
    )  # fmt: skip


def with_slot(volume: Volume, slot: KeySlot) -> Volume:
    return replace(volume, slots=tuple(slot if slot.number == old.number else old for old in volume.slots))


def encode(volume: Volume) -> bytes:
    """The header, `SIZE` bytes."""
    fixed = _FIXED.pack(
        MAGIC,
        1,
        volume.spec.algorithm.encode(),
        volume.spec.mode_text.encode(),
        volume.digest.hash.encode(),
        volume.payload_offset // VECTOR_UNIT,
        volume.key_bytes,
        volume.digest.digest,
        volume.digest.salt,
        volume.digest.iterations,
        volume.uuid.encode(),
    )
    return fixed + b"".join(encode_slot(slot) for slot in volume.slots)


def slot_at(number: int) -> int:
    """Where a slot stands in the header; its state is its first four bytes."""
    return _FIXED.size + number * _SLOT.size


def encode_slot(slot: KeySlot) -> bytes:
    assert slot.derivation is not None
    return _SLOT.pack(
        ENABLED if slot.active else DISABLED,
        slot.derivation.iterations,
        slot.derivation.salt,
        slot.area.offset // VECTOR_UNIT,
        slot.stripes,
    )


def encode_state(slot: KeySlot) -> bytes:
    """The field that switches it, inside one sector."""
    return encode_slot(slot)[:4]
