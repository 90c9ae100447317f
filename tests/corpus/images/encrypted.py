"""LUKS headers: what they ask of memory and time, where keys and payload are said to lie. Opened without a key."""

import base64
import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

from tests.corpus.entry import Answer, Entry, blob, refused
from tests.corpus.writer import MIB

LUKS = "LUKS headers"
LUKS1_SIZE = 592
SECTORS = 4096
B32 = base64.b64encode(bytes(range(32))).decode()
"""Of 512 bytes, before the payload of a sound image."""


def luks1(**fields: Any) -> bytes:
    """LUKS1 with one key slot; 3 MiB."""
    said = {
        "version": 1, "cipher": b"aes", "mode": b"xts-plain64", "hash": b"sha256", "payload": SECTORS,
        "key_bytes": 64,
        "digest_iterations": 1000, "uuid": b"00000000-0000-0000-0000-000000000000", "active": 0x00AC71F3,
        "slot_iterations": 1000, "material": 8, "stripes": 4000, **fields,
    }  # fmt: skip
    head = struct.pack(
        ">6sH32s32s32sII20s32sI40s", b"LUKS\xba\xbe", said["version"], said["cipher"], said["mode"], said["hash"],
        said["payload"], said["key_bytes"], bytes(20), bytes(32), said["digest_iterations"], said["uuid"],
    )  # fmt: skip
    slot = struct.pack(
        ">II32sII", said["active"], said["slot_iterations"], bytes(32), said["material"], said["stripes"]
    )
    rest = b"".join(
        struct.pack(">II32sII", 0x0000DEAD, 0, bytes(32), 8 + 504 * number, 4000) for number in range(1, 8)
    )
    return (head + slot + rest).ljust(3 * MIB, b"\0")


def sound_json(**changes: Any) -> dict[str, Any]:
    area = {"type": "raw", "offset": "32768", "size": "258048", "encryption": "aes-xts-plain64", "key_size": 64}
    kdf = {"type": "argon2id", "time": 4, "memory": 65536, "cpus": 1, "salt": B32}
    slot = {"type": "luks2", "key_size": 64, "af": {"type": "luks1", "stripes": 4000, "hash": "sha256"}}
    area |= changes.pop("area", {})
    kdf |= changes.pop("kdf", {})
    return {
        "keyslots": {"0": {**slot, "area": area, "kdf": kdf}},
        "tokens": {},
        "segments": {
            "0": {
                "type": "crypt", "offset": "16777216", "size": "dynamic", "iv_tweak": "0",
                "encryption": "aes-xts-plain64", "sector_size": 512, **changes.pop("segment", {}),
            }
        },
        "digests": {
            "0": {
                "type": "pbkdf2", "keyslots": ["0"], "segments": ["0"], "hash": "sha256", "iterations": 1000,
                "salt": B32, "digest": B32, **changes.pop("digest", {}),
            }
        },
        "config": {"json_size": "12288", "keyslots_size": "16744448"},
        **changes,
    }  # fmt: skip


def luks2(text: bytes | Mapping[str, Any], *, size: int = 16384, sequence: int = 1, checksum: bool = True) -> bytes:
    """Both copies of a LUKS2 header with this JSON."""
    said = text if isinstance(text, bytes) else json.dumps(text).encode()
    copies = []
    for magic, offset in ((b"LUKS\xba\xbe", 0), (b"SKUL\xba\xbe", size)):
        binary = bytearray(4096)
        struct.pack_into(
            ">6sHQQ48s32s64s40s48sQ", binary, 0, magic, 2, size, sequence, b"", b"sha256", bytes(64),
            b"00000000-0000-0000-0000-000000000000", b"", offset,
        )  # fmt: skip
        area = said.ljust(12288, b"\0")[: max(0, 16384 - 4096)]
        if checksum:
            binary[448:480] = hashlib.sha256(bytes(binary) + area).digest()
        copies.append(bytes(binary) + area)
    return b"".join(copies).ljust(17 * MIB, b"\0")


NO_CHECK = refused("OPERATION_UNSUPPORTED", "", "check", "repair")
SHUT = refused("IMAGE_LOCKED", "", "map", "measure", "read")


def _refused(slug: str, source: str, data: bytes, word: str = "", reason: str = "IMAGE_CORRUPT") -> Entry:
    return Entry(f"luks-{slug}", LUKS, source, blob(data), refused(reason, word), format="luks")


def _accepted(slug: str, source: str, data: bytes, answers: Mapping[str, Answer] | None = None) -> Entry:
    return Entry(f"luks-{slug}", LUKS, source, blob(data), {**NO_CHECK, **SHUT, **(answers or {})}, format="luks")


ENTRIES = (
    _accepted("1-sound", "opened without its key", luks1()),
    _refused("1-iterations-2-to-32", "CPU: iterations", luks1(digest_iterations=0xFFFFFFFF), "iterations"),
    _refused("1-slot-iterations-2-to-32", "CPU: iterations", luks1(slot_iterations=0xFFFFFFFF), "iterations"),
    _refused("1-stripes-2-to-32", "memory: stripes", luks1(stripes=0xFFFFFFFF), "stripes"),
    _refused("1-stripes-0", "division, empty material", luks1(stripes=0), "stripes"),
    _refused("1-payload-in-the-header", "payload over key material", luks1(payload=1), "payload"),
    _refused("1-payload-past-the-end", "offsets beyond the file", luks1(payload=0xFFFFFFFF), "payload"),
    _refused("1-material-past-the-end", "offsets beyond the file", luks1(material=0xFFFFFFFF), "material"),
    _refused("1-material-over-the-header", "offsets over each other", luks1(material=0), "material"),
    _refused("1-key-of-4-gib", "memory: key", luks1(key_bytes=0xFFFFFFFF), "key"),
    _refused("1-key-of-0", "empty key", luks1(key_bytes=0), "key"),
    _refused(
        "1-cipher-not-text", "names are opaque", luks1(cipher=b"\xff\xfe\x1b[2J"), reason="UNSUPPORTED_FEATURE"
    ),
    _refused("1-hash-unknown", "names are opaque", luks1(hash=b"crc32"), reason="UNSUPPORTED_FEATURE"),
    _accepted("2-sound", "opened without its key", luks2(sound_json())),
    _refused("2-argon2-of-4-tib", "memory: argon2", luks2(sound_json(kdf={"memory": 0xFFFFFFFF})), "KiB of memory"),
    _refused("2-argon2-for-ever", "CPU: argon2", luks2(sound_json(kdf={"time": 0xFFFFFFFF})), "passes"),
    _refused("2-json-deep", "recursion", luks2(b"[" * 12000)),
    _refused("2-json-of-a-number", "type", luks2(b"9" * 12000)),
    _refused("2-json-not-text", "UTF-8", luks2(b"\xff\xfe{}")),
    _refused("2-json-empty", "members are missing", luks2({})),
    _refused("2-checksum-wrong", "checksum", luks2(sound_json(), checksum=False)),
    _refused("2-header-of-16-eib", "limit: 4 MiB", luks2(sound_json(), size=(1 << 64) - 4096)),
    _refused(
        "2-segment-past-the-end", "offsets beyond the file", luks2(sound_json(segment={"offset": str(1 << 62)}))
    ),
    _refused("2-segment-in-the-header", "payload over the header", luks2(sound_json(segment={"offset": "0"}))),
    _refused("2-segment-negative", "numbers are text", luks2(sound_json(segment={"offset": "-16777216"}))),
    _refused("2-area-past-the-end", "offsets beyond the file", luks2(sound_json(area={"offset": str(1 << 62)}))),
)
