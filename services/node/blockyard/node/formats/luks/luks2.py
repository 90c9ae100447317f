"""The header of LUKS2 (LUKS2 On-Disk Format Specification 1.1.3): two copies, each a sector of binary fields with a
checksum and an area of JSON.

The copy with the higher sequence number counts; a torn or damaged one is told by its checksum. What the JSON says
beyond what we know is kept as it is. `decode_copy` reads one, `volume_of` judges what it says.
"""

import base64
import binascii
import hashlib
import json
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from blockyard.base.errors import ImageCorrupt, UnsupportedFeature
from blockyard.base.ranges import ByteRange, align_up
from blockyard.node.formats.ciphers import VECTOR_UNIT
from blockyard.node.formats.luks.cipher import HASHES, CipherSpec
from blockyard.node.formats.luks.derivation import check_cost, material_bytes
from blockyard.node.formats.luks.limits import LUKS2_SLOTS, MAX_ITERATIONS, MAX_KEY_MATERIAL, STRIPES
from blockyard.node.formats.luks.luks1 import MAGIC
from blockyard.node.formats.luks.volume import Derivation, KeyDigest, KeySlot, Volume

SECOND_MAGIC: Final = b"SKUL\xba\xbe"
BINARY_BYTES: Final = 4096
COPY_SIZES: Final = tuple(size * 1024 for size in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096))
"""Of a copy, and so the places where the second may be (specification, table 1)."""
_BINARY: Final = struct.Struct(">6sHQQ48s32s64s40s48sQ184s64s")
_CHECKSUM_AT: Final = _BINARY.size - 64
_CHECKSUM: Final = "sha256"
_SEQUENCE_MAX: Final = (1 << 63) - 1
SECTOR_SIZES: Final = (512, 1024, 2048, 4096)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy of the header."""

    size: int
    """Of binary fields and JSON together; the second copy begins there."""
    sequence: int
    label: str
    uuid: str
    subsystem: str
    metadata: Json

    def changed(self, metadata: Json) -> "Copy":
        """The next state."""
        return replace(self, sequence=self.sequence + 1, metadata=metadata)


def copy_size(data: bytes, at: int) -> int:
    """How long a copy says it is whose binary part this is, found at an offset; 0 if there is none."""
    if len(data) < BINARY_BYTES:
        return 0
    magic, version, size, _, *_, place, _, _ = _BINARY.unpack_from(data)
    wanted = MAGIC if at == 0 else SECOND_MAGIC
    good = magic == wanted and version == 2 and size in COPY_SIZES and place == at and (at == 0 or size == at)
    return int(size) if good else 0


def decode_copy(data: bytes, at: int) -> Copy | None:
    """A whole copy; None if its checksum or its JSON is broken."""
    size = copy_size(data, at)
    if not size or len(data) < size:
        return None
    fields = _BINARY.unpack_from(data)
    algorithm = _text(fields[5])
    if algorithm not in HASHES:
        return None
    whole = bytearray(data[:size])
    whole[_CHECKSUM_AT : _CHECKSUM_AT + 64] = bytes(64)
    digest = hashlib.new(algorithm, whole).digest()
    if fields[11][: len(digest)] != digest or not 0 < fields[3] < _SEQUENCE_MAX:
        return None
    try:
        metadata = json.loads(data[BINARY_BYTES:size].split(b"\0", 1)[0])
    except (ValueError, RecursionError):
        return None
    if not isinstance(metadata, dict):
        return None
    return Copy(size, fields[3], _text(fields[4]), _text(fields[7]), _text(fields[8]), metadata)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")


def encode_copy(copy: Copy, at: int, image: str) -> bytes:
    """A copy for the begin of the header (`at` 0) or for its second place. Raises ImageCorrupt if it has no
    room."""
    text = json.dumps(copy.metadata, separators=(",", ":")).encode()
    if len(text) >= copy.size - BINARY_BYTES:
        room = copy.size - BINARY_BYTES - 1
        raise ImageCorrupt(image, "JSON of the header", f"at most {room} bytes", str(len(text)))

    def binary(checksum: bytes) -> bytes:
        packed = _BINARY.pack(
            MAGIC if at == 0 else SECOND_MAGIC,
            2,
            copy.size,
            copy.sequence,
            copy.label.encode()[:47],
            _CHECKSUM.encode(),
            salt,
            copy.uuid.encode()[:39],
            copy.subsystem.encode()[:47],
            at,
            b"",
            checksum,
        )
        return packed.ljust(BINARY_BYTES, b"\0")

    salt = secrets.token_bytes(64)
    area = text.ljust(copy.size - BINARY_BYTES, b"\0")
    return binary(hashlib.new(_CHECKSUM, binary(b"") + area).digest()) + area


# --- what the JSON says ---------------------------------------------------------------------------------------


def volume_of(copy: Copy, image: str, room: int, *, detached: bool = False) -> Volume:
    """Everything judged. `room`: where key material must end. Raises ImageCorrupt or UnsupportedFeature."""
    metadata = copy.metadata
    try:
        return _volume(copy, metadata, image, room, detached)
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as problem:
        raise ImageCorrupt(
            image, "JSON of the header", "what LUKS2 says", f"{type(problem).__name__} {problem}"[:100]
        ) from problem


def _volume(copy: Copy, metadata: Json, image: str, room: int, detached: bool) -> Volume:
    _check_requirements(metadata, image)
    number, segment = _segment(metadata, image)
    spec = CipherSpec.parse_joined(segment["encryption"], image)
    sector_size = _whole(segment["sector_size"])
    if sector_size not in SECTOR_SIZES:
        raise ImageCorrupt(image, "sector size", "512, 1024, 2048 or 4096", str(sector_size))
    digest, keyslots = _digest(metadata, number, image)
    slots = tuple(
        sorted(
            (_slot(int(name), metadata["keyslots"][name], image, room, copy.size) for name in keyslots),
            key=lambda slot: slot.number,
        )
    )
    key_bytes = {_whole(metadata["keyslots"][name]["key_size"]) for name in keyslots}
    size = key_bytes.pop() if len(key_bytes) == 1 else 0
    if keyslots and not spec.takes_key(size):
        raise ImageCorrupt(image, "key size", f"bytes that {spec} takes", str(size))
    end = 2 * copy.size + _whole(metadata["config"]["keyslots_size"])
    offset = _whole(segment["offset"])
    length = -1 if segment["size"] == "dynamic" else _whole(segment["size"])
    if offset % VECTOR_UNIT or offset < (
        0 if detached else max(2 * copy.size, *(slot.area.end for slot in slots), 0)
    ):
        raise ImageCorrupt(image, "payload offset", "sectors after the key slots", str(offset))
    if length >= 0 and length % sector_size:
        raise ImageCorrupt(image, "payload size", f"a multiple of {sector_size}", str(length))
    first = _whole(segment.get("iv_tweak", "0"))
    return Volume(
        2, copy.uuid, copy.label, spec, size, sector_size, offset, length, first, digest, slots, end
    )  # fmt: skip


def _whole(value: object) -> int:
    """Numbers of 64 bits stand in strings, small ones do not."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r} is no number")
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= 20):
        raise ValueError(f"{value[:30]!r} is no number")
    number = int(value)
    if not 0 <= number < 1 << 63:
        raise ValueError(f"{number} is out of range")
    return number


