"""What a new LUKS header, or a change of its key slots, is told. Names and defaults as QEMU has them."""

from dataclasses import dataclass
from typing import Final

from blockyard.base.errors import InvalidArgument, MissingOption
from blockyard.node.formats.ciphers import VECTOR_UNIT
from blockyard.node.formats.luks import cipher, limits, luks2
from blockyard.node.formats.luks.cipher import CipherSpec
from blockyard.node.interface.abilities import KeySlotChange

DEFAULT_ITER_TIME_MS: Final = 2000
"""QEMU's (QCRYPTO_BLOCK_LUKS_DEFAULT_ITER_TIME_MS) and cryptsetup's."""
MAX_ITER_TIME_MS: Final = 10_000
_ALGORITHMS: Final = {"aes-128": 16, "aes-192": 24, "aes-256": 32}


@dataclass(frozen=True, slots=True)
class KeyAmendment:
    """Key slots to change, as QEMU's amend says it (QCryptoBlockAmendOptionsLUKS)."""

    state: str
    """active: make a slot open with new_secret. inactive: erase slots."""
    new_secret: str = ""
    """Name of the secret that a slot is to open with."""
    old_secret: str = ""
    """active: a secret that opens the image already; default: what it is open with. inactive: all slots that open
    with it are meant, or of them keyslot."""
    keyslot: int | None = None
    """Default: the first that is free."""
    iter_time: int | None = None
    """Milliseconds that a derivation is to take; default 2000."""

    def change(self, force: bool) -> KeySlotChange:
        """Raises InvalidArgument."""
        if self.state not in ("active", "inactive"):
            raise InvalidArgument("state", "active or inactive", self.state[:40])
        return KeySlotChange(
            self.state == "active", self.new_secret, self.old_secret, self.keyslot, self.iter_time, force
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVolume:
    """A volume to make."""

    key_secret: str
    cipher_alg: str = "aes-256"
    cipher_mode: str = "xts"
    ivgen_alg: str = "plain64"
    ivgen_hash_alg: str = ""
    hash_alg: str = "sha256"
    iter_time: int = DEFAULT_ITER_TIME_MS
    version: int = 1
    sector_size: int = VECTOR_UNIT
    pbkdf: str = "pbkdf2"
    pbkdf_memory: int = 0
    """KiB of argon2id."""
    pbkdf_parallel: int = 0
    label: str = ""
    owner: str = "driver luks"

    @property
    def key_bytes(self) -> int:
        return _ALGORITHMS[self.cipher_alg] * (2 if self.cipher_mode == "xts" else 1)

    @property
    def spec(self) -> CipherSpec:
        # QEMU wants a generator also for ecb, which has no use for it.
        hash_name = (self.ivgen_hash_alg or "sha256") if self.ivgen_alg == "essiv" else ""
        return CipherSpec("aes", self.cipher_mode, self.ivgen_alg, hash_name)

    def check(self) -> None:
        """Raises InvalidArgument or MissingOption for what cannot be."""
        second = self.version == 2
        rules = (
            ("cipher_alg", self.cipher_alg in _ALGORITHMS, " or ".join(_ALGORITHMS), self.cipher_alg),
            ("cipher_mode", self.cipher_mode in cipher.MODES, " or ".join(cipher.MODES), self.cipher_mode),
            ("ivgen_alg", self.ivgen_alg in cipher.GENERATORS, " or ".join(cipher.GENERATORS), self.ivgen_alg),
            ("ivgen_hash_alg", not self.ivgen_hash_alg or self.ivgen_alg == "essiv",
             "none without ivgen_alg = essiv", self.ivgen_hash_alg),
            ("ivgen_hash_alg", self.ivgen_alg != "essiv" or self._essiv_fits(), "a hash as long as a key of AES",
             self.ivgen_hash_alg),
            ("hash_alg", self.hash_alg in cipher.HASHES, " or ".join(cipher.HASHES), self.hash_alg),
            ("iter_time", 1 <= self.iter_time <= MAX_ITER_TIME_MS, f"1 to {MAX_ITER_TIME_MS} ms", self.iter_time),
            ("version", self.version in (1, 2), "luks1 or luks2", self.version),
            ("sector_size", self.sector_size in (luks2.SECTOR_SIZES if second else (VECTOR_UNIT,)),
             "512, or to 4096 with luks2", self.sector_size),
            ("sector_size", self.sector_size == VECTOR_UNIT or (self.cipher_mode, self.cipher_alg) != ("xts",
             "aes-192"), "512 with aes-192 in xts", self.sector_size),
            ("pbkdf", self.pbkdf in (("pbkdf2", "argon2id") if second else ("pbkdf2",)),
             "pbkdf2, or argon2id with luks2", self.pbkdf),
            ("pbkdf_memory", 32 <= (self.pbkdf_memory or 32) <= limits.MAX_ARGON2_KIB,
             f"32 to {limits.MAX_ARGON2_KIB} KiB", self.pbkdf_memory),
            ("pbkdf_parallel", 0 <= self.pbkdf_parallel <= limits.MAX_ARGON2_LANES,
             f"1 to {limits.MAX_ARGON2_LANES}", self.pbkdf_parallel),
            ("label", len(self.label.encode()) < 48 and (second or not self.label), "up to 47 bytes, with luks2",
             self.label),
        )  # fmt: skip
        for name, holds, expected, found in rules:
            if not holds:
                raise InvalidArgument(name, expected, str(found)[:100])
        if not self.key_secret:
            raise MissingOption(self.owner, "key_secret")

    def _essiv_fits(self) -> bool:
        return cipher.HASHES.get(self.ivgen_hash_alg or "sha256") in cipher.KEY_BYTES
