"""Keys out of passphrases and key slots. Long by nature and made for a pool: nothing here waits for anything.

What a header asks for was bounded before (`limits`).
"""

import hashlib
import hmac
import secrets

from cryptography.exceptions import UnsupportedAlgorithm

from blockyard.base.errors import ImageCorrupt, UnsupportedFeature
from blockyard.node.formats.ciphers import VECTOR_UNIT
from blockyard.node.formats.luks import antiforensic
from blockyard.node.formats.luks.limits import (
    MAX_ARGON2_KIB,
    MAX_ARGON2_LANES,
    MAX_ARGON2_WORK_KIB,
    MAX_ITERATIONS,
)
from blockyard.node.formats.luks.volume import Derivation, KeyDigest, KeySlot


def check_cost(derivation: Derivation, image: str, what: str) -> None:
    """Raises ImageCorrupt for work that no image has a reason to ask for, UnsupportedFeature for what we lack."""
    if derivation.kind == "pbkdf2":
        _bound(image, f"iterations of {what}", derivation.iterations, MAX_ITERATIONS)
        return
    if derivation.kind != "argon2id":
        raise UnsupportedFeature(image, f"key derivation {derivation.kind[:40]!r} of {what}")
    _bound(image, f"KiB of memory that {what} needs", derivation.memory_kib, MAX_ARGON2_KIB)
    _bound(image, f"lanes of {what}", derivation.lanes, MAX_ARGON2_LANES)
    work = derivation.memory_kib * derivation.iterations
    _bound(image, f"KiB of memory times passes of {what}", work, MAX_ARGON2_WORK_KIB)
    if derivation.memory_kib < 8 * derivation.lanes or not 8 <= len(derivation.salt) <= 64:
        raise ImageCorrupt(image, f"key derivation of {what}", "parameters of argon2", "too little memory or salt")


def _bound(image: str, what: str, found: int, limit: int) -> None:
    if not 1 <= found <= limit:
        raise ImageCorrupt(image, what, f"1 to {limit}", str(found))


def derive(derivation: Derivation, passphrase: bytes, length: int, image: str) -> bytes:
    """A key of so many bytes."""
    if derivation.kind == "pbkdf2":
        return hashlib.pbkdf2_hmac(derivation.hash, passphrase, derivation.salt, derivation.iterations, length)
    try:
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

        made = Argon2id(
            salt=derivation.salt,
            length=length,
            iterations=derivation.iterations,
            lanes=derivation.lanes,
            memory_cost=derivation.memory_kib,
        )
    except (ImportError, UnsupportedAlgorithm) as problem:
        raise UnsupportedFeature(image, "argon2id, which this build of the cipher library lacks") from problem
    return bytes(made.derive(passphrase))


def is_key(digest: KeyDigest, key: bytes) -> bool:
    """Whether a key is the one that the digest was made of."""
    made = hashlib.pbkdf2_hmac(digest.hash, key, digest.salt, digest.iterations, len(digest.digest))
    return hmac.compare_digest(made, digest.digest)


def digest_of(key: bytes, hash_name: str, iterations: int, length: int) -> KeyDigest:
    salt = secrets.token_bytes(32)
    return KeyDigest(hash_name, iterations, salt, hashlib.pbkdf2_hmac(hash_name, key, salt, iterations, length))


def key_in(slot: KeySlot, material: bytes, passphrase: bytes, size: int, image: str) -> bytes:
    """What a slot gives for a passphrase: the volume key, if it is the right one."""
    assert slot.derivation is not None and slot.spec is not None
    opener = derive(slot.derivation, passphrase, slot.area_key_bytes, image)
    plain = bytearray(material)
    slot.spec.make(opener, VECTOR_UNIT, image).decrypt(0, memoryview(plain))
    return antiforensic.merge(bytes(plain), size, slot.stripes, slot.split_hash)


def material_of(slot: KeySlot, key: bytes, passphrase: bytes, image: str) -> bytes:
    """The key material that opens with a passphrase; whole sectors."""
    assert slot.derivation is not None and slot.spec is not None
    opener = derive(slot.derivation, passphrase, slot.area_key_bytes, image)
    noise = secrets.token_bytes(len(key) * (slot.stripes - 1))
    plain = antiforensic.split(key, slot.stripes, slot.split_hash, noise)
    padded = plain.ljust(material_bytes(slot, len(key)), b"\0")
    return bytes(slot.spec.make(opener, VECTOR_UNIT, image).encrypt(0, padded))


def material_bytes(slot: KeySlot, key_bytes: int) -> int:
    """Bytes of key material, whole sectors."""
    return -(-key_bytes * slot.stripes // VECTOR_UNIT) * VECTOR_UNIT