def _check_requirements(metadata: Json, image: str) -> None:
    wanted = metadata["config"].get("requirements", {}).get("mandatory", [])
    if wanted:
        raise UnsupportedFeature(image, ", ".join(f"requirement {name!r}"[:60] for name in list(wanted)[:5]))


def _segment(metadata: Json, image: str) -> tuple[str, Mapping[str, Any]]:
    segments = metadata["segments"]
    if len(segments) != 1:
        raise UnsupportedFeature(image, f"{len(segments)} segments (a reencryption that has not ended)")
    number, segment = next(iter(segments.items()))
    if segment["type"] != "crypt":
        raise UnsupportedFeature(image, f"a segment of type {segment['type']!r}"[:80])
    if "integrity" in segment:
        raise UnsupportedFeature(image, "integrity protection (dm-integrity)")
    return number, segment


def _digest(metadata: Json, segment: str, image: str) -> tuple[KeyDigest, list[str]]:
    """The digest of the segment's key, and which slots hold that key."""
    for found in metadata["digests"].values():
        if segment in found["segments"]:
            break
    else:
        raise ImageCorrupt(image, "digests", f"one for segment {segment}", "none")
    if found["type"] != "pbkdf2" or found["hash"] not in HASHES:
        raise UnsupportedFeature(image, f"digest {found['type']!r} of {found['hash']!r}"[:80])
    iterations = _whole(found["iterations"])
    if not 1 <= iterations <= MAX_ITERATIONS:
        raise ImageCorrupt(image, "iterations of the volume key", f"1 to {MAX_ITERATIONS}", str(iterations))
    names = [name for name in found["keyslots"] if metadata["keyslots"][name]["type"] == "luks2"]
    if len(names) > LUKS2_SLOTS or any(not 0 <= _whole(name) < LUKS2_SLOTS for name in names):
        raise ImageCorrupt(image, "key slots", f"0 to {LUKS2_SLOTS - 1}", ", ".join(names[:40]))
    digest = KeyDigest(found["hash"], iterations, _binary(found["salt"]), _binary(found["digest"]))
    if not 16 <= len(digest.digest) <= 64:
        raise ImageCorrupt(image, "digest of the volume key", "16 to 64 bytes", str(len(digest.digest)))
    return digest, names


