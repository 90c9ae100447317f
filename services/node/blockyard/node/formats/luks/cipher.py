"""Ciphers by the names that headers have: `aes`, `xts-plain64`, a key of so many bytes.

The block cipher is AES, which the library has in hardware. Serpent, Twofish and CAST5, which QEMU can be built
with, are named and refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from blockyard.base.errors import UnsupportedFeature
from blockyard.node.formats import ciphers
from blockyard.node.formats.ciphers import SectorCipher

MODES: Final = ("xts", "cbc", "ctr", "ecb")
GENERATORS: Final = ("plain", "plain64", "essiv")
KEY_BYTES: Final = (16, 24, 32)
HASHES: Final = {"md5": 16, "sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": 64, "ripemd160": 20}
"""Names and bytes of a digest (QEMU's qcrypto_block_luks_hash_name)."""
_MASKS: Final = {"plain": (1 << 32) - 1, "plain64": (1 << 64) - 1}


@dataclass(frozen=True, slots=True)
class CipherSpec:
    """A cipher without its key."""

    algorithm: str
    mode: str
    generator: str = ""
    """Of the vectors; none for ecb."""
    generator_hash: str = ""
    """Of essiv."""

    @classmethod
    def parse(cls, algorithm: str, mode: str, image: str) -> "CipherSpec":
        """Of what a header says: `aes` and `cbc-essiv:sha256`. Raises UnsupportedFeature."""
        chain, _, rest = mode.partition("-")
        generator, _, hash_name = rest.partition(":")
        spec = cls(algorithm, chain, generator, hash_name)
        spec.check(image)
        return spec

    @classmethod
    def parse_joined(cls, text: str, image: str) -> "CipherSpec":
        """Of LUKS2's `aes-xts-plain64`."""
        algorithm, _, mode = text.partition("-")
        return cls.parse(algorithm, mode, image)

    def check(self, image: str) -> None:
        """Raises UnsupportedFeature for what we cannot do."""
        known = (
            self.algorithm == "aes"
            and self.mode in MODES
            and (self.generator in GENERATORS or (self.mode == "ecb" and not self.generator))
            and (self.generator == "essiv") == bool(self.generator_hash)
            # The digest is the key of an AES.
            and (not self.generator_hash or HASHES.get(self.generator_hash) in KEY_BYTES)
        )
        if not known:
            raise UnsupportedFeature(image, f"cipher {str(self)[:100]!r}")

    @property
    def mode_text(self) -> str:
        """As LUKS1 has it beside the algorithm."""
        generator = f"{self.generator}:{self.generator_hash}" if self.generator_hash else self.generator
        return f"{self.mode}-{generator}" if generator else self.mode

    def __str__(self) -> str:
        return f"{self.algorithm}-{self.mode_text}"

    def takes_key(self, size: int) -> bool:
        """Whether a key may have so many bytes; xts takes two."""
        return size in ((*(2 * one for one in KEY_BYTES),) if self.mode == "xts" else KEY_BYTES)

    def make(self, key: bytes, sector_size: int, image: str) -> SectorCipher:
        """The cipher with its key. Raises UnsupportedFeature."""
        if not self.takes_key(len(key)):
            raise UnsupportedFeature(image, f"cipher {self} with a key of {len(key)} bytes")
        if self.mode == "xts" and sector_size != ciphers.VECTOR_UNIT and len(key) == 2 * 24:
            raise UnsupportedFeature(image, f"cipher {self} of 384 bits with sectors of {sector_size} bytes")
        return ciphers.SharedCipher(lambda: self._engine(key, sector_size))

    def _engine(self, key: bytes, sector_size: int) -> ciphers.Sectors:
        vectors = self._vectors(key)
        if self.mode == "xts" and sector_size == ciphers.VECTOR_UNIT:
            return ciphers.XtsSectors(key, vectors)
        return _KINDS[self.mode](key, vectors, sector_size)

    def _vectors(self, key: bytes) -> ciphers.Vectors:
        if self.generator == "essiv":
            # In xts essiv hashes the whole key, as everywhere (crypto/block-luks.c).
            return ciphers.EssivVectors(key, self.generator_hash)
        return ciphers.PlainVectors(_MASKS.get(self.generator, 0))


_KINDS: Final[dict[str, Callable[[bytes, ciphers.Vectors, int], ciphers.Sectors]]] = {
    "xts": ciphers.XtsContexts,
    "cbc": ciphers.CbcSectors,
    "ctr": ciphers.CtrSectors,
    "ecb": ciphers.EcbSectors,
}
