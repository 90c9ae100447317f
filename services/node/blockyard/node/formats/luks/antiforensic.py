"""Keys split into many stripes, so that destroying any part of the stripes destroys the key (LUKS specification,
"Anti-forensic splitting"; QEMU's crypto/afsplit.c)."""

import hashlib
import struct

from blockyard.node.formats.luks.cipher import HASHES


def split(key: bytes, stripes: int, hash_name: str, noise: bytes) -> bytes:
    """The stripes of a key. `noise`: random bytes for all stripes but the last."""
    size = len(key)
    assert len(noise) == size * (stripes - 1)
    mixed = _mixed(noise, size, hash_name)
    return noise + _xor(mixed, key)


def merge(material: bytes, size: int, stripes: int, hash_name: str) -> bytes:
    """The key of its stripes."""
    return _xor(_mixed(material[: size * (stripes - 1)], size, hash_name), material[size * (stripes - 1) :][:size])


def _mixed(stripes: bytes, size: int, hash_name: str) -> bytes:
    mixed = bytes(size)
    for at in range(0, len(stripes), size):
        mixed = _diffuse(_xor(mixed, stripes[at : at + size]), hash_name)
    return mixed


def _diffuse(data: bytes, hash_name: str) -> bytes:
    """Every part of a digest's length is hashed with its number; the last one may be cut."""
    step = HASHES[hash_name]
    parts = []
    for number, at in enumerate(range(0, len(data), step)):
        part = data[at : at + step]
        parts.append(hashlib.new(hash_name, struct.pack(">I", number) + part).digest()[: len(part)])
    return b"".join(parts)


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one) ^ int.from_bytes(other)).to_bytes(len(one))