def _slot(number: int, found: Mapping[str, Any], image: str, room: int, copy_bytes: int) -> KeySlot:
    what = f"key slot {number}"
    area, split, kdf = found["area"], found["af"], found["kdf"]
    if area["type"] != "raw" or split["type"] != "luks1":
        raise UnsupportedFeature(image, f"{what} with area {area['type']!r}, split {split['type']!r}"[:100])
    place = ByteRange(_whole(area["offset"]), _whole(area["size"]))
    if place.offset < 2 * copy_bytes or place.end > room:
        raise ImageCorrupt(image, f"key material of slot {number}", f"in {2 * copy_bytes} to {room}", f"{place}")
    stripes, split_hash = _whole(split["stripes"]), split["hash"]
    if not 1 <= stripes <= STRIPES or split_hash not in HASHES:
        raise ImageCorrupt(
            image, f"stripes of {what}", f"1 to {STRIPES} with a known hash", f"{stripes} {split_hash}"[:80]
        )
    spec = CipherSpec.parse_joined(area["encryption"], image)
    area_key = _whole(area["key_size"])
    if not spec.takes_key(area_key):
        raise ImageCorrupt(image, f"key size of {what}", f"bytes that {spec} takes", str(area_key))
    slot = KeySlot(
        number, True, place, _derivation(kdf, image, what), spec, area_key, stripes, split_hash,
        by_number_only=found.get("priority", 1) == 0,
    )  # fmt: skip
    if material_bytes(slot, min(_whole(found["key_size"]), 64)) > min(place.length, MAX_KEY_MATERIAL):
        raise ImageCorrupt(
            image, f"key material of slot {number}", "an area that holds it", f"{place.length} bytes"
        )
    return slot


def _derivation(kdf: Mapping[str, Any], image: str, what: str) -> Derivation:
    salt = _binary(kdf["salt"])
    if kdf["type"] == "pbkdf2":
        if kdf["hash"] not in HASHES:
            raise UnsupportedFeature(image, f"hash {kdf['hash']!r}"[:60])
        found = Derivation("pbkdf2", salt, kdf["hash"], _whole(kdf["iterations"]))
    else:
        found = Derivation(
            str(kdf["type"]), salt, "", _whole(kdf["time"]), _whole(kdf["memory"]), _whole(kdf["cpus"])
        )
    check_cost(found, image, what)
    return found


def _binary(text: str) -> bytes:
    found = base64.b64decode(text, validate=True)
    if len(found) > 1024:
        raise ValueError("more than 1024 bytes of salt or digest")
    return found


# --- writing --------------------------------------------------------------------------------------------------


def fresh(
    spec: CipherSpec, key_bytes: int, sector_size: int, digest: KeyDigest, uuid: str, label: str, *, detached: bool
) -> Copy:
    """A header without key slots, laid out as cryptsetup does: two copies of 16 KiB, 16 MiB in all."""
    size, payload = COPY_SIZES[0], 16 * 1024 * 1024
    metadata: Json = {
        "keyslots": {},
        "tokens": {},
        "segments": {
            "0": {
                "type": "crypt",
                "offset": "0" if detached else str(payload),
                "size": "dynamic",
                "iv_tweak": "0",
                "encryption": str(spec),
                "sector_size": sector_size,
            }
        },
        "digests": {
            "0": {
                "type": "pbkdf2",
                "keyslots": [],
                "segments": ["0"],
                "hash": digest.hash,
                "iterations": digest.iterations,
                "salt": base64.b64encode(digest.salt).decode(),
                "digest": base64.b64encode(digest.digest).decode(),
            }
        },
        "config": {"json_size": str(size - BINARY_BYTES), "keyslots_size": str(payload - 2 * size)},
    }
    return Copy(size, 1, label, uuid, "", metadata)


def with_slot(copy: Copy, volume: Volume, slot: KeySlot) -> Copy:
    """The next state, with this slot in it."""
    assert slot.derivation is not None and slot.spec is not None
    metadata = json.loads(json.dumps(copy.metadata))
    kdf: Json = {"type": slot.derivation.kind, "salt": base64.b64encode(slot.derivation.salt).decode()}
    if slot.derivation.kind == "pbkdf2":
        kdf |= {"hash": slot.derivation.hash, "iterations": slot.derivation.iterations}
    else:
        kdf |= {
            "time": slot.derivation.iterations,
            "memory": slot.derivation.memory_kib,
            "cpus": slot.derivation.lanes,
        }
    metadata["keyslots"][str(slot.number)] = {
        "type": "luks2",
        "key_size": volume.key_bytes,
        "af": {"type": "luks1", "stripes": slot.stripes, "hash": slot.split_hash},
        "area": {
            "type": "raw",
            "offset": str(slot.area.offset),
            "size": str(slot.area.length),
            "encryption": str(slot.spec),
            "key_size": slot.area_key_bytes,
        },
        "kdf": kdf,
    }
    names = _digest_of(metadata, volume)["keyslots"]
    if str(slot.number) not in names:
        names.append(str(slot.number))
    return copy.changed(metadata)


def without_slot(copy: Copy, volume: Volume, number: int) -> Copy:
    """The next state, without that slot."""
    metadata = json.loads(json.dumps(copy.metadata))
    metadata["keyslots"].pop(str(number), None)
    for found in [*metadata["digests"].values(), *metadata.get("tokens", {}).values()]:
        if str(number) in found.get("keyslots", []):
            found["keyslots"].remove(str(number))
    return copy.changed(metadata)


def _digest_of(metadata: Json, volume: Volume) -> Json:
    return next(found for found in metadata["digests"].values() if _binary(found["digest"]) == volume.digest.digest)


def free_area(copy: Copy, volume: Volume) -> ByteRange | None:
    """Room for the key material of one more slot; None if there is none."""
    length = align_up(volume.key_bytes * STRIPES, BINARY_BYTES)
    taken = sorted(
        (_whole(found["area"]["offset"]), _whole(found["area"]["offset"]) + _whole(found["area"]["size"]))
        for found in copy.metadata["keyslots"].values()
    )
    start = 2 * copy.size
    for first, end in taken:
        if first - start >= length:
            break
        start = max(start, align_up(end, BINARY_BYTES))
    return ByteRange(start, length) if start + length <= volume.header_bytes else None


def free_number(copy: Copy) -> int:
    """The lowest number without a slot, -1 if all have one. Slots of other kinds count."""
    taken = copy.metadata["keyslots"]
    return next((number for number in range(LUKS2_SLOTS) if str(number) not in taken), -1)
